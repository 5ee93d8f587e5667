// Calls of native code on the same stack.

// Defines \name(r0 = f, r1 = a, r2 = b) -> f(a, b), called by managed code. \kept names the macros
// that push and pop its frame, which begins \bytes below the CFA, and describe it.
    .macro stackmark_define_call_native name, kept, bytes
    .p2align 6
    .globl \name
    .hidden \name
    .type \name,%function
\name:
    .fnstart
    .cfi_startproc
    stackmark_push_\kept
    stackmark_load_machine r4, r12, \name
    ldr r4, [r4, #{m_goroutine}]                // r4 = goroutine
    mov r12, r0                                 // r12 = f
    mov r0, r1
    mov r1, r2
    add r3, sp, #\bytes
    bic lr, lr, #1                              // without the bit for Thumb code
    str lr, [r4, #{g_sched_pc}]
    str r11, [r4, #{g_sched_fp}]
    str r3, [r4, #{g_sched_sp}]                 // last: now there is an anchor
    blx r12
    .globl \name\()_returned
    .hidden \name\()_returned
\name\()_returned:
    mov r12, #0
    str r12, [r4, #{g_sched_sp}]
    add r12, sp, #\bytes
    ldr lr, [r4, #{g_watch}]
    cmp lr, r12
    blo .Lwatched_\name                         // something armed is younger than the caller
    .cfi_remember_state
.Lgoes_on_\name:
    stackmark_pop_\kept
    bx lr
    stackmark_machine_word \name
    stackmark_unwound_\kept 0
    .personality stackmark_native_personality
    .handlerdata
    .fnend

    .fnstart
    .cfi_restore_state
.Lwatched_\name:
    sub sp, sp, #80
    .cfi_def_cfa_offset \bytes + 80
    stm sp, {{r0-r3}}                             // whatever may carry a result
    add r0, sp, #16
    vstm r0, {{d0-d7}}
    stackmark_load_machine r0, lr, watched_\name
    mov r1, r12
    ldr r2, [sp, #80 + \bytes - 4]
    bic r2, r2, #1
    mov r3, r11
    ldr r12, [r0, #{m_on_watched}]
    blx r12
    add r0, sp, #16
    vldm r0, {{d0-d7}}
    ldm sp, {{r0-r3}}
    add sp, sp, #80
    .cfi_def_cfa_offset \bytes
    b .Lgoes_on_\name
    stackmark_machine_word watched_\name
    stackmark_unwound_\kept 80
    .fnend

// The landing pad of \name: r0 = exception, r4 = goroutine. Does what a return does, and goes on
// unwinding from this frame.
    .fnstart
    nop                                         // pc - 1 of the unwinder's last instructions
    .globl \name\()_landing
    .hidden \name\()_landing
\name\()_landing:
    mov r12, #0
    str r12, [r4, #{g_sched_sp}]
    add r1, sp, #\bytes
    ldr lr, [r4, #{g_watch}]
    cmp lr, r1
    mov r4, r0
    bhs 4f
    stackmark_load_machine r0, lr, landing_\name
    ldr r2, [sp, #\bytes - 4]
    bic r2, r2, #1
    mov r3, r11
    ldr r12, [r0, #{m_on_watched}]
    blx r12
4:  mov r0, r4
    bl _Unwind_Resume
    udf #1
    stackmark_machine_word landing_\name
    .cfi_endproc
    stackmark_unwound_\kept 0
    .fnend
    .size \name, .-\name
    .endm

    .macro stackmark_push_one
    push {{r3, r4, r11, lr}}                      // [pad][r4][r11][return address]
    .cfi_def_cfa_offset 16
    .cfi_offset lr, -4
    .cfi_offset r11, -8
    .cfi_offset r4, -12
    .endm

    .macro stackmark_pop_one
    add sp, sp, #4
    .cfi_def_cfa_offset 12
    pop {{r4, r11, lr}}
    .cfi_def_cfa_offset 0
    .cfi_same_value r4
    .cfi_same_value r11
    .cfi_same_value lr
    .endm

    .macro stackmark_unwound_one bytes
    .save {{r4, r11, lr}}
    .pad #4 + \bytes
    .endm

    .macro stackmark_push_all
    stackmark_push_saved                        // [pad][r4] ... [d15][r11][return address]
    .endm

    .macro stackmark_pop_all
    stackmark_pop_saved
    .endm

    .macro stackmark_unwound_all bytes
    stackmark_unwound_saved \bytes
    .endm

    .globl stackmark_call_native_begin
    .hidden stackmark_call_native_begin
stackmark_call_native_begin:
    stackmark_define_call_native stackmark_call_native, one, 16
    stackmark_define_call_native stackmark_call_native_all, all, 104
    .globl stackmark_call_native_end
    .hidden stackmark_call_native_end
stackmark_call_native_end:
