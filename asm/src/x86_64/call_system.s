// stackmark_call_system(rdi = f, rsi = a, rdx = b) -> f(a, b). Called by managed code.
    .p2align 6
    .globl stackmark_call_system
    .hidden stackmark_call_system
    .type stackmark_call_system,@function
stackmark_call_system:
    .cfi_startproc
    stackmark_push_saved                        // G: [return address][rbp] ... [r15]
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rbx, qword ptr fs:[rax]                 // rbx = machine
    mov r12, qword ptr [rbx + {m_goroutine}]    // r12 = goroutine
    lea rax, [rip + stackmark_system_call_resume]
    mov qword ptr [r12 + {g_sched_pc}], rax
    mov qword ptr [r12 + {g_sched_sp}], rsp
    mov qword ptr [r12 + {g_sched_fp}], rbp
    mov rax, rdi                                // rax = f
    mov rdi, rsi
    mov rsi, rdx
    mov r14, qword ptr [r12 + {g_stack_hi}]     // r14 = stack_hi
    mov r13, rsp                                // r13 = this part on G while stack_hi is r14
    mov rcx, r14
    sub rcx, rsp                                // rcx = depth
    mov rdx, qword ptr [rbx + {m_system_sp}]
    lea r8, [rdx - 32]
    and r8, -16
    mov qword ptr [r8], r12                     // S: [machine][system_sp][depth][goroutine]
    mov qword ptr [r8 + 8], rcx
    mov qword ptr [r8 + 16], rdx
    mov qword ptr [r8 + 24], rbx
    mov rsp, r8                                 // on the system stack from here
    stackmark_cfa_by_depth 56
    jmp __morestack
    .cfi_endproc
    .size stackmark_call_system, .-stackmark_call_system
