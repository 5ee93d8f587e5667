// perf_nested(frames to come, whether with barriers, how long to be busy at the bottom). The stub
// of the same number hijacks its return slot. It has a frame pointer, as perf wants it.
    .type perf_nested,@function
perf_nested:
    .cfi_startproc
    push ebp
    .cfi_def_cfa_offset 8
    .cfi_offset ebp, -8
    mov ebp, esp
    .cfi_def_cfa_register ebp
    sub esp, 24
    cmp dword ptr [ebp + 12], 0
    je 2f
    mov eax, [ebp + 8]
    mov [esp], eax
    lea eax, [ebp + 4]
    mov [esp + 4], eax
    call {hijack}
2:  mov eax, [ebp + 8]
    mov ecx, [ebp + 12]
    mov edx, [ebp + 16]
    dec eax
    js 3f
    mov [esp], eax
    mov [esp + 4], ecx
    mov [esp + 8], edx
    call perf_nested
    jmp 4f
3:  dec edx
    jne 3b
4:  mov esp, ebp
    pop ebp
    .cfi_def_cfa esp, 4
    .cfi_restore ebp
    ret
    .cfi_endproc
    .size perf_nested, .-perf_nested

    .type perf_managed,@function
perf_managed:
    .cfi_startproc
    push ebp
    .cfi_def_cfa_offset 8
    .cfi_offset ebp, -8
    mov ebp, esp
    .cfi_def_cfa_register ebp
    sub esp, 24
    mov dword ptr [esp], {frames} - 1
    mov eax, [ebp + 12]
    mov [esp + 4], eax
    mov dword ptr [esp + 8], {busy}
    call perf_nested
    mov esp, ebp
    pop ebp
    .cfi_def_cfa esp, 4
    ret
    .cfi_endproc
    .size perf_managed, .-perf_managed
