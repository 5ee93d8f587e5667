// The word that names the machine of an OS thread, and the function that sets it.

// Initial-exec: a read calls nothing and clobbers two registers.
    .section .tbss.stackmark_machine,"awT",%nobits
    .p2align 2
    .globl stackmark_machine
    .hidden stackmark_machine
    .type stackmark_machine,%object
    .size stackmark_machine, 4
stackmark_machine:
    .zero 4
    .text

// stackmark_set_current(r0 = machine header or null)
    .p2align 2
    .globl stackmark_set_current
    .hidden stackmark_set_current
    .type stackmark_set_current,%function
stackmark_set_current:
    .fnstart
    .cantunwind
    .cfi_startproc
    mrc p15, 0, r1, c13, c0, 3
    ldr r2, .Lmachine_word_set_current
.Lmachine_at_set_current:
    ldr r2, [pc, r2]
    str r0, [r1, r2]
    bx lr
    stackmark_machine_word set_current
    .cfi_endproc
    .fnend
    .size stackmark_set_current, .-stackmark_set_current
