// Leaving a goroutine for the scheduler: with a call from managed code, or for good from S.

// stackmark_switch_out(rcx = value) -> the value that the goroutine goes on with. Called by managed
// code; run returns the value. In a callback, whose native caller keeps its thread, the call
// returns the value itself.
    .p2align 6
    stackmark_function stackmark_switch_out
    stackmark_save 168, 0                       // G: as call_system
    mov rdx, rcx
    stackmark_load_machine rcx, ax              // rcx = machine
    mov r12, qword ptr [rcx + {m_goroutine}]    // r12 = goroutine
    mov rax, rdx
    cmp qword ptr [r12 + {g_callback_depth}], 0
    je 2f
    stackmark_restore 168, 0
    ret
2:  lea rdx, [rip + stackmark_system_call_resume]
    mov qword ptr [r12 + {g_sched_pc}], rdx
    mov qword ptr [r12 + {g_sched_sp}], rsp
    mov qword ptr [r12 + {g_sched_fp}], rbp
    mov rbp, qword ptr [rcx + {m_run_fp}]
    mov rbx, qword ptr [rcx + {m_run_saved}]
    stackmark_stack_is_systems rcx, rdx
    mov rsp, qword ptr [rcx + {m_system_sp}]    // on the system stack from here
    stackmark_end_part
    stackmark_part switch_out_on_system
    stackmark_at_run
    mov qword ptr [rcx + {m_goroutine}], 0
    jmp qword ptr [rcx + {m_system}]
    stackmark_end_part

// stackmark_leave(rcx = machine, rdx = value), on S, for a goroutine that no longer runs. The
// frames between here and run are dropped.
    stackmark_function stackmark_leave
    .seh_endprologue
    mov rax, rdx
    mov rdx, qword ptr [rcx + {m_system} + 8]
    mov qword ptr gs:[0x0], rdx                 // handlers of the frames that are dropped
    mov rsp, qword ptr [rcx + {m_system_sp}]    // the stack pointer of run
    stackmark_end_part
    stackmark_part leave_to_run
    stackmark_at_run
    mov qword ptr [rcx + {m_goroutine}], 0
    mov rbp, qword ptr [rcx + {m_run_fp}]
    mov rbx, qword ptr [rcx + {m_run_saved}]
    jmp qword ptr [rcx + {m_system}]
    stackmark_end_part
