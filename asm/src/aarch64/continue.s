// Going on in a managed frame whose callees are dropped.

// Says that a register of the caller lies at an offset from \base, in two bytes of LEB128.
    .macro stackmark_continued_at base, register, offset
    .cfi_escape 0x10, \register, 3, \base, 0x80 | (\offset) & 0x7f, (\offset) >> 7
    .endm

// Says that a Continuation lies at a register, by DW_OP_breg: 0x70 for x0, 0x83 for x19. The CFA is
// its sp; each register of the caller is in its word.
    .macro stackmark_continuation_at base
    .cfi_escape 0x0f, 3, \base, {c_sp}, 0x06
    .cfi_escape 0x10, 30, 2, \base, {c_pc}
    .cfi_escape 0x10, 29, 2, \base, {c_fp}
    .irp r, 0,1,2,3,4,5,6,7,8,9
    stackmark_continued_at \base, 19 + \r, {c_x19} + 8 * \r
    .endr
    .irp r, 0,1,2,3,4,5,6,7
    stackmark_continued_at \base, 72 + \r, {c_d8} + 8 * \r
    .endr
    .endm

// stackmark_continue(x0 = Continuation), on S
    .globl stackmark_continue
    .hidden stackmark_continue
    .type stackmark_continue,@function
stackmark_continue:
    .cfi_startproc
    stackmark_continuation_at 0x70
    bti c
    .if {announced}
    mov x19, x0
    stackmark_continuation_at 0x83
    stackmark_load_machine x0, x9
    ldr x0, [x0, #{m_goroutine}]
    stackmark_announce goroutine
    mov x0, x19
    stackmark_continuation_at 0x70
    .endif
    ldp x16, x9, [x0, #{c_pc}]
    ldr x29, [x0, #{c_fp}]
    ldp x19, x20, [x0, #{c_x19}]
    ldp x21, x22, [x0, #{c_x19} + 16]
    ldp x23, x24, [x0, #{c_x19} + 32]
    ldp x25, x26, [x0, #{c_x19} + 48]
    ldp x27, x28, [x0, #{c_x19} + 64]
    ldp d8, d9, [x0, #{c_d8}]
    ldp d10, d11, [x0, #{c_d8} + 16]
    ldp d12, d13, [x0, #{c_d8} + 32]
    ldp d14, d15, [x0, #{c_d8} + 48]
    ldp x0, x1, [x0, #{c_values}]
    stackmark_nothing_saved 0
    .cfi_def_cfa x9, 0
    .cfi_register x30, x16
    mov sp, x9                                  // on the goroutine stack from here
    ret x16                                     // a landing pad of managed code may have no BTI
    .cfi_endproc
    .size stackmark_continue, .-stackmark_continue
