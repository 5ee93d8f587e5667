// barrier_common, on S: r10 = address of the slot, r11 = stub + 6, rbx = machine. Ends __morestack.
//
//   S:  +16  what vectors.s keeps          G: +96  CFA, the stack pointer of the frame returned to
//        +8  depth                             +88  the slot: stub + 6, later the return address
//        +0  goroutine <- rsp, 64-aligned       +0  rbx ... rax

    .cfi_startproc
    stackmark_cfa_by_depth 96
    .cfi_offset rbx, -96
    .cfi_offset r12, -88
barrier_on_system:
    stackmark_keep_vectors 0
    lea rax, [rip + stackmark_barrier_pool]
    sub r11, 6
    sub r11, rax
    shr r11, 3
    .if {announced}
    mov qword ptr [rsp + 24], r10               // S: [stub][slot] below the x87 state
    mov qword ptr [rsp + 32], r11
    mov rdi, r12
    stackmark_announce system
    mov r10, qword ptr [rsp + 24]
    mov r11, qword ptr [rsp + 32]
    .endif
    mov rdi, rbx
    mov rsi, r10
    mov rdx, r11
    mov rcx, rbp
    call qword ptr [rbx + {m_on_hit}]
    .if {announced}
    mov rdi, r12
    stackmark_announce goroutine
    .endif
    stackmark_restore_vectors 0
    mov rax, qword ptr [rsp]
    mov rcx, qword ptr [rax + {g_stack_hi}]
    sub rcx, qword ptr [rsp + 8]
    mov rsp, rcx                                // on the goroutine stack from here
    .cfi_def_cfa rsp, 96
    pop rbx
    .cfi_def_cfa_offset 88
    .cfi_restore rbx
    pop r12
    .cfi_def_cfa_offset 80
    .cfi_restore r12
    pop r11
    .cfi_def_cfa_offset 72
    pop r10
    .cfi_def_cfa_offset 64
    pop r9
    .cfi_def_cfa_offset 56
    pop r8
    .cfi_def_cfa_offset 48
    pop rdi
    .cfi_def_cfa_offset 40
    pop rsi
    .cfi_def_cfa_offset 32
    pop rdx
    .cfi_def_cfa_offset 24
    pop rcx
    .cfi_def_cfa_offset 16
    pop rax
    .cfi_def_cfa_offset 8
    ret                                         // through the slot: the saved return address
    .cfi_endproc
    .size __morestack, .-__morestack
