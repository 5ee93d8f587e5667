// Calls x0(x1) from a frame record.
    .macro call_from_record
    stp x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    mov x9, x0
    mov x0, x1
    blr x9
    ldp x29, x30, [sp], #16
    .cfi_def_cfa_offset 0
    .cfi_restore x29
    .cfi_restore x30
    .endm

// hijack(x0 = f, x1 = argument, x2 = word for the return slot, x3 = where to save the old word)
// -> f(argument)
    .type hijack,@function
hijack:
    .cfi_startproc
    str x30, [x3]
    mov x30, x2
    call_from_record
    ret
    .cfi_endproc
    .size hijack, .-hijack

// vector_bytes(x0 = kind of vectors) -> bytes of one
    .type vector_bytes,@function
vector_bytes:
    .cfi_startproc
    cbnz x0, 2f
    mov x0, #16
    ret
2:  .arch_extension sve
    rdvl x0, #1
    .arch_extension nosve
    ret
    .cfi_endproc
    .size vector_bytes, .-vector_bytes

// fill_and_check(x0 = patterns in, x1 = patterns out, x2 = hijacked word, x3 = where to save the
// return address, x4 = kind of vectors). A part of it fills every register and returns through its
// hijacked slot; then all are stored. Offsets of the patterns: integer registers from 0, vectors
// from 256, 256 bytes each, predicates behind them, 32 bytes each.
    .type fill_and_check,@function
fill_and_check:
    .cfi_startproc
    stackmark_push_saved
    stp x1, x4, [sp, #-16]!
    .cfi_def_cfa_offset 176
    bl 7f
    ldp x16, x17, [sp], #16
    .cfi_def_cfa_offset 160
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,19,20,21,22,23,24,25,26,27,28,29
    str x\r, [x16, #8 * \r]
    .endr
    add x16, x16, #256
    cbnz x17, 2f
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    str q\r, [x16, #256 * \r]
    .endr
    b 3f
2:  .arch_extension sve
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    str z\r, [x16]
    add x16, x16, #256
    .endr
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    str p\r, [x16]
    add x16, x16, #32
    .endr
    .arch_extension nosve
3:  stackmark_pop_saved
    ret
7:  str x30, [x3]                               // the part that returns through a stub
    mov x30, x2
    add x17, x0, #256
    mov x16, x0
    cbnz x4, 2f
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ldr q\r, [x17, #256 * \r]
    .endr
    b 3f
2:  .arch_extension sve
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ldr z\r, [x17]
    add x17, x17, #256
    .endr
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    ldr p\r, [x17]
    add x17, x17, #32
    .endr
    .arch_extension nosve
3:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,19,20,21,22,23,24,25,26,27,28,29
    ldr x\r, [x16, #8 * \r]
    .endr
    ret
    .cfi_endproc
    .size fill_and_check, .-fill_and_check

// spoil(x0 = kind of vectors): changes what a native function may change. A write to a vector
// clears what lies above its 16 bytes.
    .type spoil,@function
spoil:
    .cfi_startproc
    cbz x0, 2f
    .arch_extension sve
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    pfalse p\r\().b
    .endr
    .arch_extension nosve
2:  .irp r, 0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fmov d\r, xzr
    .endr
    .irp r, 8,9,10,11,12,13,14,15
    fmov v\r\().d[1], xzr
    .endr
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17
    mov x\r, #-1
    .endr
    ret
    .cfi_endproc
    .size spoil, .-spoil

// hijack_signed is hijack in a function that signs its return address: the word in its slot is
// signed as the old one was, for this frame.
    .type hijack_signed,@function
hijack_signed:
    .cfi_startproc
    hint #25                                    // paciasp
    .cfi_negate_ra_state
    hint #7                                     // xpaclri
    str x30, [x3]
    mov x30, x2
    hint #25
    call_from_record
    hint #29                                    // autiasp
    .cfi_negate_ra_state
    ret
    .cfi_endproc
    .size hijack_signed, .-hijack_signed
