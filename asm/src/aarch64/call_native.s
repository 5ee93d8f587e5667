// Calls of native code on the same stack.

// Defines \name(x0 = f, x1 = a, x2 = b) -> f(a, b), called by managed code. \kept names the macros
// that push and pop its frame, which begins \bytes below the CFA.
    .macro stackmark_define_call_native name, kept, bytes
    .p2align 6
    .globl \name
    .hidden \name
    .type \name,@function
\name:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_native_personality
    bti c
    stackmark_push_\kept
    stackmark_load_machine x19, x9
    ldr x19, [x19, #{m_goroutine}]              // x19 = goroutine
    mov x9, x0                                  // x9 = f
    mov x0, x1
    mov x1, x2
    add x10, sp, #\bytes
    str x30, [x19, #{g_sched_pc}]
    str x29, [x19, #{g_sched_fp}]
    str x10, [x19, #{g_sched_sp}]               // last: now there is an anchor
    blr x9
    .globl \name\()_returned
    .hidden \name\()_returned
\name\()_returned:
    str xzr, [x19, #{g_sched_sp}]
    add x10, sp, #\bytes
    ldr x9, [x19, #{g_watch}]
    cmp x9, x10
    b.lo 2f                                     // something armed is younger than the caller
    .cfi_remember_state
3:  stackmark_pop_\kept
    ret
    .cfi_restore_state
2:  sub sp, sp, #80
    .cfi_def_cfa_offset \bytes + 80
    stp x0, x1, [sp]                            // whatever may carry a result
    stp q0, q1, [sp, #16]
    stp q2, q3, [sp, #48]
    stackmark_load_machine x0, x9
    mov x1, x10
    ldr x2, [sp, #80 + \bytes - 8]
    mov x3, x29
    ldr x9, [x0, #{m_on_watched}]
    blr x9
    ldp x0, x1, [sp]
    ldp q0, q1, [sp, #16]
    ldp q2, q3, [sp, #48]
    add sp, sp, #80
    .cfi_def_cfa_offset \bytes
    b 3b                                        // pc - 1 of the unwinder's last instructions

// The landing pad of \name: x0 = exception, x19 = goroutine. Does what a return does, and goes on
// unwinding as if the managed caller had called _Unwind_Resume itself.
    .globl \name\()_landing
    .hidden \name\()_landing
\name\()_landing:
    bti j
    str xzr, [x19, #{g_sched_sp}]
    add x1, sp, #\bytes
    ldr x9, [x19, #{g_watch}]
    cmp x9, x1
    mov x19, x0
    b.hs 4f
    stackmark_load_machine x0, x9
    ldr x2, [sp, #\bytes - 8]
    mov x3, x29
    ldr x9, [x0, #{m_on_watched}]
    blr x9
4:  mov x0, x19
    stackmark_pop_\kept
    stackmark_resume_unwinding
    .cfi_endproc
    .size \name, .-\name
    .endm

    .macro stackmark_push_one
    stp x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    str x19, [sp, #-16]!                        // [x19][pad][x29][return address]
    .cfi_def_cfa_offset 32
    .cfi_offset x19, -32
    .endm

    .macro stackmark_pop_one
    ldr x19, [sp], #16
    .cfi_def_cfa_offset 16
    .cfi_restore x19
    ldp x29, x30, [sp], #16
    .cfi_def_cfa_offset 0
    .cfi_restore x29
    .cfi_restore x30
    .endm

    .macro stackmark_push_all
    stackmark_push_saved                        // [x19] ... [d15][x29][return address]
    .endm

    .macro stackmark_pop_all
    stackmark_pop_saved
    .endm

    .globl stackmark_call_native_begin
    .hidden stackmark_call_native_begin
stackmark_call_native_begin:
    stackmark_define_call_native stackmark_call_native, one, 32
    stackmark_define_call_native stackmark_call_native_all, all, 160
    .globl stackmark_call_native_end
    .hidden stackmark_call_native_end
stackmark_call_native_end:
