// Frames with all callee-saved registers. The assembly of the tests takes this file, too.

    .syntax unified
    .arm
    .cfi_sections .eh_frame, .debug_frame

// The return address and the callee-saved registers, as the stack pictures have them: lr at
// CFA - 4, r11 below it, then from r4 at CFA - 100 up to r10, and from d8 at CFA - 72 up to d15.
    .macro stackmark_saved_at_cfa
    .cfi_offset lr, -4
    .cfi_offset r11, -8
    .irp r, 4,5,6,7,8,9,10
    .cfi_offset r\r, 4 * (\r - 4) - 100
    .endr
    .irp r, 8,9,10,11,12,13,14,15
    .cfi_offset d\r, 8 * (\r - 8) - 72
    .endr
    .endm

// Pushes them, at the beginning of a function.
    .macro stackmark_push_saved
    push {{r11, lr}}                              // [r11][return address]
    .cfi_def_cfa_offset 8
    .cfi_offset lr, -4
    .cfi_offset r11, -8
    vpush {{d8-d15}}                              // [d8] ... [d15][r11] ...
    .cfi_def_cfa_offset 72
    .irp r, 8,9,10,11,12,13,14,15
    .cfi_offset d\r, 8 * (\r - 8) - 72
    .endr
    push {{r3-r10}}                               // [pad][r4] ... [r10][d8] ...
    .cfi_def_cfa_offset 104
    .irp r, 4,5,6,7,8,9,10
    .cfi_offset r\r, 4 * (\r - 4) - 100
    .endr
    .endm

// Pops them. Keeps r0 to r3.
    .macro stackmark_pop_saved
    add sp, sp, #4
    .cfi_def_cfa_offset 100
    pop {{r4-r10}}
    .cfi_def_cfa_offset 72
    .irp r, 4,5,6,7,8,9,10
    .cfi_same_value r\r
    .endr
    vpop {{d8-d15}}
    .cfi_def_cfa_offset 8
    .irp r, 8,9,10,11,12,13,14,15
    .cfi_same_value d\r
    .endr
    pop {{r11, lr}}
    .cfi_def_cfa_offset 0
    .cfi_same_value r11
    .cfi_same_value lr
    .endm

// Says to the system's unwinder what has been pushed, and \bytes below it.
    .macro stackmark_unwound_saved bytes
    .save {{r11, lr}}
    .vsave {{d8-d15}}
    .save {{r4-r10}}
    .pad #4 + \bytes
    .endm

// Says that the registers hold what the caller has in them.
    .macro stackmark_nothing_saved cfa_offset
    .cfi_def_cfa sp, \cfa_offset
    .irp r, 4,5,6,7,8,9,10,11
    .cfi_same_value r\r
    .endr
    .cfi_same_value lr
    .irp r, 8,9,10,11,12,13,14,15
    .cfi_same_value d\r
    .endr
    .endm
