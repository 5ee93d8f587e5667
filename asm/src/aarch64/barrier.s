// Every stub calls barrier_common. The frame that was left is gone, and its return slot with it, so
// barrier_common makes a slot of its own: the word below the stack pointer of the frame returned
// to. It holds stub + 4, as the frame's own did: the pool's CFI finds the saved return address by
// it.
//
// A stub is its own landing pad, too. The unwinder's last instructions have the pad for their
// caller and look up pc - 1 there. The pool's CFI needs sp and x30, in which the unwinder has put
// the word that the slot held, or the pad itself. The exception comes in the machine.
    .type barrier_common,@function
barrier_common:                                 // x30 = stub + 8
    .cfi_startproc
    .cfi_escape 0x16, 30, 2, 0x8e, 0x7c         // DW_CFA_val_expression, x30: DW_OP_breg30 - 4
    sub x30, x30, #4                            // stub + 4
    .cfi_same_value x30
    stackmark_load_machine x16, x17             // x16 = machine
    ldr x17, [x16, #{m_passing}]
    cbnz x17, 2f
    sub sp, sp, #144
    .cfi_def_cfa_offset 144
    stp x0, x1, [sp]
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    str x30, [sp, #136]                         // G: [x0] ... [x15][pad][slot = stub + 4]
    .cfi_offset x30, -8
    ldr x15, [x16, #{m_goroutine}]              // x15 = goroutine
    add x10, sp, #136                           // x10 = the slot
    mov x14, sp
    ldr x13, [x15, #{g_stack_hi}]
    sub x13, x13, x14                           // x13 = depth
    ldr x9, [x16, #{m_system_sp}]
    ldr x12, [x15, #{g_entered}]
    cmp x12, #0
    csel x9, x9, x14, eq                        // a native stack is its own system stack
    adrp x11, stackmark_vector_kind
    ldr w11, [x11, :lo12:stackmark_vector_kind] // x11 = kind
    mov x12, #544
    cbz x11, 3f
    .arch_extension sve
    rdvl x12, #17
    .arch_extension nosve
    lsl x12, x12, #1                            // 32 vectors, 16 predicates of an eighth
    add x12, x12, #32
3:  sub x9, x9, x12
    and x9, x9, #-16
    // Before the first store there: on a native stack it is below the stack pointer, where signal
    // handlers run.
    .cfi_def_cfa x10, 8
    mov sp, x9                                  // on the system stack from here
    stp x15, x13, [sp]                          // S: [goroutine][depth][slot][stub][vectors]
    stackmark_cfa_by_depth 144
    b barrier_on_system

// x17 = an exception, x16 = machine. The exception's registers are free; those that the frame
// returned to keeps are as it has left them. Goes on as if that frame had called
// stackmark_call_system itself, or stackmark_call_native.
    .cfi_def_cfa sp, 0
    .cfi_same_value x30
2:  str xzr, [x16, #{m_passing}]
    mov x1, x17
    adrp x2, stackmark_barrier_pool
    add x2, x2, :lo12:stackmark_barrier_pool
    sub x2, x30, x2
    lsr x2, x2, #3                              // x2 = index of the stub
    adrp x3, stackmark_barrier_table
    add x3, x3, :lo12:stackmark_barrier_table
    ldr x30, [x3, x2, lsl #3]                   // x30 = the saved return address
    adrp x0, stackmark_barrier_resume
    add x0, x0, :lo12:stackmark_barrier_resume
    ldr x16, [x16, #{m_goroutine}]
    ldr x16, [x16, #{g_entered}]
    cbnz x16, 4f
    b stackmark_call_system
4:  b stackmark_call_native
    .cfi_endproc
    .size barrier_common, .-barrier_common
