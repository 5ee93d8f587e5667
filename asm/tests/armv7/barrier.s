// hijack(r0 = f, r1 = argument, r2 = word for the return slot, r3 = where to save the old word)
// -> f(argument)
    .p2align 2
    .type hijack,%function
hijack:
    .fnstart
    .cfi_startproc
    str lr, [r3]
    mov lr, r2
    push {{r11, lr}}
    .cfi_def_cfa_offset 8
    .cfi_offset r11, -8
    .cfi_offset lr, -4
    mov r12, r0
    mov r0, r1
    blx r12
    pop {{r11, lr}}
    .cfi_def_cfa_offset 0
    .cfi_restore r11
    .cfi_restore lr
    bx lr
    .cfi_endproc
    .save {{r11, lr}}
    .fnend
    .size hijack, .-hijack

// fill_and_check(r0 = patterns in, r1 = patterns out, r2 = hijacked word, r3 = where to save the
// return address, kind of vectors and another word on the stack). A part of it fills every register
// and returns through its hijacked slot; then all are stored. Offsets of the patterns: general
// registers from 0, d0 to d31 from 128, 8 bytes each.
    .type fill_and_check,%function
fill_and_check:
    .fnstart
    .cfi_startproc
    stackmark_push_saved
    ldr r4, [sp, #104]                          // r4 = kind
    push {{r1, r4}}
    .cfi_def_cfa_offset 112
    bl 7f
    ldr lr, [sp]
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12
    str r\r, [lr, #8 * \r]
    .endr
    add lr, lr, #128
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vstr d\r, [lr, #8 * \r]
    .endr
    ldr r0, [sp, #4]
    cmp r0, #0
    beq 3f
    .fpu neon
    .irp r, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vstr d\r, [lr, #8 * \r]
    .endr
    .fpu vfpv3-d16
3:  add sp, sp, #8
    .cfi_def_cfa_offset 104
    stackmark_pop_saved
    bx lr
    .cfi_def_cfa_offset 112
7:  str lr, [r3]                                // the part that returns through a stub
    mov lr, r2
    add r12, r0, #128
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vldr d\r, [r12, #8 * \r]
    .endr
    cmp r4, #0
    beq 3f
    .fpu neon
    .irp r, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vldr d\r, [r12, #8 * \r]
    .endr
    .fpu vfpv3-d16
3:  mov r12, r0
    .irp r, 0,1,2,3,4,5,6,7,8,9,10,11
    ldr r\r, [r12, #8 * \r]
    .endr
    ldr r12, [r12, #96]
    bx lr
    .cfi_endproc
    stackmark_unwound_saved 8
    .fnend
    .size fill_and_check, .-fill_and_check

// spoil(r0 = kind of vectors): changes what a native function may change.
    .type spoil,%function
spoil:
    .fnstart
    .cantunwind
    .cfi_startproc
    cmp r0, #0
    mvn r1, #0
    .irp r, 0,1,2,3,4,5,6,7
    vmov d\r, r1, r1
    .endr
    beq 2f
    .fpu neon
    .irp r, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmov d\r, r1, r1
    .endr
    .fpu vfpv3-d16
2:  .irp r, 0,2,3,12
    mov r\r, r1
    .endr
    bx lr
    .cfi_endproc
    .fnend
    .size spoil, .-spoil
