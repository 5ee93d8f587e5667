// The stubs, and the words that name the personalities.

    .p2align 12
    .globl stackmark_barrier_pool
    .hidden stackmark_barrier_pool
    .type barrier_pool,@function
barrier_pool:
stackmark_barrier_pool:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_barrier_personality
    .cfi_def_cfa rsp, 0
    // The return address lies at (pc + (table - pool)) & -8: see "The barrier pool" in mod.rs.
    .cfi_escape 0x10, 16, 20                    // DW_CFA_expression, rip, its length
    .cfi_escape 0x80, 0x00                      // DW_OP_breg16 0: pc
    .cfi_escape 0x0b, 0x00, 0xf0, 0x1a          // DW_OP_const2s -4096, and: the page
    .cfi_escape 0x94, 0x04                      // DW_OP_deref_size 4: table - pool
    .cfi_escape 0x08, 0x20, 0x24                // DW_OP_const1u 32, shl
    .cfi_escape 0x08, 0x20, 0x26                // DW_OP_const1u 32, shra: sign-extended
    .cfi_escape 0x80, 0x00, 0x22                // DW_OP_breg16 0, plus
    .cfi_escape 0x09, 0xf8, 0x1a                // DW_OP_const1s -8, and
    .rept {pages}
    .long stackmark_barrier_table - barrier_pool
    .long 0
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
    .p2align 3
    .irp name, barrier, callback, entry, catch, enter, native
    .globl DW.ref.stackmark_\name\()_personality
    .hidden DW.ref.stackmark_\name\()_personality
    .type DW.ref.stackmark_\name\()_personality,@object
    .size DW.ref.stackmark_\name\()_personality, 8
DW.ref.stackmark_\name\()_personality:
    .quad stackmark_\name\()_personality
    .endr
    .text
