// managed_kept_by_\name(rdi = native function, rsi = n): calls it by stackmark_\name with the
// addresses of what the anchor is to be, and keeps a value in every callee-saved register
// meanwhile. Returns the sum of the result and the registers. The frame's CFA is by rbp.
    .macro managed_kept_by name
    .type managed_kept_by_\name,@function
managed_kept_by_\name:
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    push rbx
    .cfi_offset rbx, -24
    push r12
    .cfi_offset r12, -32
    push r13
    .cfi_offset r13, -40
    push r14
    .cfi_offset r14, -48
    push r15
    .cfi_offset r15, -56
    sub rsp, 40
    lea rbx, [rsi + 1]
    lea r12, [rsi + 2]
    lea r13, [rsi + 3]
    lea r14, [rsi + 4]
    lea r15, [rsi + 5]
    lea rax, [rip + 1f]
    mov [rsp], rax                              // the anchor: pc, sp, fp
    mov [rsp + 8], rsp
    mov [rsp + 16], rbp
    mov rdx, rsi
    mov rsi, rsp
    call stackmark_\name
1:  add rax, rbx
    add rax, r12
    add rax, r13
    add rax, r14
    add rax, r15
    lea rsp, [rbp - 40]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    .cfi_def_cfa rsp, 8
    ret
    .cfi_endproc
    .size managed_kept_by_\name, .-managed_kept_by_\name
    .endm

    managed_kept_by call_native
    managed_kept_by call_native_all

// managed_results(rdi = native function, rsi = patterns): calls it by stackmark_call_native and
// stores what may carry results: rax, rdx, xmm0, xmm1.
    .type managed_results,@function
managed_results:
    .cfi_startproc
    push rbx
    .cfi_def_cfa_offset 16
    .cfi_offset rbx, -16
    mov rbx, rsi
    call stackmark_call_native
    mov [rbx], rax
    mov [rbx + 8], rdx
    movups [rbx + 16], xmm0
    movups [rbx + 32], xmm1
    pop rbx
    .cfi_def_cfa_offset 8
    .cfi_restore rbx
    ret
    .cfi_endproc
    .size managed_results, .-managed_results

// native_results(rdi = patterns): loads the same.
    .type native_results,@function
native_results:
    .cfi_startproc
    mov rax, [rdi]
    mov rdx, [rdi + 8]
    movups xmm0, [rdi + 16]
    movups xmm1, [rdi + 32]
    ret
    .cfi_endproc
    .size native_results, .-native_results
