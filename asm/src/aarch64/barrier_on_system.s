// barrier_common, on S: x10 = address of the slot, x30 = stub + 4, x11 = kind of vectors,
// x15 = goroutine, x16 = machine. Ends __morestack.
//
//   S: +32  vectors                        G: +144  CFA, the stack pointer of the frame returned to
//      +24  index of the stub                 +136  the slot: stub + 4, later the return address
//      +16  the slot                            +0  x0 ... x15
//       +8  depth
//       +0  goroutine <- sp, 16-aligned
//
// Any register may carry a result, or may be one that the function's convention keeps; but no
// convention has x16 and x17 for that, or x18. Every convention keeps fpcr, and the hook does.

// Saves or restores the vectors of a processor without SVE.
    .macro stackmark_each_pair move
    \move q0, q1, [sp, #32]
    \move q2, q3, [sp, #64]
    \move q4, q5, [sp, #96]
    \move q6, q7, [sp, #128]
    \move q8, q9, [sp, #160]
    \move q10, q11, [sp, #192]
    \move q12, q13, [sp, #224]
    \move q14, q15, [sp, #256]
    \move q16, q17, [sp, #288]
    \move q18, q19, [sp, #320]
    \move q20, q21, [sp, #352]
    \move q22, q23, [sp, #384]
    \move q24, q25, [sp, #416]
    \move q26, q27, [sp, #448]
    \move q28, q29, [sp, #480]
    \move q30, q31, [sp, #512]
    .endm

// The same for one with SVE, whose first 16 bytes are those.
    .macro stackmark_each_scalable move
    .arch_extension sve
    add x12, sp, #32
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    \move z\r, [x12, #\r, mul vl]
    .endr
    rdvl x13, #1
    add x12, x12, x13, lsl #5
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    \move p\r, [x12, #\r, mul vl]
    .endr
    .arch_extension nosve
    .endm

    .cfi_startproc
    stackmark_cfa_by_depth 144
    .cfi_offset x30, -8
barrier_on_system:
    cbnz x11, 2f
    stackmark_each_pair stp
    b 3f
2:  stackmark_each_scalable str
3:  adrp x2, stackmark_barrier_pool
    add x2, x2, :lo12:stackmark_barrier_pool
    sub x2, x30, x2
    lsr x2, x2, #3
    .if {announced}
    stp x10, x2, [sp, #16]
    mov x0, x15
    stackmark_announce system
    stackmark_load_machine x16, x17
    ldp x10, x2, [sp, #16]
    .endif
    mov x0, x16
    mov x1, x10
    mov x3, x29
    ldr x9, [x16, #{m_on_hit}]
    blr x9
    .if {announced}
    ldr x0, [sp]
    stackmark_announce goroutine
    .endif
    adrp x11, stackmark_vector_kind
    ldr w11, [x11, :lo12:stackmark_vector_kind]
    cbnz x11, 2f
    stackmark_each_pair ldp
    b 3f
2:  stackmark_each_scalable ldr
3:  ldp x9, x10, [sp]
    ldr x11, [x9, #{g_stack_hi}]
    sub x11, x11, x10
    mov sp, x11                                 // on the goroutine stack from here
    .cfi_def_cfa sp, 144
    ldr x30, [sp, #136]                         // the slot: the saved return address
    ldp x14, x15, [sp, #112]
    ldp x12, x13, [sp, #96]
    ldp x10, x11, [sp, #80]
    ldp x8, x9, [sp, #64]
    ldp x6, x7, [sp, #48]
    ldp x4, x5, [sp, #32]
    ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp]
    add sp, sp, #144
    .cfi_def_cfa_offset 0
    .cfi_same_value x30
    ret
    .cfi_endproc
    .size __morestack, .-__morestack
