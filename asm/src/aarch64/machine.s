// The word that names the machine of an OS thread, and the function that sets it.

// Initial-exec: a read calls nothing and clobbers two registers.
    .section .tbss.stackmark_machine,"awT",@nobits
    .p2align 3
    .globl stackmark_machine
    .hidden stackmark_machine
    .type stackmark_machine,@object
    .size stackmark_machine, 8
stackmark_machine:
    .zero 8
    .text

// stackmark_set_current(x0 = machine header or null)
    .globl stackmark_set_current
    .hidden stackmark_set_current
    .type stackmark_set_current,@function
stackmark_set_current:
    .cfi_startproc
    bti c
    mrs x9, tpidr_el0
    adrp x10, :gottprel:stackmark_machine
    ldr x10, [x10, :gottprel_lo12:stackmark_machine]
    str x0, [x9, x10]
    ret
    .cfi_endproc
    .size stackmark_set_current, .-stackmark_set_current
