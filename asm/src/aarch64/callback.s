// stackmark_callback(x0 = goroutine, x1 = f, x2 = argument) -> f(argument). Called by native code.
    .globl stackmark_callback
    .hidden stackmark_callback
    .type stackmark_callback,@function
stackmark_callback:
    .cfi_startproc
    bti c
    stackmark_push_saved                        // S: [x19] ... [d15][x29][return address]
    stackmark_load_machine x19, x9
    ldr x9, [x19, #{m_system_sp}]
    str x9, [sp, #-16]!                         // S: [old system_sp][pad][x19] ...
    .cfi_def_cfa_offset 176
    mov x9, sp
    str x9, [x19, #{m_system_sp}]               // calls out of the callback run below this frame
    .if {announced}
    mov x20, x0
    mov x21, x1
    mov x22, x2
    stackmark_announce goroutine
    mov x0, x20
    mov x1, x21
    mov x2, x22
    mov x9, sp
    .endif
    ldp x12, x11, [x0, #{g_sched_pc}]           // x12 = sched.pc, x11 = sched.sp
    ldr x29, [x0, #{g_sched_fp}]                // the chain of frame pointers leads to the caller
    stp x29, x12, [x11, #-16]!
    stp x9, x0, [x11, #-16]!                    // G: [sp of S][goroutine][sched.fp][sched.pc]
    ldr x9, [x0, #{g_callback_depth}]
    add x9, x9, #1
    str x9, [x0, #{g_callback_depth}]
    mov x10, x1
    mov x0, x2
    mov sp, x11                                 // on the goroutine stack from here
    stackmark_cfa_of_callback
    b callback_on_goroutine
    .cfi_endproc
    .size stackmark_callback, .-stackmark_callback

// stackmark_leave_callback_by(x0 = f, x1 = argument, x2 = callback's part on G). Does what a return
// from that callback does, and calls f(argument) as if its native caller had. Younger frames are
// dropped.
    .globl stackmark_leave_callback_by
    .hidden stackmark_leave_callback_by
    .type stackmark_leave_callback_by,@function
stackmark_leave_callback_by:
    .cfi_startproc
    bti c
    mov sp, x2                                  // on the goroutine stack from here
    stackmark_cfa_of_callback
    stackmark_saved_at_cfa
    stackmark_leave_callback
    stackmark_pop_saved
    mov x16, x0
    mov x0, x1
    br x16                                      // by x16: to the BTI of a function
    .cfi_endproc
    .size stackmark_leave_callback_by, .-stackmark_leave_callback_by
