// Leaving a goroutine for the scheduler: with a call from managed code, or for good from S.

// stackmark_switch_out(x0 = value) -> the value that the goroutine goes on with. Called by managed
// code; run returns the value. In a callback, whose native caller keeps its thread, the call
// returns the value itself. Keeps sp, x21, x28 and x29, and no other register.
    .p2align 6
    .globl stackmark_switch_out
    .hidden stackmark_switch_out
    .type stackmark_switch_out,@function
stackmark_switch_out:
    .cfi_startproc
    .irp r, 19,20,22,23,24,25,26,27
    .cfi_undefined x\r
    .endr
    bti c
    stackmark_load_machine x2, x9               // x2 = machine
    ldr x1, [x2, #{m_goroutine}]                // x1 = goroutine
    ldr x9, [x1, #{g_callback_depth}]
    cbnz x9, 2f
    sub sp, sp, #32
    .cfi_def_cfa_offset 32
    stp x21, x28, [sp]
    stp x29, x30, [sp, #16]                     // G: [x21][x28][x29][return address]
    .cfi_offset x21, -32
    .cfi_offset x28, -24
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    adr x9, stackmark_switch_out_resume
    mov x10, sp
    stp x9, x10, [x1, #{g_sched_pc}]
    str x29, [x1, #{g_sched_fp}]
    ldr x30, [x2, #{m_run_pc}]
    ldr x29, [x2, #{m_run_fp}]
    ldr x19, [x2, #{m_run_saved}]
    ldr x9, [x2, #{m_system_sp}]
    mov sp, x9                                  // on the system stack from here
    .cfi_def_cfa sp, 0
    .irp r, 19,21,28,29,30
    .cfi_same_value x\r
    .endr
    str xzr, [x2, #{m_goroutine}]
    br x30
    .cfi_undefined x19
2:  ret
    .cfi_endproc
    .size stackmark_switch_out, .-stackmark_switch_out

// stackmark_leave(x0 = machine, x1 = value), on S, for a goroutine that no longer runs. The
// frames between here and run are dropped.
    .globl stackmark_leave
    .hidden stackmark_leave
    .type stackmark_leave,@function
stackmark_leave:
    .cfi_startproc
    bti c
    ldr x9, [x0, #{m_run_pc}]
    ldr x10, [x0, #{m_run_fp}]
    ldr x11, [x0, #{m_run_saved}]
    ldr x12, [x0, #{m_system_sp}]
    mov sp, x12                                 // the stack pointer of run
    .cfi_register x30, x9
    .cfi_register x29, x10
    .cfi_register x19, x11
    str xzr, [x0, #{m_goroutine}]
    mov x0, x1
    mov x29, x10
    mov x19, x11
    br x9
    .cfi_endproc
    .size stackmark_leave, .-stackmark_leave
