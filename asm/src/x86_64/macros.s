// What several files here share. Comments mark frames and registers of the goroutine stack with G
// and those of the system stack with S.

// The callee-saved registers, in the order of the stack pictures: rbp at CFA - 16 down to r15 at
// CFA - 56.
    .macro stackmark_saved_at_cfa
    .cfi_offset rbp, -16
    .cfi_offset rbx, -24
    .cfi_offset r12, -32
    .cfi_offset r13, -40
    .cfi_offset r14, -48
    .cfi_offset r15, -56
    .endm

// Pushes them in that order, at the beginning of a function.
    .macro stackmark_push_saved
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    push rbx
    .cfi_def_cfa_offset 24
    .cfi_offset rbx, -24
    push r12
    .cfi_def_cfa_offset 32
    .cfi_offset r12, -32
    push r13
    .cfi_def_cfa_offset 40
    .cfi_offset r13, -40
    push r14
    .cfi_def_cfa_offset 48
    .cfi_offset r14, -48
    push r15
    .cfi_def_cfa_offset 56
    .cfi_offset r15, -56
    .endm

// Pops them; the return address is left.
    .macro stackmark_pop_saved
    pop r15
    .cfi_def_cfa_offset 48
    .cfi_restore r15
    pop r14
    .cfi_def_cfa_offset 40
    .cfi_restore r14
    pop r13
    .cfi_def_cfa_offset 32
    .cfi_restore r13
    pop r12
    .cfi_def_cfa_offset 24
    .cfi_restore r12
    pop rbx
    .cfi_def_cfa_offset 16
    .cfi_restore rbx
    pop rbp
    .cfi_def_cfa_offset 8
    .cfi_restore rbp
    .endm

// The end of enter_managed, after a return and when an exception passes. Afterwards the anchor is
// the one from before, and rsp is at the saved registers. Changes rdi and rcx.
    .macro stackmark_leave_managed
    pop rdi                                     // goroutine
    .cfi_def_cfa_offset 88
    pop qword ptr [rdi + {g_sched_pc}]
    .cfi_def_cfa_offset 80
    pop rcx
    .cfi_def_cfa_offset 72
    pop qword ptr [rdi + {g_sched_fp}]
    .cfi_def_cfa_offset 64
    pop qword ptr [rdi + {g_entered}]
    .cfi_def_cfa_offset 56
    mov qword ptr [rdi + {g_sched_sp}], rcx     // last: now there is an anchor
    .endm

// Where run jumps to, still on S: the registers hold what they hold in the caller of run.
    .macro stackmark_before_switch_in
    .cfi_def_cfa rsp, 0
    .cfi_register rip, rcx
    .irp register, rbp, rbx, r12, r13, r14, r15
    .cfi_same_value \register
    .endr
    .endm

// Says where the CFA of a part on S is that keeps the depth of its part on G:
//   *(*(rsp) + stack_hi) - *(rsp + 8) + \bytes
    .macro stackmark_cfa_by_depth bytes
    .cfi_escape 0x0f, 12                        // DW_CFA_def_cfa_expression, its length
    .cfi_escape 0x77, 0, 0x06                   // DW_OP_breg7 (rsp) 0, deref: the goroutine
    .cfi_escape 0x23, {g_stack_hi}, 0x06        // DW_OP_plus_uconst, deref: stack_hi
    .cfi_escape 0x77, 8, 0x06, 0x1c             // DW_OP_breg7 (rsp) 8, deref, minus: less the depth
    .cfi_escape 0x23, \bytes                    // DW_OP_plus_uconst
    .endm

// Says where the CFA of callback is while its part on G is in use: *(rsp) + 64, in the part on S.
    .macro stackmark_cfa_of_callback
    .cfi_escape 0x0f, 5                         // DW_CFA_def_cfa_expression, its length
    .cfi_escape 0x77, 0, 0x06                   // DW_OP_breg7 (rsp) 0, deref: rsp of the part on S
    .cfi_escape 0x23, 64                        // DW_OP_plus_uconst
    .endm

// Announces a switch of stacks to AddressSanitizer (asan.rs), on S: a goroutine stack has no room
// for that. What the call would clobber is kept in callee-saved registers, which the frame has
// saved or is about to restore. Takes rdi = goroutine; rsp is 16-aligned.
    .macro stackmark_announce stack
    call stackmark_asan_to_\stack
    .endm

// The end of callback, on G, after a return and when an exception passes. Afterwards the goroutine
// stands in its call out again, and rsp is at the saved registers of callback's part on S.
    .macro stackmark_leave_callback
    mov rdi, qword ptr [rsp + 8]                // goroutine
    mov rcx, qword ptr [rsp + 32]               // the return slot goes back to sched.pc
    mov qword ptr [rdi + {g_sched_pc}], rcx
    lea rcx, [rsp + 40]                         // call_system's part, where it lies now
    mov qword ptr [rdi + {g_sched_sp}], rcx
    mov rcx, qword ptr [rcx + 40]               // the rbp that it saved
    mov qword ptr [rdi + {g_sched_fp}], rcx
    dec qword ptr [rdi + {g_callback_depth}]
    mov rsp, qword ptr [rsp]                    // on the system stack from here
    .cfi_def_cfa rsp, 64
    .if {announced}
    mov r12, rax
    mov r13, rsi
    stackmark_announce system
    mov rax, r12
    mov rsi, r13
    .endif
    mov rcx, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rbx, qword ptr fs:[rcx]
    pop qword ptr [rbx + {m_system_sp}]
    .cfi_def_cfa_offset 56
    .endm

// The end of a landing pad whose frame is gone: rdi = exception. Not by the PLT, which may have no
// CFI: lld writes none for it.
    .macro stackmark_resume_unwinding
    jmp qword ptr [rip + _Unwind_Resume@GOTPCREL]
    .endm
