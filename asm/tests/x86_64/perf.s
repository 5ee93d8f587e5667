// perf_nested(rdi = frames to come, rsi = whether with barriers, rdx = how long to be busy at the
// bottom). The stub of the same number hijacks its return slot. It has a frame pointer, as perf
// wants it.
    .type perf_nested,@function
perf_nested:
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    test rsi, rsi
    je 2f
    push rdi
    push rsi
    push rdx
    sub rsp, 8
    lea rsi, [rbp + 8]
    call {hijack}
    add rsp, 8
    pop rdx
    pop rsi
    pop rdi
2:  dec rdi
    js 3f
    call perf_nested
    jmp 4f
3:  dec rdx
    jne 3b
4:  mov rsp, rbp
    pop rbp
    .cfi_def_cfa rsp, 8
    .cfi_restore rbp
    ret
    .cfi_endproc
    .size perf_nested, .-perf_nested

    .type perf_managed,@function
perf_managed:
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    mov edi, {frames} - 1
    mov edx, {busy}
    call perf_nested
    pop rbp
    .cfi_def_cfa rsp, 8
    .cfi_restore rbp
    ret
    .cfi_endproc
    .size perf_managed, .-perf_managed
