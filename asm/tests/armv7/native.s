// managed_kept_by_\name(r0 = native function, r1 = n): calls it by stackmark_\name with the
// addresses of what the anchor is to be, and keeps a value in every callee-saved general register
// meanwhile. Returns the sum of the result and the registers. The frame's CFA is by r11.
    .macro managed_kept_by name
    .p2align 2
    .type managed_kept_by_\name,%function
managed_kept_by_\name:
    .fnstart
    .cfi_startproc
    push {{r11, lr}}
    .cfi_def_cfa_offset 8
    .cfi_offset r11, -8
    .cfi_offset lr, -4
    mov r11, sp
    .cfi_def_cfa_register r11
    push {{r4-r10}}
    .irp r, 4,5,6,7,8,9,10
    .cfi_offset r\r, 4 * (\r - 4) - 36
    .endr
    sub sp, sp, #20
    .irp r, 4,5,6,7,8,9,10
    add r\r, r1, #\r - 3
    .endr
    adr r12, 1f
    mov r3, sp
    str r12, [sp]                               // the anchor: pc, sp, fp
    str r3, [sp, #4]
    str r11, [sp, #8]
    mov r2, r1
    mov r1, sp
    bl stackmark_\name
1:  .irp r, 4,5,6,7,8,9,10
    add r0, r0, r\r
    .endr
    sub sp, r11, #28
    pop {{r4-r10}}
    pop {{r11, lr}}
    .cfi_def_cfa sp, 0
    .irp r, 4,5,6,7,8,9,10,11
    .cfi_restore r\r
    .endr
    .cfi_restore lr
    bx lr
    .cfi_endproc
    .save {{r11, lr}}
    .save {{r4-r10}}
    .pad #20
    .fnend
    .size managed_kept_by_\name, .-managed_kept_by_\name
    .endm

    managed_kept_by call_native
    managed_kept_by call_native_all

// managed_results(r0 = native function, r1 = patterns): calls it by stackmark_call_native and
// stores what may carry results: r0 to r3, d0 to d7.
    .type managed_results,%function
managed_results:
    .fnstart
    .cfi_startproc
    push {{r4, r5, r11, lr}}
    .cfi_def_cfa_offset 16
    .cfi_offset r4, -16
    .cfi_offset r5, -12
    .cfi_offset r11, -8
    .cfi_offset lr, -4
    mov r4, r1
    bl stackmark_call_native
    stm r4!, {{r0-r3}}
    vstm r4, {{d0-d7}}
    pop {{r4, r5, r11, lr}}
    .cfi_def_cfa_offset 0
    .irp r, r4, r5, r11, lr
    .cfi_restore \r
    .endr
    bx lr
    .cfi_endproc
    .save {{r4, r5, r11, lr}}
    .fnend
    .size managed_results, .-managed_results

// native_results(r0 = patterns): loads the same.
    .type native_results,%function
native_results:
    .fnstart
    .cantunwind
    .cfi_startproc
    add r12, r0, #16
    vldm r12, {{d0-d7}}
    ldm r0, {{r0-r3}}
    bx lr
    .cfi_endproc
    .fnend
    .size native_results, .-native_results
