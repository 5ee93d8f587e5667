// ThreadSanitizer keeps a stack of the instrumented functions that have been entered and not left.
// Native code runs on the thread's own stack, so one such stack for each thread is right and fibers
// are not needed. But `leave` drops frames without leaving their functions. The sanitizer knows
// longjmp: there it takes its stack back to what it was at setjmp. So under it `run` and `callback`
// are called between a setjmp and a longjmp.

// stackmark_rewound(x0 = f, x1, x2, x3 = a, b, c) -> f(a, b, c)
//   S: +376 x30  +368 x29  +360 (pad)  +352 result  +344 c  +336 b  +328 a  +320 f
//      +0 jmp_buf <- sp, 16-aligned
    .globl stackmark_rewound
    .hidden stackmark_rewound
    .type stackmark_rewound,@function
stackmark_rewound:
    .cfi_startproc
    bti c
    sub sp, sp, #384
    .cfi_def_cfa_offset 384
    stp x29, x30, [sp, #368]
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    stp x0, x1, [sp, #320]
    stp x2, x3, [sp, #336]
    mov x0, sp
    bl _setjmp
    bti j                                       // longjmp comes by a jump
    cbnz w0, 1f
    ldp x9, x0, [sp, #320]
    ldp x1, x2, [sp, #336]
    blr x9
    str x0, [sp, #352]
    mov x0, sp
    mov w1, #1
    bl longjmp                                  // to the first return of setjmp
1:  ldr x0, [sp, #352]
    ldp x29, x30, [sp, #368]
    add sp, sp, #384
    .cfi_def_cfa_offset 0
    .cfi_restore x29
    .cfi_restore x30
    ret
    .cfi_endproc
    .size stackmark_rewound, .-stackmark_rewound
