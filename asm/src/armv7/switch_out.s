// Leaving a goroutine for the scheduler: with a call from managed code, or for good from S.

// stackmark_switch_out(r0 = value) -> the value that the goroutine goes on with. Called by managed
// code; run returns the value. In a callback, whose native caller keeps its thread, the call
// returns the value itself. Keeps sp and r11, and no other register.
    .p2align 6
    .globl stackmark_switch_out
    .hidden stackmark_switch_out
    .type stackmark_switch_out,%function
stackmark_switch_out:
    .fnstart
    .cantunwind
    .cfi_startproc
    .irp r, 4,5,6,7,8,9,10
    .cfi_undefined r\r
    .endr
    .irp r, 8,9,10,11,12,13,14,15
    .cfi_undefined d\r
    .endr
    stackmark_load_machine r2, r12, switch_out  // r2 = machine
    ldr r1, [r2, #{m_goroutine}]                // r1 = goroutine
    ldr r3, [r1, #{g_callback_depth}]
    cmp r3, #0
    bxne lr
    push {{r11, lr}}                              // G: [r11][return address]
    .cfi_def_cfa_offset 8
    .cfi_offset r11, -8
    .cfi_offset lr, -4
    stackmark_address r12, stackmark_switch_out_resume
    str r12, [r1, #{g_sched_pc}]
    str sp, [r1, #{g_sched_sp}]
    str r11, [r1, #{g_sched_fp}]
    ldr lr, [r2, #{m_run_pc}]
    ldr r11, [r2, #{m_run_fp}]
    ldr r6, [r2, #{m_run_saved}]
    ldr sp, [r2, #{m_system_sp}]                // on the system stack from here
    .cfi_def_cfa sp, 0
    .irp r, r6, r11, lr
    .cfi_same_value \r
    .endr
    mov r3, #0
    str r3, [r2, #{m_goroutine}]
    bx lr
    stackmark_machine_word switch_out
    .cfi_endproc
    .fnend
    .size stackmark_switch_out, .-stackmark_switch_out

// stackmark_leave(r0 = machine, r1 = value), on S, for a goroutine that no longer runs. The
// frames between here and run are dropped.
    .globl stackmark_leave
    .hidden stackmark_leave
    .type stackmark_leave,%function
stackmark_leave:
    .fnstart
    .cantunwind
    .cfi_startproc
    ldr r3, [r0, #{m_run_pc}]
    ldr r2, [r0, #{m_run_fp}]
    ldr r12, [r0, #{m_run_saved}]
    ldr sp, [r0, #{m_system_sp}]                // the stack pointer of run
    .cfi_register lr, r3
    .cfi_register r11, r2
    .cfi_register r6, r12
    mov lr, #0
    str lr, [r0, #{m_goroutine}]
    mov r0, r1
    mov r11, r2
    mov r6, r12
    bx r3
    .cfi_endproc
    .fnend
    .size stackmark_leave, .-stackmark_leave
