// managed_kept_by_\name(rcx = native function, rdx = n): calls it by stackmark_\name with the
// addresses of what the anchor is to be, and keeps a value in every callee-saved general register
// meanwhile. Returns the sum of the result and the registers. The frame's CFA is by rbp.
    .macro managed_kept_by name
    .seh_proc managed_kept_by_\name
managed_kept_by_\name:
    push rbp
    .seh_pushreg rbp
    mov rbp, rsp
    .seh_setframe rbp, 0
    .irp register, rbx, rdi, rsi, r12, r13, r14, r15
    push \register
    .seh_pushreg \register
    .endr
    sub rsp, 72                                 // [anchor][shadow space]
    .seh_stackalloc 72
    .seh_endprologue
    lea rbx, [rdx + 1]
    lea rdi, [rdx + 2]
    lea rsi, [rdx + 3]
    lea r12, [rdx + 4]
    lea r13, [rdx + 5]
    lea r14, [rdx + 6]
    lea r15, [rdx + 7]
    lea rax, [rip + 1f]
    mov [rsp + 32], rax                         // the anchor: pc, sp, fp
    mov [rsp + 40], rsp
    mov [rsp + 48], rbp
    mov r8, rdx
    lea rdx, [rsp + 32]
    call stackmark_\name
1:  .irp register, rbx, rdi, rsi, r12, r13, r14, r15
    add rax, \register
    .endr
    lea rsp, [rbp - 56]
    .irp register, r15, r14, r13, r12, rsi, rdi, rbx, rbp
    pop \register
    .endr
    ret
    .seh_endproc
    .endm

    managed_kept_by call_native
    managed_kept_by call_native_all

// managed_results(rcx = native function, rdx = patterns): calls it by stackmark_call_native and
// stores what may carry results: rax, xmm0.
    .seh_proc managed_results
managed_results:
    push rbx
    .seh_pushreg rbx
    sub rsp, 32
    .seh_stackalloc 32
    .seh_endprologue
    mov rbx, rdx
    call stackmark_call_native
    mov [rbx], rax
    movups [rbx + 8], xmm0
    add rsp, 32
    pop rbx
    ret
    .seh_endproc

// native_results(rcx = patterns): loads the same.
native_results:
    mov rax, [rcx]
    movups xmm0, [rcx + 8]
    ret
