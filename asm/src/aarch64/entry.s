// The oldest frame. A new goroutine begins at stackmark_goroutine_entry, with x20 = goroutine and
// x29 = 0.
    .globl stackmark_entry_begin
    .hidden stackmark_entry_begin
    .type goroutine_entry,@function
goroutine_entry:
stackmark_entry_begin:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_entry_personality
    .cfi_undefined x30
    .cfi_def_cfa sp, 16
    nop                                         // pc - 1 of a walk over a new goroutine
    .globl stackmark_goroutine_entry
    .hidden stackmark_goroutine_entry
stackmark_goroutine_entry:
    mov x0, x20
    ldr x1, [x20, #{g_start_arg}]
    str xzr, [x20, #{g_start_arg}]
    ldr x9, [x20, #{g_entry}]
    blr x9
    mov x2, x0
    ldr x0, [x20, #{g_on_exit}]
    mov x1, x20
    bl stackmark_call_system
    brk #1                                      // on_exit leaves to the scheduler

// The landing pad of goroutine_entry: x0 = exception
    .globl stackmark_entry_landing
    .hidden stackmark_entry_landing
stackmark_entry_landing:
    bti j
    mov x1, x0
    stackmark_load_machine x9, x10
    ldr x2, [x9, #{m_goroutine}]
    ldr x0, [x2, #{g_on_uncaught}]
    bl stackmark_call_system
    brk #1                                      // on_uncaught does not return
    .globl stackmark_entry_end
    .hidden stackmark_entry_end
stackmark_entry_end:
    .cfi_endproc
    .size goroutine_entry, .-goroutine_entry
