// The stubs.

    .p2align 12
    .globl stackmark_barrier_pool
    .hidden stackmark_barrier_pool
    .type barrier_pool,%function
barrier_pool:
stackmark_barrier_pool:
    .fnstart
    .cfi_startproc
    .cfi_def_cfa sp, 0
    // The return address lies at (lr + (table - pool)) & -8. A walk that a scan overtakes takes the
    // row of a stub, and then finds in the slot what the scan has put back: that is no pc of the
    // pool, but the return address itself. See "The barrier pool" in mod.rs.
    .cfi_escape 0x16, 14, 34                    // DW_CFA_val_expression, lr, its length
    .cfi_escape 0x7e, 0x00                      // DW_OP_breg14 0, read once
    .cfi_escape 0x12, 0x31, 0x1c                // DW_OP_dup, lit1, minus: as unwinders look it up
    .cfi_escape 0x0b, 0x00, 0xf0, 0x1a          // DW_OP_const2s -4096, and: [lr][page]
    .cfi_escape 0x12, 0x23, 0x04                // DW_OP_dup, plus_uconst 4
    .cfi_escape 0x94, 0x04                      // DW_OP_deref_size 4: the mark of a page
    .cfi_escape 0x0c, 0xf7, 0xb1, 0xf4, 0xe7    // DW_OP_const4u
    .cfi_escape 0x2e, 0x28, 0x0a, 0x00          // DW_OP_ne, bra 1f
    .cfi_escape 0x94, 0x04                      // DW_OP_deref_size 4: table - pool
    .cfi_escape 0x22                            // DW_OP_plus
    .cfi_escape 0x09, 0xf8, 0x1a, 0x06          // DW_OP_const1s -8, and, deref
    .cfi_escape 0x2f, 0x01, 0x00                // DW_OP_skip 2f
    .cfi_escape 0x13                            // 1: DW_OP_drop: lr; 2:
    .rept {pages}
    .word stackmark_barrier_table - barrier_pool
    .word 0xe7f4b1f7                            // no instruction
    .rept {stubs_per_page}
    nop
    bl barrier_common
    .endr
    .endr
    .cfi_endproc
    .personality stackmark_barrier_personality
    .handlerdata
    .fnend
    .size barrier_pool, .-barrier_pool
    .globl stackmark_barrier_pool_end
    .hidden stackmark_barrier_pool_end
stackmark_barrier_pool_end:
