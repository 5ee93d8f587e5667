// Going on in a managed frame whose callees are dropped.

// Says that a Continuation lies at a register, by DW_OP_breg: 0x75 for rdi, 0x73 for rbx. The CFA
// is its sp; each register of the caller is in its word.
    .macro stackmark_continuation_at base
    .cfi_escape 0x0f, 3, \base, {c_sp}, 0x06
    .cfi_escape 0x10, 16, 2, \base, {c_pc}
    .cfi_escape 0x10, 6, 2, \base, {c_rbp}
    .cfi_escape 0x10, 3, 2, \base, {c_rbx}
    .cfi_escape 0x10, 12, 2, \base, {c_r12}
    .cfi_escape 0x10, 13, 2, \base, {c_r13}
    .cfi_escape 0x10, 14, 2, \base, {c_r14}
    .cfi_escape 0x10, 15, 2, \base, {c_r15}
    .endm

// stackmark_continue(rdi = Continuation), on S
    .globl stackmark_continue
    .hidden stackmark_continue
    .type stackmark_continue,@function
stackmark_continue:
    .cfi_startproc
    stackmark_continuation_at 0x75
    .if {announced}
    push rdi                                    // S: [return address][pad]
    mov rbx, rdi
    stackmark_continuation_at 0x73
    mov rdi, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rdi, qword ptr fs:[rdi]
    mov rdi, qword ptr [rdi + {m_goroutine}]
    stackmark_announce goroutine
    mov rdi, rbx
    stackmark_continuation_at 0x75
    .endif
    mov rbp, qword ptr [rdi + {c_rbp}]
    mov rbx, qword ptr [rdi + {c_rbx}]
    mov r12, qword ptr [rdi + {c_r12}]
    mov r13, qword ptr [rdi + {c_r13}]
    mov r14, qword ptr [rdi + {c_r14}]
    mov r15, qword ptr [rdi + {c_r15}]
    mov rax, qword ptr [rdi + {c_rax}]
    mov rdx, qword ptr [rdi + {c_rdx}]
    mov rcx, qword ptr [rdi + {c_pc}]
    // On a native stack the Continuation is below this stack pointer: it may be overwritten.
    mov rsp, qword ptr [rdi + {c_sp}]           // on the goroutine stack from here
    stackmark_before_switch_in
    jmp rcx
    .cfi_endproc
    .size stackmark_continue, .-stackmark_continue
