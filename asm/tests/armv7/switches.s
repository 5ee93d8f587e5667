// Managed code without addresses of its own stack: a copy of the bytes moves its stack.

// Below the saved registers four words of the function's own.
    .macro keep_registers
    stackmark_push_saved
    sub sp, sp, #16
    .cfi_def_cfa_offset 120
    .endm
    .macro drop_registers
    add sp, sp, #16
    .cfi_def_cfa_offset 104
    stackmark_pop_saved
    .endm

// Keeps a value in every callee-saved register across a call out to \native.
    .macro managed name, native, bias
    .p2align 2
    .globl \name
    .type \name,%function
\name:
    .fnstart
    .cfi_startproc
    keep_registers
    .irp r, 4,5,6,7,8,9,10,11
    add r\r, r0, #\r - 3 + \bias
    .endr
    .irp r, 8,9,10,11,12,13,14,15
    add r12, r0, #\r + 1 + \bias
    vmov d\r, r12, r12
    .endr
    mov r1, r0
    mov r2, r0
    movw r0, #:lower16:(\native - (.Lnative_of_\name + 8))
    movt r0, #:upper16:(\native - (.Lnative_of_\name + 8))
.Lnative_of_\name:
    add r0, pc, r0
    bl stackmark_call_system
    .irp r, 4,5,6,7,8,9,10,11
    add r0, r0, r\r
    .endr
    .irp r, 8,9,10,11,12,13,14,15
    vmov r12, r3, d\r
    cmp r12, r3
    beq 2f
    udf #1                                      // both words are kept
2:  add r0, r0, r12
    .endr
    drop_registers
    bx lr
    .cfi_endproc
    stackmark_unwound_saved 16
    .fnend
    .size \name, .-\name
    .endm

// managed_entry(r0 = goroutine, r1 = argument)
    .p2align 2
    .type managed_entry,%function
managed_entry:
    .fnstart
    .cfi_startproc
    push {{r11, lr}}
    .cfi_def_cfa_offset 8
    .cfi_offset r11, -8
    .cfi_offset lr, -4
    mov r0, r1
    bl managed_old
    pop {{r11, lr}}
    .cfi_def_cfa_offset 0
    .cfi_restore r11
    .cfi_restore lr
    bx lr
    .cfi_endproc
    .save {{r11, lr}}
    .fnend

// managed_switcher(r0 = goroutine, r1 = n): switches out with n ... 1. Returns the sum of what it
// goes on with, of the kept register, and of a word that it has spilled.
    .type managed_switcher,%function
managed_switcher:
    .fnstart
    .cfi_startproc
    keep_registers
    mov r2, #0
    stm sp, {{r1, r2}}
1:  ldr r0, [sp]
    add r11, r0, #100
    add r12, r0, #200
    str r12, [sp, #8]
    bl stackmark_switch_out
    ldm sp, {{r1, r2, r3}}
    add r2, r2, r0
    add r2, r2, r11
    add r2, r2, r3
    subs r1, r1, #1
    stm sp, {{r1, r2}}
    bne 1b
    mov r0, r2
    drop_registers
    bx lr
    .cfi_endproc
    stackmark_unwound_saved 16
    .fnend

// The same from a callback: managed_switcher_back(r0 = n)
    .type managed_switcher_back,%function
managed_switcher_back:
    .fnstart
    .cantunwind
    mov r1, r0
    b managed_switcher
    .fnend

// managed_old(r0 = argument), and managed_young(r0 = argument) from a callback
    managed managed_old, native_old, 10
    managed managed_young, native_young, 20
