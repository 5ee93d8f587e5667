// stackmark_enter_managed(x0 = goroutine, x1 = f, x2 = argument) -> f(argument), on this stack.
// Called by native code.

// The end of enter_managed, after a return and when an exception passes. Afterwards the anchor is
// the one from before, and sp is at the saved registers. Keeps x0 to x8.
    .macro stackmark_leave_managed
    ldp x9, x10, [sp]                           // goroutine, pc
    ldp x11, x12, [sp, #16]                     // sp, fp
    ldr x13, [sp, #32]
    str x10, [x9, #{g_sched_pc}]
    str x12, [x9, #{g_sched_fp}]
    str x13, [x9, #{g_entered}]
    add sp, sp, #48
    .cfi_def_cfa_offset 160
    str x11, [x9, #{g_sched_sp}]                // last: now there is an anchor
    .endm

    .p2align 6
    .globl stackmark_enter_managed
    .hidden stackmark_enter_managed
    .type stackmark_enter_managed,@function
    .globl stackmark_enter_begin
    .hidden stackmark_enter_begin
stackmark_enter_begin:
stackmark_enter_managed:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_enter_personality
    bti c
    stackmark_push_saved                        // [x19] ... [d15][x29][return address]
    sub sp, sp, #48
    .cfi_def_cfa_offset 208
    ldp x9, x10, [x0, #{g_sched_pc}]
    ldr x11, [x0, #{g_sched_fp}]
    ldr x12, [x0, #{g_entered}]
    stp x0, x9, [sp]                            // [goroutine][anchor pc]
    stp x10, x11, [sp, #16]                     // [anchor sp][anchor fp]
    str x12, [sp, #32]                          // [previous record][pad][x19] ...
    str xzr, [x0, #{g_sched_sp}]                // no anchor while managed code runs
    mov x9, sp
    str x9, [x0, #{g_entered}]
    mov x9, x1
    mov x0, x2
    blr x9
    .globl stackmark_enter_returned
    .hidden stackmark_enter_returned
stackmark_enter_returned:
    stackmark_leave_managed
    stackmark_pop_saved
    ret

// The landing pad of enter_managed: x0 = exception. Does what a return does, and goes on unwinding
// as if the native caller had called _Unwind_Resume itself.
    .cfi_def_cfa_offset 208
    stackmark_saved_at_cfa
    nop                                         // pc - 1 of the unwinder's last instructions
    .globl stackmark_enter_landing
    .hidden stackmark_enter_landing
stackmark_enter_landing:
    bti j
    stackmark_leave_managed
    stackmark_pop_saved
    stackmark_resume_unwinding
    .cfi_endproc
    .size stackmark_enter_managed, .-stackmark_enter_managed
    .globl stackmark_enter_end
    .hidden stackmark_enter_end
stackmark_enter_end:
