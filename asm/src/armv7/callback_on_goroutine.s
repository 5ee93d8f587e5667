// callback, on G: r0 = argument, r12 = function. Part of __morestack. An exception that passes goes
// on in the native caller: its personality does what a return does.
    .globl stackmark_callback_begin
    .hidden stackmark_callback_begin
stackmark_callback_begin:
    .fnstart
    .cfi_startproc
    stackmark_cfa_of_callback
    stackmark_saved_at_cfa
callback_on_goroutine:
    blx r12
    stackmark_leave_callback callback_on_goroutine
    stackmark_pop_saved
    bx lr
    stackmark_machine_word callback_on_goroutine
    .cfi_endproc
    stackmark_unwound_saved 8                   // from the stack pointer of the part on S on
    .personality stackmark_callback_personality
    .handlerdata
    .fnend
    .globl stackmark_callback_end
    .hidden stackmark_callback_end
stackmark_callback_end:
