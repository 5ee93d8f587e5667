// callback, on G: edi = function, its argument at esp. Part of __morestack.
    .globl stackmark_callback_begin
    .hidden stackmark_callback_begin
stackmark_callback_begin:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_callback_personality
    stackmark_cfa_of_callback
    stackmark_saved_at_cfa
callback_on_goroutine:
    call edi
    stackmark_leave_callback
    stackmark_pop_saved
    ret

// The landing pad of callback, on G: eax = exception. Does what a return does, and goes on
// unwinding as if the native caller had called _Unwind_Resume itself.
    stackmark_cfa_of_callback                   // as before the switch to S
    stackmark_saved_at_cfa
    nop                                         // pc - 1 of the unwinder's last instructions
    .globl stackmark_callback_landing
    .hidden stackmark_callback_landing
stackmark_callback_landing:
    stackmark_leave_callback
    mov dword ptr [esp + 20], eax
    stackmark_pop_saved
    stackmark_resume_unwinding
    .cfi_endproc
    .globl stackmark_callback_end
    .hidden stackmark_callback_end
stackmark_callback_end:
