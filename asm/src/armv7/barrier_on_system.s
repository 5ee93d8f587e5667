// barrier_common, on S: r3 = address of the slot, r12 = machine. Ends __morestack.
//
//   S: +80  d16 ... d31                    G: +24  CFA, the stack pointer of the frame returned to
//      +16  d0 ... d7                         +20  the slot: stub + 4, later the return address
//      +12  machine; whether d16 ... are kept  +0  r0 ... r3, r12
//       +8  the slot
//       +4  depth
//       +0  goroutine <- sp, 8-aligned
//
// Any register may carry a result, or may be one that the function's convention keeps, unless the
// machine's byte says otherwise. Every convention keeps d8 to d15 and fpscr, and the hook does.
    .fnstart
    .cfi_startproc
    stackmark_cfa_by_depth 24
    .cfi_offset lr, -4
barrier_on_system:
    stackmark_address r0, stackmark_vector_kind
    ldr r0, [r0]                                // 0 where there is no d16
    ldr r1, [r12, #{m_kept_vectors}]
    cmp r1, #0
    beq 2f
    ldrb r1, [r1]
    cmp r1, #{keeps_results}
    moveq r0, #0
2:  str r0, [sp, #12]
    add r2, sp, #16
    vstm r2!, {{d0-d7}}
    cmp r0, #0
    beq 3f
    .fpu neon
    vstm r2, {{d16-d31}}
    .fpu vfpv3-d16
3:  stackmark_address r0, stackmark_barrier_pool
    ldr r2, [r3]
    sub r2, r2, r0
    lsr r2, r2, #3                              // r2 = index of the stub
    mov r0, r12
    mov r1, r3
    mov r3, r11
    ldr r12, [r0, #{m_on_hit}]
    blx r12
    ldr r0, [sp, #12]
    add r2, sp, #16
    vldm r2!, {{d0-d7}}
    cmp r0, #0
    beq 3f
    .fpu neon
    vldm r2, {{d16-d31}}
    .fpu vfpv3-d16
3:  ldm sp, {{r1, r2}}
    ldr r3, [r1, #{g_stack_hi}]
    sub sp, r3, r2                              // on the goroutine stack from here
    .cfi_def_cfa sp, 24
    pop {{r0-r3, r12, lr}}                        // from the slot: the saved return address
    .cfi_def_cfa_offset 0
    .cfi_same_value lr
    bx lr
    .cfi_endproc
    .save {{lr}}
    .pad #20
    .personality stackmark_depth_personality
    .handlerdata
    .fnend
    .size __morestack, .-__morestack
