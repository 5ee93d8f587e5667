// stackmark_callback(r0 = goroutine, r1 = f, r2 = argument) -> f(argument). Called by native code.
    .p2align 2
    .globl stackmark_callback
    .hidden stackmark_callback
    .type stackmark_callback,%function
stackmark_callback:
    .fnstart
    .cantunwind
    .cfi_startproc
    stackmark_push_saved                        // S: [pad][r4] ... [d15][r11][return address]
    stackmark_load_machine r4, r12, callback
    ldr r12, [r4, #{m_system_sp}]
    str r12, [sp, #-8]!                         // S: [old system_sp][pad][pad][r4] ...
    .cfi_def_cfa_offset 112
    str sp, [r4, #{m_system_sp}]                // calls out of the callback run below this frame
    mov r4, sp
    mov r5, r0
    ldr r12, [r0, #{g_sched_pc}]
    ldr r11, [r0, #{g_sched_fp}]                // the chain of frame pointers leads to the caller
    ldr r3, [r0, #{g_sched_sp}]
    stmdb r3!, {{r4, r5, r11, r12}}               // G: [sp of S][goroutine][sched.fp][sched.pc]
    ldr r6, [r0, #{g_callback_depth}]
    add r6, r6, #1
    str r6, [r0, #{g_callback_depth}]
    mov r12, r1
    mov r0, r2
    mov sp, r3                                  // on the goroutine stack from here
    stackmark_cfa_of_callback
    b callback_on_goroutine
    stackmark_machine_word callback
    .cfi_endproc
    .fnend
    .size stackmark_callback, .-stackmark_callback

// stackmark_leave_callback_by(r0 = f, r1 = argument, r2 = callback's part on G). Does what a return
// from that callback does, and calls f(argument) as if its native caller had. Younger frames are
// dropped.
    .globl stackmark_leave_callback_by
    .hidden stackmark_leave_callback_by
    .type stackmark_leave_callback_by,%function
stackmark_leave_callback_by:
    .fnstart
    .cantunwind
    .cfi_startproc
    mov sp, r2                                  // on the goroutine stack from here
    stackmark_cfa_of_callback
    stackmark_saved_at_cfa
    stackmark_leave_callback leave_callback_by
    stackmark_pop_saved
    mov r12, r0
    mov r0, r1
    bx r12
    stackmark_machine_word leave_callback_by
    .cfi_endproc
    .fnend
    .size stackmark_leave_callback_by, .-stackmark_leave_callback_by
