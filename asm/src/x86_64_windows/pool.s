// The stubs, and where unwinders find what is to be known of each.

    .p2align 12
    stackmark_label stackmark_barrier_pool
    .rept {pages}
    .quad 0                                     // no stub; the table has words for it
    .rept {stubs_per_page}
    nop
    call barrier_common
    .p2align 3, 0xcc
    .endr
    .endr
    stackmark_label stackmark_barrier_pool_end

// Each stub is a function of its own, with unwind information that can be written (records.rs).
    .section .pdata,"dr"
    .set stub, 0
    .rept {pages}
    .set stub, stub + 1
    .rept {stubs_per_page}
    .rva stackmark_barrier_pool + 8 * stub
    .rva stackmark_barrier_pool + 8 * stub + 8
    .rva stackmark_barrier_unwind + {unwind_bytes} * stub
    .set stub, stub + 1
    .endr
    .endr
    .text
