// The stubs, and the words that name the personalities.

    .p2align 12
    .globl stackmark_barrier_pool
    .hidden stackmark_barrier_pool
    .type barrier_pool,@function
barrier_pool:
stackmark_barrier_pool:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_barrier_personality
    .cfi_def_cfa sp, 0
    // The return address lies at (x30 + (table - pool)) & -8. A walk that a scan overtakes takes
    // the row of a stub, and then finds in the slot what the scan has put back: that is no pc of
    // the pool, but the return address itself. See "The barrier pool" in mod.rs.
    .cfi_escape 0x16, 30, 44                    // DW_CFA_val_expression, x30, its length
    .cfi_escape 0x8e, 0x00                      // DW_OP_breg30 0, read once
    .cfi_escape 0x40, 0x24, 0x40, 0x25          // DW_OP_lit16, shl, lit16, shr: no signature
    .cfi_escape 0x12, 0x31, 0x1c                // DW_OP_dup, lit1, minus: as unwinders look it up
    .cfi_escape 0x0b, 0x00, 0xf0, 0x1a          // DW_OP_const2s -4096, and: [x30][page]
    .cfi_escape 0x12, 0x23, 0x04                // DW_OP_dup, plus_uconst 4
    .cfi_escape 0x94, 0x04                      // DW_OP_deref_size 4: the mark of a page
    .cfi_escape 0x0c, 0x4b, 0x77, 0xb4, 0x61    // DW_OP_const4u
    .cfi_escape 0x2e, 0x28, 0x10, 0x00          // DW_OP_ne, bra 1f
    .cfi_escape 0x94, 0x04                      // DW_OP_deref_size 4: table - pool
    .cfi_escape 0x08, 0x20, 0x24                // DW_OP_const1u 32, shl
    .cfi_escape 0x08, 0x20, 0x26                // DW_OP_const1u 32, shra: sign-extended
    .cfi_escape 0x22                            // DW_OP_plus
    .cfi_escape 0x09, 0xf8, 0x1a, 0x06          // DW_OP_const1s -8, and, deref
    .cfi_escape 0x2f, 0x01, 0x00                // DW_OP_skip 2f
    .cfi_escape 0x13                            // 1: DW_OP_drop: x30; 2:
    .rept {pages}
    .word stackmark_barrier_table - barrier_pool
    .word 0x61b4774b                            // no instruction
    .rept {stubs_per_page}
    bti j                                       // a nop for processors without
    bl barrier_common
    .endr
    .endr
    .cfi_endproc
    .size barrier_pool, .-barrier_pool
    .globl stackmark_barrier_pool_end
    .hidden stackmark_barrier_pool_end
stackmark_barrier_pool_end:

// Personalities are named through words, so that the image stays position independent. The words
// are global: GNU ld takes two CIEs for the same when their personalities are local symbols of one
// section.
    .section .data.rel.ro.stackmark_personalities,"aw",@progbits
    .p2align 3
    .irp name, barrier, callback, entry, catch, enter, native
    .globl DW.ref.stackmark_\name\()_personality
    .hidden DW.ref.stackmark_\name\()_personality
    .type DW.ref.stackmark_\name\()_personality,@object
    .size DW.ref.stackmark_\name\()_personality, 8
DW.ref.stackmark_\name\()_personality:
    .xword stackmark_\name\()_personality
    .endr
    .text
