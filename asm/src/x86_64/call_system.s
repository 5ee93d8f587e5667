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
    .cfi_def_cfa_register r13
    mov rsp, qword ptr [rbx + {m_system_sp}]    // on the system stack from here, 16-aligned
    push rcx                                    // S: [depth]
    push r12                                    // S: [depth][goroutine]
    stackmark_cfa_by_depth 56
    .cfi_endproc                                // goes on at __morestack, which comes next
    .size stackmark_call_system, .-stackmark_call_system
