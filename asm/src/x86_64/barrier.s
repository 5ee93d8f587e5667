// Every stub calls barrier_common. The ret of the frame that was left has popped the slot, and the
// stub's call has filled it again with stub + 6. So the slot still names the stub, and the pool's
// CFI still finds the saved return address.
//
// A stub is its own landing pad, too: the word that the slot held. The unwinder's last instructions
// have the pad for their caller and look up pc - 1 there, with no register but rsp. The pool's CFI
// needs no other. The exception comes in the machine.
    .type barrier_common,@function
barrier_common:
    .cfi_startproc
    push rax                                    // G: [slot][rax]
    .cfi_def_cfa_offset 16
    push rcx                                    // G: ... [rax][rcx]
    .cfi_def_cfa_offset 24
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rax, qword ptr fs:[rax]
    mov rcx, qword ptr [rax + {m_passing}]
    test rcx, rcx
    jne 2f
    push rdx                                    // G: ... [rcx][rdx]
    .cfi_def_cfa_offset 32
    push rsi                                    // G: ... [rdx][rsi]
    .cfi_def_cfa_offset 40
    push rdi                                    // G: ... [rsi][rdi]
    .cfi_def_cfa_offset 48
    push r8                                     // G: ... [rdi][r8]
    .cfi_def_cfa_offset 56
    push r9                                     // G: ... [r8][r9]
    .cfi_def_cfa_offset 64
    push r10                                    // G: ... [r9][r10]
    .cfi_def_cfa_offset 72
    push r11                                    // G: ... [r10][r11]
    .cfi_def_cfa_offset 80
    push r12                                    // G: ... [r11][r12]
    .cfi_def_cfa_offset 88
    .cfi_offset r12, -88
    push rbx                                    // G: ... [r12][rbx]
    .cfi_def_cfa_offset 96
    .cfi_offset rbx, -96
    mov rbx, rax                                // rbx = machine
    mov r12, qword ptr [rbx + {m_goroutine}]
    lea r10, [rsp + 88]                         // the slot
    mov r11, qword ptr [r10]                    // stub + 6
    mov rcx, qword ptr [r12 + {g_stack_hi}]
    sub rcx, rsp                                // depth
    mov r9, qword ptr [rbx + {m_system_sp}]
    cmp qword ptr [r12 + {g_entered}], 0
    cmovne r9, rsp                              // a native stack is its own system stack
    sub r9, qword ptr [rip + stackmark_vector_size]
    sub r9, 64
    and r9, -64
    // Before the first store there: on a native stack it is below the stack pointer, where signal
    // handlers run.
    .cfi_def_cfa r10, 8
    mov rsp, r9                                 // on the system stack from here
    mov qword ptr [rsp], r12                    // S: [registers][depth][goroutine]
    mov qword ptr [rsp + 8], rcx
    stackmark_cfa_by_depth 96
    jmp barrier_on_system

// rcx = an exception, rax = machine. The exception's registers are free; those that the frame
// returned to keeps are as it has left them. Writes the saved return address into the slot, and
// goes on as if that frame had called stackmark_call_system itself, or stackmark_call_native.
    .cfi_def_cfa rsp, 24
    .cfi_restore rbx
    .cfi_restore r12
2:  mov qword ptr [rax + {m_passing}], 0
    mov rsi, rcx
    mov rdx, qword ptr [rsp + 16]               // the slot: stub + 6
    lea rcx, [rip + stackmark_barrier_pool]
    sub rdx, 6
    sub rdx, rcx
    shr rdx, 3                                  // rdx = index of the stub
    lea rcx, [rip + stackmark_barrier_table]
    mov rcx, qword ptr [rcx + rdx*8]
    mov qword ptr [rsp + 16], rcx               // G: [slot = saved return address][rax][rcx]
    add rsp, 16
    .cfi_def_cfa_offset 8
    lea rdi, [rip + stackmark_barrier_resume]
    mov rax, qword ptr [rax + {m_goroutine}]
    cmp qword ptr [rax + {g_entered}], 0
    jne stackmark_call_native
    jmp stackmark_call_system
    .cfi_endproc
    .size barrier_common, .-barrier_common
