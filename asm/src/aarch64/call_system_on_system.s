// __morestack begins: what runs after a switch of stacks. Its three FDEs are this file and the two
// that follow; they lie side by side under one symbol.
    .type __morestack,@function
__morestack:

// call_system, on S: x10 = f, x0 and x1 = its arguments, x20 = goroutine
    .cfi_startproc
    stackmark_cfa_by_depth 160
    stackmark_saved_at_cfa
    .if {announced}
    mov x23, x10
    mov x24, x0
    mov x25, x1
    mov x0, x20
    stackmark_announce system
    mov x10, x23
    mov x0, x24
    mov x1, x25
    .endif
    blr x10
    .globl stackmark_system_call_returned
    .hidden stackmark_system_call_returned
stackmark_system_call_returned:                 // the pc of this part while native code runs
    // Machine and goroutine come from this frame, not from registers: native code may have left
    // younger calls by longjmp.
    ldp x20, x11, [sp]
    ldp x12, x19, [sp, #16]
    str x12, [x19, #{m_system_sp}]
    .if {announced}
    mov x23, x0
    mov x0, x20
    stackmark_announce goroutine
    mov x0, x23
    ldr x11, [sp, #8]
    .endif
    ldr x9, [x20, #{g_stack_hi}]
    cmp x9, x22
    b.ne 2f
    mov sp, x21                                 // on the goroutine stack from here
    .cfi_remember_state
    .cfi_def_cfa sp, 160
3:  stackmark_pop_saved
    ret
    .cfi_restore_state
2:  sub x9, x9, x11                             // the stack has moved: from depth to address
    mov sp, x9                                  // on the goroutine stack from here
    .cfi_def_cfa sp, 160
    b 3b
    .globl stackmark_system_call_begin
    .hidden stackmark_system_call_begin
stackmark_system_call_begin:
    .cfi_def_cfa sp, 160
    stackmark_saved_at_cfa
    nop                                         // pc - 1 of a walk, after a call out
    stackmark_nothing_saved 0                   // run has put its own pc into x30
    .globl stackmark_system_call_resume
    .hidden stackmark_system_call_resume
stackmark_system_call_resume:                   // = g.sched.pc, x1 = goroutine, x0 = result
    bti j
    ldr x9, [x1, #{g_sched_sp}]
    mov sp, x9                                  // on the goroutine stack from here
    .cfi_def_cfa_offset 160
    stackmark_saved_at_cfa
    stackmark_pop_saved
    ret
    // No rule says that x19, x20 and x22 to x27 are lost: the caller keeps nothing in these
    // registers.
    .cfi_def_cfa sp, 32
    .cfi_offset x21, -32
    .cfi_offset x28, -24
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    nop                                         // pc - 1 of a walk, after switch_out
    .p2align 4
    stackmark_nothing_saved 0
stackmark_switch_out_resume:                    // = g.sched.pc, x1 = goroutine, x0 = result
    bti j
    ldr x9, [x1, #{g_sched_sp}]
    mov sp, x9                                  // on the goroutine stack from here
    .cfi_def_cfa_offset 32
    .cfi_offset x21, -32
    .cfi_offset x28, -24
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    ldp x29, x30, [sp, #16]
    ldp x21, x28, [sp]
    add sp, sp, #32
    stackmark_nothing_saved 0
    ret
    .globl stackmark_system_call_end
    .hidden stackmark_system_call_end
stackmark_system_call_end:
    .cfi_endproc
