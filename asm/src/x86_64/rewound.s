// ThreadSanitizer keeps a stack of the instrumented functions that have been entered and not left.
// Native code runs on the thread's own stack, so one such stack for each thread is right and fibers
// are not needed. But `leave` drops frames without leaving their functions. The sanitizer knows
// longjmp: there it takes its stack back to what it was at setjmp. So under it `run` and `callback`
// are called between a setjmp and a longjmp.

// stackmark_rewound(rdi = f, rsi, rdx, rcx = a, b, c) -> f(a, b, c)
//   S: +240 (pad)  +232 result  +224 c  +216 b  +208 a  +200 f  +0 jmp_buf <- rsp, 16-aligned
    .globl stackmark_rewound
    .hidden stackmark_rewound
    .type stackmark_rewound,@function
stackmark_rewound:
    .cfi_startproc
    sub rsp, 248
    .cfi_def_cfa_offset 256
    mov qword ptr [rsp + 200], rdi
    mov qword ptr [rsp + 208], rsi
    mov qword ptr [rsp + 216], rdx
    mov qword ptr [rsp + 224], rcx
    mov rdi, rsp
    call _setjmp@PLT
    test eax, eax
    jne 1f
    mov rdi, qword ptr [rsp + 208]
    mov rsi, qword ptr [rsp + 216]
    mov rdx, qword ptr [rsp + 224]
    call qword ptr [rsp + 200]
    mov qword ptr [rsp + 232], rax
    mov rdi, rsp
    mov esi, 1
    call longjmp@PLT                            // to the first return of setjmp
1:  mov rax, qword ptr [rsp + 232]
    add rsp, 248
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .size stackmark_rewound, .-stackmark_rewound
