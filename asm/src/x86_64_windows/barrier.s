// Every stub calls barrier_common. The ret of the frame that was left has popped the slot, and the
// stub's call has filled it again with stub + 6. So the slot still names the stub, and unwinders
// still find the record of its barrier.
    .macro stackmark_pushed_by_barrier
    .seh_stackalloc 56
    .seh_pushreg r12
    .seh_pushreg rbx
    .endm

    stackmark_part barrier_common
    .irp register, rax, rcx, rdx, r8, r9, r10, r11
    push \register                              // G: [slot][rax] ... [r11]
    .seh_stackalloc 8
    .endr
    push r12                                    // G: ... [r11][r12]
    .seh_pushreg r12
    push rbx                                    // G: ... [r12][rbx]
    .seh_pushreg rbx
    .seh_endprologue
    stackmark_load_machine rbx, ax              // rbx = machine
    mov r12, qword ptr [rbx + {m_goroutine}]
    lea r10, [rsp + 72]                         // the slot
    mov r11, qword ptr [r10]                    // stub + 6
    mov rdx, qword ptr [r12 + {g_stack_hi}]
    sub rdx, rsp                                // depth
    mov rcx, rsp                                // this part on G
    mov r9, qword ptr [rbx + {m_system_sp}]
    cmp qword ptr [r12 + {g_entered}], 0
    cmovne r9, rsp                              // a native stack is its own system stack
    jne 2f
    stackmark_stack_is_systems rbx, rax
2:  lea r8, [rip + stackmark_barrier_left]
    stackmark_end_part
    stackmark_part barrier_between
    stackmark_pushed_by_barrier
    .seh_setframe rcx, 0
    .seh_endprologue
    mov rsp, r9                                 // on the system stack from here
    sub rsp, 32                                 // S: [record of the part on G]
    mov qword ptr [rsp], r8
    mov qword ptr [rsp + 8], r12
    mov qword ptr [rsp + 16], rdx
    mov qword ptr [rsp + 24], rcx
    mov r12, rsp                                // r12 = the record
    stackmark_end_part

// On S:
//   r12 -> record: pc, goroutine, depth and rsp of the part on G
//      +80  what vectors.s keeps, 64-aligned from its byte 64 on
//      +32  (pad)
//       +0  shadow space <- rsp, 64-aligned
    stackmark_part barrier_on_system
    .seh_pushframe
    .seh_setframe r12, 0
    .seh_endprologue
    sub rsp, qword ptr [rip + stackmark_vector_size]
    sub rsp, 128
    and rsp, -64
    stackmark_keep_vectors 64
    lea rax, [rip + stackmark_barrier_pool]
    lea r8, [r11 - 6]
    sub r8, rax
    shr r8, 3
    mov rcx, rbx
    mov rdx, r10
    mov r9, rbp
    call qword ptr [rbx + {m_on_hit}]
    stackmark_restore_vectors 64
    mov rax, qword ptr [r12 + 8]
    mov rcx, qword ptr [rax + {g_stack_hi}]
    sub rcx, qword ptr [r12 + 16]
    cmp qword ptr [rax + {g_entered}], 0
    jne 2f
    stackmark_keep_limit rbx, rdx
    stackmark_stack_is_goroutines rax, rdx
2:  mov rsp, rcx                                // on the goroutine stack from here
    stackmark_end_part
    stackmark_part barrier_returns
    stackmark_pushed_by_barrier
    .seh_endprologue
    nop                                         // pc - 1 of a walk from the record
    stackmark_label stackmark_barrier_left      // the pc of the part on G in its record
    .irp register, rbx, r12, r11, r10, r9, r8, rdx, rcx, rax
    pop \register
    .endr
    ret                                         // through the slot: the saved return address
    stackmark_end_part
