// Managed code without addresses of its own stack: a copy of the bytes moves its stack.

// Below the saved registers two words of the function's own.
    .macro keep_registers
    stackmark_push_saved
    sub sp, sp, #16
    .cfi_def_cfa_offset 176
    .endm
    .macro drop_registers
    add sp, sp, #16
    .cfi_def_cfa_offset 160
    stackmark_pop_saved
    .endm

// Keeps a value in every callee-saved register across a call out to \native.
    .macro managed name, native, bias
    .globl \name
    .type \name,@function
\name:
    .cfi_startproc
    bti c
    keep_registers
    .irp r, 19,20,21,22,23,24,25,26,27,28,29
    add x\r, x0, #\r - 18 + \bias
    .endr
    .irp r, 8,9,10,11,12,13,14,15
    add x9, x0, #\r + 4 + \bias
    fmov d\r, x9
    .endr
    mov x1, x0
    mov x2, x0
    adrp x0, \native
    add x0, x0, :lo12:\native
    bl stackmark_call_system
    .irp r, 19,20,21,22,23,24,25,26,27,28,29
    add x0, x0, x\r
    .endr
    .irp r, 8,9,10,11,12,13,14,15
    fmov x9, d\r
    add x0, x0, x9
    .endr
    drop_registers
    ret
    .cfi_endproc
    .size \name, .-\name
    .endm

// managed_entry(x0 = goroutine, x1 = argument)
    .type managed_entry,@function
managed_entry:
    .cfi_startproc
    bti c
    stp x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    mov x0, x1
    bl managed_old
    ldp x29, x30, [sp], #16
    .cfi_def_cfa_offset 0
    .cfi_restore x29
    .cfi_restore x30
    ret
    .cfi_endproc

// managed_switcher(x0 = goroutine, x1 = n): switches out with n ... 1. Returns the sum of what it
// goes on with and of two kept registers.
    .type managed_switcher,@function
managed_switcher:
    .cfi_startproc
    bti c
    keep_registers
    stp x1, xzr, [sp]
1:  ldr x0, [sp]
    add x29, x0, #100
    add x21, x0, #200
    add x28, x0, #300
    bl stackmark_switch_out
    ldp x9, x10, [sp]
    add x11, x9, #300
    cmp x11, x28
    b.eq 2f
    brk #1                                      // x28 is kept as well
2:  add x10, x10, x0
    add x10, x10, x29
    add x10, x10, x21
    sub x9, x9, #1
    stp x9, x10, [sp]
    cbnz x9, 1b
    mov x0, x10
    drop_registers
    ret
    .cfi_endproc

// The same from a callback: managed_switcher_back(x0 = n)
    .type managed_switcher_back,@function
managed_switcher_back:
    bti c
    mov x1, x0
    b managed_switcher

// managed_old(x0 = argument), and managed_young(x0 = argument) from a callback
    managed managed_old, native_old, 10
    managed managed_young, native_young, 20
