// stackmark_catch(r0 = f, r1 = argument) -> the exception that has left f(argument), or null
    .p2align 2
    .globl stackmark_catch
    .hidden stackmark_catch
    .type stackmark_catch,%function
stackmark_catch:
    .fnstart
    .cfi_startproc
    push {{r11, lr}}                              // S: [r11][return address]
    .cfi_def_cfa_offset 8
    .cfi_offset r11, -8
    .cfi_offset lr, -4
    mov r12, r0
    mov r0, r1
    blx r12
    mov r0, #0
    .globl stackmark_catch_landing
    .hidden stackmark_catch_landing
stackmark_catch_landing:                        // r0 = exception
    pop {{r11, lr}}
    .cfi_def_cfa_offset 0
    .cfi_restore r11
    .cfi_restore lr
    bx lr
    .cfi_endproc
    .save {{r11, lr}}
    .personality stackmark_catch_personality
    .handlerdata
    .fnend
    .size stackmark_catch, .-stackmark_catch
