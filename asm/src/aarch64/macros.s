// What several files here share. Comments mark frames and registers of the goroutine stack with G
// and those of the system stack with S.

// Loads the machine of this thread. Changes \scratch.
    .macro stackmark_load_machine register, scratch
    mrs \register, tpidr_el0
    adrp \scratch, :gottprel:stackmark_machine
    ldr \scratch, [\scratch, :gottprel_lo12:stackmark_machine]
    ldr \register, [\register, \scratch]
    .endm

// Says where the CFA of a part on S is that keeps the depth of its part on G:
//   *(*(sp) + stack_hi) - *(sp + 8) + \bytes, with 128 <= \bytes < 16384
    .macro stackmark_cfa_by_depth bytes
    .cfi_escape 0x0f, 13                        // DW_CFA_def_cfa_expression, its length
    .cfi_escape 0x8f, 0, 0x06                   // DW_OP_breg31 (sp) 0, deref: the goroutine
    .cfi_escape 0x23, {g_stack_hi}, 0x06        // DW_OP_plus_uconst, deref: stack_hi
    .cfi_escape 0x8f, 8, 0x06, 0x1c             // DW_OP_breg31 (sp) 8, deref, minus: less the depth
    .cfi_escape 0x23, 0x80 | (\bytes & 0x7f), \bytes >> 7   // DW_OP_plus_uconst
    .endm

// Says where the CFA of callback is while its part on G is in use: *(sp) + 176, in the part on S.
    .macro stackmark_cfa_of_callback
    .cfi_escape 0x0f, 6                         // DW_CFA_def_cfa_expression, its length
    .cfi_escape 0x8f, 0, 0x06                   // DW_OP_breg31 (sp) 0, deref: sp of the part on S
    .cfi_escape 0x23, 0xb0, 0x01                // DW_OP_plus_uconst 176
    .endm

// Announces a switch of stacks to AddressSanitizer (asan.rs), on S: a goroutine stack has no room
// for that. What the call would clobber is kept in callee-saved registers, which the frame has
// saved or is about to restore. Takes x0 = goroutine.
    .macro stackmark_announce stack
    bl stackmark_asan_to_\stack
    .endm

// The end of callback, on G, after a return and when an exception passes. Afterwards the goroutine
// stands in its call out again, and sp is at the saved registers of callback's part on S. Keeps x0
// to x8.
    .macro stackmark_leave_callback
    ldp x9, x10, [sp]                           // sp of the part on S, goroutine
    ldr x11, [sp, #24]                          // the return slot goes back to sched.pc
    add x12, sp, #32                            // call_system's part, where it lies now
    stp x11, x12, [x10, #{g_sched_pc}]
    ldr x11, [x12, #144]                        // the x29 that it saved
    str x11, [x10, #{g_sched_fp}]
    ldr x11, [x10, #{g_callback_depth}]
    sub x11, x11, #1
    str x11, [x10, #{g_callback_depth}]
    mov sp, x9                                  // on the system stack from here
    .cfi_def_cfa sp, 176
    .if {announced}
    mov x20, x0
    mov x21, x1
    mov x0, x10
    stackmark_announce system
    mov x0, x20
    mov x1, x21
    .endif
    stackmark_load_machine x19, x9
    ldr x9, [sp], #16
    .cfi_def_cfa_offset 160
    str x9, [x19, #{m_system_sp}]
    .endm

// The end of a landing pad whose frame is gone: x0 = exception. Not by the PLT, which may have no
// CFI: lld writes none for it. By x16, from which a jump to a function's `bti c` is allowed.
    .macro stackmark_resume_unwinding
    adrp x16, :got:_Unwind_Resume
    ldr x16, [x16, :got_lo12:_Unwind_Resume]
    br x16
    .endm
