// stackmark_enter_managed(r0 = goroutine, r1 = f, r2 = argument) -> f(argument), on this stack.
// Called by native code. Where an exception passes, its personality does what a return does.
    .p2align 6
    .globl stackmark_enter_managed
    .hidden stackmark_enter_managed
    .type stackmark_enter_managed,%function
    .globl stackmark_enter_begin
    .hidden stackmark_enter_begin
stackmark_enter_begin:
stackmark_enter_managed:
    .fnstart
    .cfi_startproc
    stackmark_push_saved                        // [pad][r4] ... [d15][r11][return address]
    sub sp, sp, #24
    .cfi_def_cfa_offset 128
    mov r4, r0
    ldr r5, [r4, #{g_sched_pc}]
    ldr r6, [r4, #{g_sched_sp}]
    ldr r7, [r4, #{g_sched_fp}]
    ldr r8, [r4, #{g_entered}]
    // [goroutine][anchor pc][anchor sp][anchor fp][previous record][pad][pad][r4] ...
    stm sp, {{r4-r8}}
    mov r12, #0
    str r12, [r4, #{g_sched_sp}]                // no anchor while managed code runs
    str sp, [r4, #{g_entered}]
    mov r0, r2
    blx r1
    .globl stackmark_enter_returned
    .hidden stackmark_enter_returned
stackmark_enter_returned:
    ldm sp, {{r4-r8}}
    str r5, [r4, #{g_sched_pc}]
    str r7, [r4, #{g_sched_fp}]
    str r8, [r4, #{g_entered}]
    add sp, sp, #24
    .cfi_def_cfa_offset 104
    str r6, [r4, #{g_sched_sp}]                 // last: now there is an anchor
    stackmark_pop_saved
    bx lr
    .cfi_endproc
    stackmark_unwound_saved 24
    .personality stackmark_enter_personality
    .handlerdata
    .fnend
    .size stackmark_enter_managed, .-stackmark_enter_managed
    .globl stackmark_enter_end
    .hidden stackmark_enter_end
stackmark_enter_end:
