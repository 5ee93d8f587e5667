// Every stub calls barrier_common. The frame that was left is gone, and its return slot with it, so
// barrier_common makes a slot of its own: the word below the stack pointer of the frame returned
// to. It holds stub + 4, as the frame's own did: the pool's CFI finds the saved return address by
// it.
    .p2align 2
    .type barrier_common,%function
barrier_common:                                 // lr = stub + 8
    .fnstart
    .cantunwind
    .cfi_startproc
    .cfi_escape 0x16, 14, 2, 0x7e, 0x7c         // DW_CFA_val_expression, lr: DW_OP_breg14 - 4
    sub lr, lr, #4                              // stub + 4
    .cfi_same_value lr
    push {{r0-r3, r12, lr}}                       // G: [r0] ... [r3][r12][slot = stub + 4]
    .cfi_def_cfa_offset 24
    .cfi_offset lr, -4
    stackmark_load_machine r12, r3, barrier     // r12 = machine
    ldr r1, [r12, #{m_goroutine}]               // r1 = goroutine
    add r3, sp, #20                             // r3 = the slot
    ldr r2, [r1, #{g_stack_hi}]
    sub r2, r2, sp                              // r2 = depth
    ldr r0, [r12, #{m_system_sp}]
    ldr lr, [r1, #{g_entered}]
    cmp lr, #0
    movne r0, sp                                // a native stack is its own system stack
    sub r0, r0, #208
    bic r0, r0, #7
    // Before the first store there: on a native stack it is below the stack pointer, where signal
    // handlers run.
    .cfi_def_cfa r3, 4
    mov sp, r0                                  // on the system stack from here
    stm sp, {{r1, r2, r3, r12}}                   // S: [goroutine][depth][slot][machine][vectors]
    stackmark_cfa_by_depth 24
    b barrier_on_system
    stackmark_machine_word barrier
    .cfi_endproc
    .fnend
    .size barrier_common, .-barrier_common
