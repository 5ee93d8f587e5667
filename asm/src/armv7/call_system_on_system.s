// __morestack begins: what runs after a switch of stacks. Its FDEs are this file and the two that
// follow; they lie side by side under one symbol.
    .type __morestack,%function
__morestack:

// call_system, on S: r12 = f, r0 and r1 = its arguments
    .fnstart
    .cfi_startproc
    stackmark_cfa_by_depth 104
    stackmark_saved_at_cfa
system_call:
    blx r12
    .globl stackmark_system_call_returned
    .hidden stackmark_system_call_returned
stackmark_system_call_returned:                 // the pc of this part while native code runs
    // Machine and goroutine come from this frame, not from registers: native code may have left
    // younger calls by longjmp.
    ldm sp, {{r4-r7}}
    str r6, [r7, #{m_system_sp}]
    ldr r12, [r4, #{g_stack_hi}]
    sub sp, r12, r5                             // on the goroutine stack from here
    .cfi_def_cfa sp, 104
    stackmark_pop_saved
    bx lr
    stackmark_unwound_saved 0
    .personality stackmark_depth_personality
    .handlerdata
    .fnend

    .fnstart
    .cantunwind
    .globl stackmark_system_call_begin
    .hidden stackmark_system_call_begin
stackmark_system_call_begin:
    .cfi_def_cfa sp, 104
    stackmark_saved_at_cfa
    nop                                         // pc - 1 of a walk, after a call out
    stackmark_nothing_saved 0                   // run has put its own pc into lr
    .globl stackmark_system_call_resume
    .hidden stackmark_system_call_resume
stackmark_system_call_resume:                   // = g.sched.pc, r1 = goroutine, r0 = result
    ldr sp, [r1, #{g_sched_sp}]                 // on the goroutine stack from here
    .cfi_def_cfa_offset 104
    stackmark_saved_at_cfa
    stackmark_pop_saved
    bx lr
    // No rule says that other registers are lost: the caller keeps nothing in them.
    .cfi_def_cfa sp, 8
    .cfi_offset r11, -8
    .cfi_offset lr, -4
    nop                                         // pc - 1 of a walk, after switch_out
    .p2align 4
    stackmark_nothing_saved 0
stackmark_switch_out_resume:                    // = g.sched.pc, r1 = goroutine, r0 = result
    ldr sp, [r1, #{g_sched_sp}]                 // on the goroutine stack from here
    .cfi_def_cfa_offset 8
    .cfi_offset r11, -8
    .cfi_offset lr, -4
    pop {{r11, lr}}
    stackmark_nothing_saved 0
    bx lr
    .globl stackmark_system_call_end
    .hidden stackmark_system_call_end
stackmark_system_call_end:
    .cfi_endproc
    .fnend
