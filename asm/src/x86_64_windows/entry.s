// The oldest frame: it returns to 0. A new goroutine begins at stackmark_goroutine_entry, with
// r12 = goroutine and rsp 16-aligned.
    stackmark_label stackmark_entry_begin
    stackmark_part goroutine_entry
    .seh_handler stackmark_entry_handler, @unwind, @except
    .seh_stackalloc 40
    .seh_endprologue
    nop                                         // pc - 1 of a walk over a new goroutine
    stackmark_label stackmark_goroutine_entry
    mov rcx, r12
    mov rdx, qword ptr [r12 + {g_start_arg}]
    mov qword ptr [r12 + {g_start_arg}], 0
    call qword ptr [r12 + {g_entry}]
    mov rcx, qword ptr [r12 + {g_on_exit}]
    mov rdx, r12
    mov r8, rax
    call stackmark_call_system
    ud2                                         // on_exit leaves to the scheduler

// The landing pad of goroutine_entry: rax = exception
    stackmark_label stackmark_entry_landing
    mov rdx, rax
    stackmark_load_machine rcx, ax
    mov r8, qword ptr [rcx + {m_goroutine}]
    mov rcx, qword ptr [r8 + {g_on_uncaught}]
    call stackmark_call_system
    ud2                                         // on_uncaught does not return
    stackmark_label stackmark_entry_end
    stackmark_end_part
