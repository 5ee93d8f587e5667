// managed_kept_by_\name(x0 = native function, x1 = n): calls it by stackmark_\name with the
// addresses of what the anchor is to be, and keeps a value in every callee-saved integer register
// meanwhile. Returns the sum of the result and the registers. The frame's CFA is by x29.
    .macro managed_kept_by name
    .type managed_kept_by_\name,@function
managed_kept_by_\name:
    .cfi_startproc
    bti c
    stp x29, x30, [sp, #-112]!
    .cfi_def_cfa_offset 112
    .cfi_offset x29, -112
    .cfi_offset x30, -104
    mov x29, sp
    .cfi_def_cfa_register x29
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    .irp r, 19,20,21,22,23,24,25,26,27,28
    .cfi_offset x\r, 8 * (\r - 19) - 96
    .endr
    sub sp, sp, #32
    .irp r, 19,20,21,22,23,24,25,26,27,28
    add x\r, x1, #\r - 18
    .endr
    adr x9, 1f
    mov x10, sp
    stp x9, x10, [sp]                           // the anchor: pc, sp, fp
    str x29, [sp, #16]
    mov x2, x1
    mov x1, sp
    bl stackmark_\name
1:  .irp r, 19,20,21,22,23,24,25,26,27,28
    add x0, x0, x\r
    .endr
    mov sp, x29
    ldp x27, x28, [sp, #80]
    ldp x25, x26, [sp, #64]
    ldp x23, x24, [sp, #48]
    ldp x21, x22, [sp, #32]
    ldp x19, x20, [sp, #16]
    ldp x29, x30, [sp], #112
    .cfi_def_cfa sp, 0
    .irp r, 19,20,21,22,23,24,25,26,27,28,29,30
    .cfi_restore x\r
    .endr
    ret
    .cfi_endproc
    .size managed_kept_by_\name, .-managed_kept_by_\name
    .endm

    managed_kept_by call_native
    managed_kept_by call_native_all

// managed_results(x0 = native function, x1 = patterns): calls it by stackmark_call_native and
// stores what may carry results: x0, x1, q0 to q3.
    .type managed_results,@function
managed_results:
    .cfi_startproc
    bti c
    stp x29, x30, [sp, #-32]!
    .cfi_def_cfa_offset 32
    .cfi_offset x29, -32
    .cfi_offset x30, -24
    str x19, [sp, #16]
    .cfi_offset x19, -16
    mov x19, x1
    bl stackmark_call_native
    stp x0, x1, [x19]
    stp q0, q1, [x19, #16]
    stp q2, q3, [x19, #48]
    ldr x19, [sp, #16]
    ldp x29, x30, [sp], #32
    .cfi_def_cfa_offset 0
    .cfi_restore x19
    .cfi_restore x29
    .cfi_restore x30
    ret
    .cfi_endproc
    .size managed_results, .-managed_results

// native_results(x0 = patterns): loads the same.
    .type native_results,@function
native_results:
    .cfi_startproc
    bti c
    ldp q0, q1, [x0, #16]
    ldp q2, q3, [x0, #48]
    ldp x0, x1, [x0]
    ret
    .cfi_endproc
    .size native_results, .-native_results
