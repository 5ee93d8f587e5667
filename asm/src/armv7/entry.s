// The oldest frame. A new goroutine begins at stackmark_goroutine_entry, with r4 = goroutine and
// r11 = 0.
    .p2align 2
    .globl stackmark_entry_begin
    .hidden stackmark_entry_begin
    .type goroutine_entry,%function
goroutine_entry:
stackmark_entry_begin:
    .fnstart
    .cfi_startproc
    .cfi_undefined lr
    .cfi_def_cfa sp, 16
    nop                                         // pc - 1 of a walk over a new goroutine
    .globl stackmark_goroutine_entry
    .hidden stackmark_goroutine_entry
stackmark_goroutine_entry:
    mov r0, r4
    ldr r1, [r4, #{g_start_arg}]
    mov r2, #0
    str r2, [r4, #{g_start_arg}]
    ldr r12, [r4, #{g_entry}]
    blx r12
    mov r2, r0
    ldr r0, [r4, #{g_on_exit}]
    mov r1, r4
    bl stackmark_call_system
    udf #1                                      // on_exit leaves to the scheduler

// The landing pad of goroutine_entry: r0 = exception
    .globl stackmark_entry_landing
    .hidden stackmark_entry_landing
stackmark_entry_landing:
    mov r1, r0
    stackmark_load_machine r3, r12, entry
    ldr r2, [r3, #{m_goroutine}]
    ldr r0, [r2, #{g_on_uncaught}]
    bl stackmark_call_system
    udf #1                                      // on_uncaught does not return
    stackmark_machine_word entry
    .globl stackmark_entry_end
    .hidden stackmark_entry_end
stackmark_entry_end:
    .cfi_endproc
    .personality stackmark_entry_personality
    .handlerdata
    .fnend
    .size goroutine_entry, .-goroutine_entry
