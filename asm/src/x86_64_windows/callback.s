// stackmark_callback(rcx = goroutine, rdx = f, r8 = argument) -> f(argument). Called by native
// code.
    stackmark_function stackmark_callback
    stackmark_save 184, 16                      // S: [return address][rbp] ... [r15][vectors]
    stackmark_load_machine rbx, ax
    mov rax, qword ptr [rbx + {m_system_sp}]
    mov qword ptr [rsp], rax                    // S: ... [old handlers][old system_sp]
    mov rax, qword ptr [rbx + {m_system} + 8]
    mov qword ptr [rsp + 8], rax
    mov rax, qword ptr gs:[0x0]
    mov qword ptr [rbx + {m_system} + 8], rax
    stackmark_keep_limit rbx, rax
    mov qword ptr [rbx + {m_system_sp}], rsp    // calls out of the callback run below this frame
    mov r9, qword ptr [rcx + {g_sched_sp}]
    mov rax, qword ptr [rcx + {g_sched_pc}]
    mov rbp, qword ptr [rcx + {g_sched_fp}]     // the chain of frame pointers leads to the caller
    mov qword ptr [r9 - 8], rax                 // G: [sched.pc][pad][record of S][shadow space]
    lea rax, [rip + stackmark_callback_left]
    mov qword ptr [r9 - 48], rax
    mov qword ptr [r9 - 32], rcx
    mov qword ptr [r9 - 24], rsp
    inc qword ptr [rcx + {g_callback_depth}]
    stackmark_stack_is_goroutines rcx, rax
    mov rcx, r8
    lea rsp, [r9 - 80]                          // on the goroutine stack from here
    stackmark_end_part
    stackmark_label stackmark_callback_begin
    stackmark_part callback_on_goroutine
    .seh_pushframe
    .seh_stackalloc 32
    .seh_handler stackmark_callback_handler, @unwind, @except
    .seh_endprologue
    call rdx
    stackmark_leave_callback callback_returns
    stackmark_label stackmark_callback_left     // the pc of the part on S in its record
    stackmark_restore 184, 16
    ret
    stackmark_end_part

// The landing pad of callback, on G: rax = exception. Does what a return does, and throws it again
// as if the native caller had.
    stackmark_part callback_throws
    .seh_pushframe
    .seh_stackalloc 32
    .seh_endprologue
    nop                                         // pc - 1 of a walk from the next instruction
    stackmark_label stackmark_callback_landing
    stackmark_leave_callback callback_throws_on
    mov rcx, rax
    stackmark_restore 184, 16
    stackmark_end_part
    stackmark_part callback_thrown
    .seh_endprologue
    jmp stackmark_throw
    stackmark_end_part
    stackmark_label stackmark_callback_end

// stackmark_leave_callback_by(rcx = f, rdx = argument, r8 = callback's part on G). Does what a
// return from that callback does, and calls f(argument) as if its native caller had. Younger frames
// are dropped.
    stackmark_function stackmark_leave_callback_by
    .seh_endprologue
    mov rax, rcx
    mov r9, rdx
    mov rsp, r8                                 // on the goroutine stack from here
    stackmark_end_part
    stackmark_part leave_callback_by_on_goroutine
    .seh_pushframe
    .seh_stackalloc 32
    .seh_endprologue
    mov r10, rax
    stackmark_leave_callback leave_callback_by_on_system
    mov rcx, r9
    stackmark_restore 184, 16
    stackmark_end_part
    stackmark_part leave_callback_by_left
    .seh_endprologue
    jmp r10
    stackmark_end_part
