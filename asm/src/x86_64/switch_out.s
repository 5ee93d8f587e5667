// Leaving a goroutine for the scheduler: with a call from managed code, or for good from S.

// stackmark_switch_out(rdi = value) -> the value that the goroutine goes on with. Called by managed
// code; run returns the value. In a callback, whose native caller keeps its thread, the call
// returns the value itself. Keeps rsp, rbp and r15, and no other register.
    .p2align 6
    .globl stackmark_switch_out
    .hidden stackmark_switch_out
    .type stackmark_switch_out,@function
stackmark_switch_out:
    .cfi_startproc
    .cfi_undefined rbx
    .cfi_undefined r12
    .cfi_undefined r13
    .cfi_undefined r14
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rdx, qword ptr fs:[rax]                 // rdx = machine
    mov rsi, qword ptr [rdx + {m_goroutine}]    // rsi = goroutine
    mov rax, rdi
    cmp qword ptr [rsi + {g_callback_depth}], 0
    jne 2f
    push rbp                                    // G: [return address][rbp]
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    push r15                                    // G: ... [rbp][r15]
    .cfi_def_cfa_offset 24
    .cfi_offset r15, -24
    lea rcx, [rip + stackmark_switch_out_resume]
    mov qword ptr [rsi + {g_sched_pc}], rcx
    mov qword ptr [rsi + {g_sched_sp}], rsp
    mov qword ptr [rsi + {g_sched_fp}], rbp
    mov rcx, qword ptr [rdx + {m_run_pc}]
    mov rbp, qword ptr [rdx + {m_run_fp}]
    mov rbx, qword ptr [rdx + {m_run_saved}]
    mov rsp, qword ptr [rdx + {m_system_sp}]    // on the system stack from here
    .cfi_def_cfa rsp, 0
    .cfi_register rip, rcx
    .cfi_same_value rbp
    .cfi_same_value rbx
    .cfi_same_value r15
    mov qword ptr [rdx + {m_goroutine}], 0
    jmp rcx
    .cfi_def_cfa rsp, 8
    .cfi_offset rip, -8
    .cfi_undefined rbx
2:  ret
    .cfi_endproc
    .size stackmark_switch_out, .-stackmark_switch_out

// stackmark_leave(rdi = machine, rsi = value), on S, for a goroutine that no longer runs. The
// frames between here and run are dropped.
    .globl stackmark_leave
    .hidden stackmark_leave
    .type stackmark_leave,@function
stackmark_leave:
    .cfi_startproc
    mov rax, rsi
    mov rcx, qword ptr [rdi + {m_run_pc}]
    mov rdx, qword ptr [rdi + {m_run_fp}]
    mov rsi, qword ptr [rdi + {m_run_saved}]
    mov rsp, qword ptr [rdi + {m_system_sp}]    // the stack pointer of run
    .cfi_def_cfa rsp, 0
    .cfi_register rip, rcx
    .cfi_register rbp, rdx
    .cfi_register rbx, rsi
    mov qword ptr [rdi + {m_goroutine}], 0
    mov rbp, rdx
    mov rbx, rsi
    jmp rcx
    .cfi_endproc
    .size stackmark_leave, .-stackmark_leave
