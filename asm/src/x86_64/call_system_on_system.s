// __morestack begins: what runs after a switch of stacks. Its three FDEs are this file and the two
// that follow; they lie side by side under one symbol.
    .type __morestack,@function
__morestack:

// call_system, on S: rax = f, rdi and rsi = its arguments, r12 = goroutine
    .cfi_startproc
    stackmark_cfa_by_depth 56
    stackmark_saved_at_cfa
    .if {announced}
    mov rbx, rax
    mov r15, rdi
    mov rbp, rsi
    mov rdi, r12
    stackmark_announce system
    mov rax, rbx
    mov rdi, r15
    mov rsi, rbp
    mov rbp, qword ptr [r12 + {g_sched_fp}]     // the chain of frame pointers
    mov rcx, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rbx, qword ptr fs:[rcx]                 // rbx = machine again
    .endif
    call rax
    .globl stackmark_system_call_returned
    .hidden stackmark_system_call_returned
stackmark_system_call_returned:                 // the pc of this part while native code runs
    // Native code may have left younger calls by longjmp, with another system_sp. The registers it
    // keeps even then.
    lea rcx, [rsp + 16]
    mov qword ptr [rbx + {m_system_sp}], rcx
    .if {announced}
    mov r15, rax
    mov rdi, r12
    stackmark_announce goroutine
    mov rax, r15
    .endif
    mov rcx, qword ptr [r12 + {g_stack_hi}]
    cmp rcx, r14
    jne 2f
    mov rsp, r13                                // on the goroutine stack from here
    .cfi_remember_state
    .cfi_def_cfa rsp, 56
3:  stackmark_pop_saved
    ret
    .cfi_restore_state
2:  sub rcx, qword ptr [rsp + 8]                // the stack has moved: from depth to address
    mov rsp, rcx                                // on the goroutine stack from here
    .cfi_def_cfa rsp, 56
    jmp 3b
    .globl stackmark_system_call_begin
    .hidden stackmark_system_call_begin
stackmark_system_call_begin:
    .cfi_def_cfa rsp, 56
    stackmark_saved_at_cfa
    nop                                         // pc - 1 of a walk, after a call out
    stackmark_before_switch_in
    .globl stackmark_system_call_resume
    .hidden stackmark_system_call_resume
stackmark_system_call_resume:                   // = g.sched.pc
    mov rsp, qword ptr [rsi + {g_sched_sp}]     // on the goroutine stack from here
    .cfi_def_cfa_offset 56
    .cfi_offset rip, -8
    stackmark_saved_at_cfa
    stackmark_pop_saved
    pop rcx
    .cfi_def_cfa_offset 0
    .cfi_register rip, rcx
    jmp rcx
    // No rule says that rbx and r12 to r14 are lost: such rules cannot be packed, and the caller
    // keeps nothing in these registers.
    .cfi_def_cfa rsp, 24
    .cfi_offset rip, -8
    .cfi_offset rbp, -16
    .cfi_offset r15, -24
    nop                                         // pc - 1 of a walk, after switch_out
    .p2align 4
    stackmark_before_switch_in
stackmark_switch_out_resume:                    // = g.sched.pc
    mov rsp, qword ptr [rsi + {g_sched_sp}]     // on the goroutine stack from here
    .cfi_def_cfa_offset 24
    .cfi_offset rip, -8
    .cfi_offset rbp, -16
    .cfi_offset r15, -24
    pop r15
    .cfi_def_cfa_offset 16
    .cfi_restore r15
    pop rbp
    .cfi_def_cfa_offset 8
    .cfi_restore rbp
    ret
    .globl stackmark_system_call_end
    .hidden stackmark_system_call_end
stackmark_system_call_end:
    .cfi_endproc
