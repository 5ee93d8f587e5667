// The stubs, and the words that name the personalities.

    .p2align 12
    .globl stackmark_barrier_pool
    .hidden stackmark_barrier_pool
    .type barrier_pool,@function
barrier_pool:
stackmark_barrier_pool:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_barrier_personality
    .cfi_def_cfa esp, 0
    // The return address lies at (pc + (table - pool)) & -8. A walk that a scan overtakes takes the
    // row of a stub, and then finds in the slot what the scan has put back: that is no pc of the
    // pool, and the slot itself holds it. See "The barrier pool" in mod.rs.
    .cfi_escape 0x10, 8, 36                     // DW_CFA_expression, eip, its length; [CFA]
    .cfi_escape 0x78, 0x00                      // DW_OP_breg8 0: pc, read once
    .cfi_escape 0x12, 0x31, 0x1c                // DW_OP_dup, lit1, minus: as unwinders look it up
    .cfi_escape 0x0b, 0x00, 0xf0, 0x1a          // DW_OP_const2s -4096, and: [CFA][pc][page]
    .cfi_escape 0x12, 0x23, 0x04                // DW_OP_dup, plus_uconst 4
    .cfi_escape 0x94, 0x04                      // DW_OP_deref_size 4: the mark of a page
    .cfi_escape 0x0c, 0x0f, 0x04, 0x0f, 0x0a    // DW_OP_const4u
    .cfi_escape 0x2e, 0x28, 0x09, 0x00          // DW_OP_ne, bra 1f
    .cfi_escape 0x94, 0x04                      // DW_OP_deref_size 4: table - pool
    .cfi_escape 0x22                            // DW_OP_plus
    .cfi_escape 0x09, 0xf8, 0x1a                // DW_OP_const1s -8, and
    .cfi_escape 0x2f, 0x04, 0x00                // DW_OP_skip 2f
    .cfi_escape 0x13, 0x13                      // 1: DW_OP_drop, drop
    .cfi_escape 0x34, 0x1c                      // DW_OP_lit4, minus: CFA - 4; 2:
    .rept {pages}
    .long stackmark_barrier_table - barrier_pool
    .byte 0x0f, 0x04, 0x0f, 0x0a                // no instructions
    .rept {stubs_per_page}
    nop
    call barrier_common
    .p2align 3, 0xcc
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
    .p2align 2
    .irp name, barrier, callback, entry, catch, enter, native
    .globl DW.ref.stackmark_\name\()_personality
    .hidden DW.ref.stackmark_\name\()_personality
    .type DW.ref.stackmark_\name\()_personality,@object
    .size DW.ref.stackmark_\name\()_personality, 4
DW.ref.stackmark_\name\()_personality:
    .long stackmark_\name\()_personality
    .endr
    .text
