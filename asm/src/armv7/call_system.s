// stackmark_call_system(r0 = f, r1 = a, r2 = b) -> f(a, b). Called by managed code.
    .p2align 6
    .globl stackmark_call_system
    .hidden stackmark_call_system
    .type stackmark_call_system,%function
stackmark_call_system:
    .fnstart
    .cantunwind
    .cfi_startproc
    stackmark_push_saved                        // G: [pad][r4] ... [d15][r11][return address]
    stackmark_load_machine r7, r12, call_system // r7 = machine
    ldr r4, [r7, #{m_goroutine}]                // r4 = goroutine
    stackmark_address r12, stackmark_system_call_resume
    str r12, [r4, #{g_sched_pc}]
    str sp, [r4, #{g_sched_sp}]
    str r11, [r4, #{g_sched_fp}]
    mov r12, r0                                 // r12 = f
    mov r0, r1
    mov r1, r2
    ldr r5, [r4, #{g_stack_hi}]
    sub r5, r5, sp                              // r5 = depth
    ldr r6, [r7, #{m_system_sp}]                // r6 = system_sp
    sub r3, r6, #16
    bic r3, r3, #7
    stm r3, {{r4-r7}}                             // S: [goroutine][depth][system_sp][machine]
    mov sp, r3                                  // on the system stack from here
    stackmark_cfa_by_depth 104
    b system_call
    stackmark_machine_word call_system
    .cfi_endproc
    .fnend
    .size stackmark_call_system, .-stackmark_call_system
