// perf_nested(r0 = frames to come, r1 = whether with barriers, r2 = how long to be busy at the
// bottom). The stub of the same number hijacks its return slot. It has a frame pointer, as perf
// wants it.
    .p2align 2
    .type perf_nested,%function
perf_nested:
    .fnstart
    .cfi_startproc
    push {{r11, lr}}
    .cfi_def_cfa_offset 8
    .cfi_offset r11, -8
    .cfi_offset lr, -4
    mov r11, sp
    .cfi_def_cfa_register r11
    cmp r1, #0
    beq 2f
    push {{r0-r3}}
    add r1, r11, #4
    bl {hijack}
    pop {{r0-r3}}
2:  subs r0, r0, #1
    bmi 3f
    bl perf_nested
    b 4f
3:  subs r2, r2, #1
    bne 3b
4:  mov sp, r11
    pop {{r11, lr}}
    .cfi_def_cfa sp, 0
    .cfi_restore r11
    .cfi_restore lr
    bx lr
    .cfi_endproc
    .save {{r11, lr}}
    .fnend
    .size perf_nested, .-perf_nested

    .type perf_managed,%function
perf_managed:
    .fnstart
    .cfi_startproc
    push {{r11, lr}}
    .cfi_def_cfa_offset 8
    .cfi_offset r11, -8
    .cfi_offset lr, -4
    mov r11, sp
    .cfi_def_cfa_register r11
    mov r0, #{frames} - 1
    movw r2, #{busy} & 0xffff
    movt r2, #{busy} >> 16
    bl perf_nested
    pop {{r11, lr}}
    .cfi_def_cfa sp, 0
    .cfi_restore r11
    .cfi_restore lr
    bx lr
    .cfi_endproc
    .save {{r11, lr}}
    .fnend
    .size perf_managed, .-perf_managed
