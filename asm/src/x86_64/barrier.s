// Every stub calls barrier_common. The ret of the frame that was left has popped the slot, and the
// stub's call has filled it again with stub + 6. So the slot still names the stub, and the pool's
// CFI still finds the saved return address.
    .type barrier_common,@function
barrier_common:
    .cfi_startproc
    push rax                                    // G: [slot][rax]
    .cfi_def_cfa_offset 16
    push rcx                                    // G: ... [rax][rcx]
    .cfi_def_cfa_offset 24
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
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rbx, qword ptr fs:[rax]
    mov r12, qword ptr [rbx + {m_goroutine}]
    lea r10, [rsp + 88]                         // the slot
    mov r11, qword ptr [r10]                    // stub + 6
    mov rcx, qword ptr [r12 + {g_stack_hi}]
    sub rcx, rsp                                // depth
    mov r9, qword ptr [rbx + {m_system_sp}]
    sub r9, qword ptr [rip + stackmark_vector_size]
    sub r9, 64
    and r9, -64
    mov qword ptr [r9], r12                     // S: [registers][depth][goroutine]
    mov qword ptr [r9 + 8], rcx
    mov rsp, r9                                 // on the system stack from here
    stackmark_cfa_by_depth 96
    jmp barrier_on_system
    .cfi_endproc
    .size barrier_common, .-barrier_common

// The landing pad of the pool: rax = exception, rdx = index of the stub, rsp = CFA of the frame
// that was left. It writes the saved return address into the slot and goes on as if the frame
// returned to had called stackmark_call_system itself.
    .type barrier_landing,@function
    .globl stackmark_barrier_landing
    .hidden stackmark_barrier_landing
stackmark_barrier_landing:
barrier_landing:
    .cfi_startproc
    .cfi_def_cfa rsp, 0
    .cfi_undefined rip                          // the slot is dead for two instructions
    lea rcx, [rip + stackmark_barrier_table]
    push qword ptr [rcx + rdx*8]                // G: [slot = saved return address]
    .cfi_def_cfa_offset 8
    .cfi_restore rip
    lea rdi, [rip + stackmark_barrier_resume]
    mov rsi, rax
    jmp stackmark_call_system
    .cfi_endproc
    .size barrier_landing, .-barrier_landing
