// Going on in a managed frame whose callees are dropped.

// Says that a Continuation lies at r0. The CFA is its sp; each register of the caller is in its
// word. d8 has the number 264, in two bytes of LEB128.
    .macro stackmark_continuation_at_r0
    .cfi_escape 0x0f, 3, 0x70, {c_sp}, 0x06
    .cfi_escape 0x10, 14, 2, 0x70, {c_pc}
    .cfi_escape 0x10, 11, 2, 0x70, {c_fp}
    .irp r, 0,1,2,3,4,5,6
    .cfi_escape 0x10, 4 + \r, 2, 0x70, {c_r4} + 4 * \r
    .endr
    .irp r, 0,1,2,3,4,5,6,7
    .cfi_escape 0x10, 0x88 + \r, 0x02, 3, 0x70
    .cfi_escape 0x80 | ({c_d8} + 8 * \r) & 0x7f, ({c_d8} + 8 * \r) >> 7
    .endr
    .endm

// stackmark_continue(r0 = Continuation), on S
    .p2align 2
    .globl stackmark_continue
    .hidden stackmark_continue
    .type stackmark_continue,%function
stackmark_continue:
    .fnstart
    .cantunwind
    .cfi_startproc
    stackmark_continuation_at_r0
    add r12, r0, #{c_d8}
    vldm r12, {{d8-d15}}
    add r12, r0, #{c_r4}
    ldm r12, {{r4-r10}}
    ldr r11, [r0, #{c_fp}]
    ldr lr, [r0, #{c_pc}]
    ldr r12, [r0, #{c_sp}]
    ldr r1, [r0, #{c_values} + 4]
    ldr r0, [r0, #{c_values}]
    stackmark_nothing_saved 0
    .cfi_def_cfa r12, 0
    mov sp, r12                                 // on the goroutine stack from here
    .cfi_def_cfa sp, 0
    bx lr
    .cfi_endproc
    .fnend
    .size stackmark_continue, .-stackmark_continue
