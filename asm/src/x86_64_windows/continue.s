// Going on in a managed frame whose callees are dropped.

// The Continuation at rcx: its pc and its stack pointer lie as in the frame of an interrupt.
    .macro stackmark_at_continuation
    .seh_pushframe
    .seh_setframe rcx, 0
    .seh_savereg rbp, {c_rbp}
    .seh_savereg rbx, {c_rbx}
    .seh_savereg rdi, {c_rdi}
    .seh_savereg rsi, {c_rsi}
    .seh_savereg r12, {c_r12}
    .seh_savereg r13, {c_r13}
    .seh_savereg r14, {c_r14}
    .seh_savereg r15, {c_r15}
    .irp i, 6,7,8,9,10,11,12,13,14,15
    .seh_savexmm xmm\i, {c_vectors} + 16 * (\i - 6)
    .endr
    .seh_endprologue
    .endm

// stackmark_continue(rcx = Continuation), on S
    stackmark_function stackmark_continue
    stackmark_at_continuation
    stackmark_load_machine r9, ax
    mov r8, qword ptr [r9 + {m_goroutine}]
    cmp qword ptr [r8 + {g_entered}], 0
    jne 2f                                      // a native stack is its own system stack
    stackmark_keep_limit r9, rax
    stackmark_stack_is_goroutines r8, rax
2:  mov rbp, qword ptr [rcx + {c_rbp}]
    mov rbx, qword ptr [rcx + {c_rbx}]
    mov rdi, qword ptr [rcx + {c_rdi}]
    mov rsi, qword ptr [rcx + {c_rsi}]
    mov r12, qword ptr [rcx + {c_r12}]
    mov r13, qword ptr [rcx + {c_r13}]
    mov r14, qword ptr [rcx + {c_r14}]
    mov r15, qword ptr [rcx + {c_r15}]
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movaps xmm\i, xmmword ptr [rcx + {c_vectors} + 16 * (\i - 6)]
    .endr
    mov rax, qword ptr [rcx + {c_rax}]
    mov rdx, qword ptr [rcx + {c_rdx}]
    mov r8, qword ptr [rcx + {c_pc}]
    // On a native stack the Continuation is below this stack pointer: it may be overwritten.
    mov rsp, qword ptr [rcx + {c_sp}]           // on the goroutine stack from here
    jmp r8
    stackmark_end_part
