// perf_nested(x0 = frames to come, x1 = whether with barriers, x2 = how long to be busy at the
// bottom). The stub of the same number hijacks its return slot. It has a frame pointer, as perf
// wants it.
    .type perf_nested,@function
perf_nested:
    .cfi_startproc
    stp x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    mov x29, sp
    .cfi_def_cfa_register x29
    cbz x1, 2f
    stp x0, x1, [sp, #-32]!
    str x2, [sp, #16]
    add x1, x29, #8
    bl {hijack}
    ldr x2, [sp, #16]
    ldp x0, x1, [sp], #32
2:  subs x0, x0, #1
    b.mi 3f
    bl perf_nested
    b 4f
3:  subs x2, x2, #1
    b.ne 3b
4:  mov sp, x29
    ldp x29, x30, [sp], #16
    .cfi_def_cfa sp, 0
    .cfi_restore x29
    .cfi_restore x30
    ret
    .cfi_endproc
    .size perf_nested, .-perf_nested

    .type perf_managed,@function
perf_managed:
    .cfi_startproc
    bti c
    stp x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    mov x29, sp
    .cfi_def_cfa_register x29
    mov x0, #{frames} - 1
    ldr x2, ={busy}
    bl perf_nested
    ldp x29, x30, [sp], #16
    .cfi_def_cfa sp, 0
    .cfi_restore x29
    .cfi_restore x30
    ret
    .ltorg
    .cfi_endproc
    .size perf_managed, .-perf_managed
