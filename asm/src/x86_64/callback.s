// stackmark_callback(rdi = goroutine, rsi = f, rdx = argument) -> f(argument). Called by native
// code.
    .globl stackmark_callback
    .hidden stackmark_callback
    .type stackmark_callback,@function
stackmark_callback:
    .cfi_startproc
    stackmark_push_saved                        // S: [return address][rbp] ... [r15]
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rbx, qword ptr fs:[rax]
    push qword ptr [rbx + {m_system_sp}]        // S: ... [r15][old system_sp]
    .cfi_def_cfa_offset 64
    mov qword ptr [rbx + {m_system_sp}], rsp    // calls out of the callback run below this frame
    .if {announced}
    mov r12, rdi
    mov r13, rsi
    mov r14, rdx
    stackmark_announce goroutine
    mov rdi, r12
    mov rsi, r13
    mov rdx, r14
    .endif
    mov rcx, qword ptr [rdi + {g_sched_sp}]
    mov rax, qword ptr [rdi + {g_sched_pc}]
    mov rbp, qword ptr [rdi + {g_sched_fp}]     // the chain of frame pointers leads to the caller
    mov qword ptr [rcx - 8], rax                // G: [sched.pc][pad][pad][goroutine][rsp of S]
    mov qword ptr [rcx - 32], rdi
    mov qword ptr [rcx - 40], rsp
    inc qword ptr [rdi + {g_callback_depth}]
    mov rdi, rdx
    lea rsp, [rcx - 40]                         // on the goroutine stack from here
    stackmark_cfa_of_callback
    jmp callback_on_goroutine
    .cfi_endproc
    .size stackmark_callback, .-stackmark_callback

// stackmark_leave_callback_by(rdi = f, rsi = argument, rdx = callback's part on G). Does what a
// return from that callback does, and calls f(argument) as if its native caller had. Younger frames
// are dropped.
    .globl stackmark_leave_callback_by
    .hidden stackmark_leave_callback_by
    .type stackmark_leave_callback_by,@function
stackmark_leave_callback_by:
    .cfi_startproc
    mov rax, rdi
    mov rsp, rdx                                // on the goroutine stack from here
    stackmark_cfa_of_callback
    stackmark_saved_at_cfa
    stackmark_leave_callback
    stackmark_pop_saved
    mov rdi, rsi
    jmp rax
    .cfi_endproc
    .size stackmark_leave_callback_by, .-stackmark_leave_callback_by
