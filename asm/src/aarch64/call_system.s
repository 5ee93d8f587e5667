// stackmark_call_system(x0 = f, x1 = a, x2 = b) -> f(a, b). Called by managed code.
    .p2align 6
    .globl stackmark_call_system
    .hidden stackmark_call_system
    .type stackmark_call_system,@function
stackmark_call_system:
    .cfi_startproc
    bti c
    stackmark_push_saved                        // G: [x19] ... [d15][x29][return address]
    stackmark_load_machine x19, x9              // x19 = machine
    ldr x20, [x19, #{m_goroutine}]              // x20 = goroutine
    adr x9, stackmark_system_call_resume
    mov x21, sp                                 // x21 = this part on G while stack_hi is x22
    stp x9, x21, [x20, #{g_sched_pc}]
    str x29, [x20, #{g_sched_fp}]
    mov x10, x0                                 // x10 = f
    mov x0, x1
    mov x1, x2
    ldr x22, [x20, #{g_stack_hi}]               // x22 = stack_hi
    sub x11, x22, x21                           // x11 = depth
    ldr x12, [x19, #{m_system_sp}]
    sub x13, x12, #32
    and x13, x13, #-16
    stp x20, x11, [x13]                         // S: [goroutine][depth][system_sp][machine]
    stp x12, x19, [x13, #16]
    mov sp, x13                                 // on the system stack from here
    stackmark_cfa_by_depth 160
    b __morestack
    .cfi_endproc
    .size stackmark_call_system, .-stackmark_call_system
