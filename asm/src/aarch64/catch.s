// stackmark_catch(x0 = f, x1 = argument) -> the exception that has left f(argument), or null
    .globl stackmark_catch
    .hidden stackmark_catch
    .type stackmark_catch,@function
stackmark_catch:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_catch_personality
    bti c
    stp x29, x30, [sp, #-16]!                   // S: [x29][return address]
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    mov x9, x0
    mov x0, x1
    blr x9
    mov x0, #0
    .globl stackmark_catch_landing
    .hidden stackmark_catch_landing
stackmark_catch_landing:                        // x0 = exception
    bti j
    ldp x29, x30, [sp], #16
    .cfi_def_cfa_offset 0
    .cfi_restore x29
    .cfi_restore x30
    ret
    .cfi_endproc
    .size stackmark_catch, .-stackmark_catch
