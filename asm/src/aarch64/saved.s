// Frames with all callee-saved registers. The assembly of the tests takes this file, too.

// The return address and the callee-saved registers, as the stack pictures have them: x30 at
// CFA - 8, x29 below it, then from x19 at CFA - 160 up to d15 at CFA - 24.
    .macro stackmark_saved_at_cfa
    .cfi_offset x30, -8
    .cfi_offset x29, -16
    .irp r, 19,20,21,22,23,24,25,26,27,28
    .cfi_offset x\r, 8 * (\r - 19) - 160
    .endr
    .irp r, 8,9,10,11,12,13,14,15
    .cfi_offset d\r, 8 * (\r - 8) - 80
    .endr
    .endm

// Pushes them, at the beginning of a function. Until one of them changes, the registers themselves
// hold what the caller has in them, so one place says for all where they are.
    .macro stackmark_push_saved
    sub sp, sp, #160
    .cfi_def_cfa_offset 160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp d8, d9, [sp, #80]
    stp d10, d11, [sp, #96]
    stp d12, d13, [sp, #112]
    stp d14, d15, [sp, #128]
    stp x29, x30, [sp, #144]
    stackmark_saved_at_cfa
    .endm

// Pops them. The memory holds them until the stack pointer leaves it.
    .macro stackmark_pop_saved
    ldp x29, x30, [sp, #144]
    ldp d14, d15, [sp, #128]
    ldp d12, d13, [sp, #112]
    ldp d10, d11, [sp, #96]
    ldp d8, d9, [sp, #80]
    ldp x27, x28, [sp, #64]
    ldp x25, x26, [sp, #48]
    ldp x23, x24, [sp, #32]
    ldp x21, x22, [sp, #16]
    ldp x19, x20, [sp]
    add sp, sp, #160
    stackmark_nothing_saved 0
    .endm

// Says that the registers hold what the caller has in them.
    .macro stackmark_nothing_saved cfa_offset
    .cfi_def_cfa sp, \cfa_offset
    .irp r, 19,20,21,22,23,24,25,26,27,28,29,30
    .cfi_same_value x\r
    .endr
    .irp r, 8,9,10,11,12,13,14,15
    .cfi_same_value d\r
    .endr
    .endm
