// barrier_common, on S: r10 = address of the slot, r11 = stub + 6, rbx = machine. Ends __morestack.
//
//   S: +256  vectors                       G: +96  CFA, the stack pointer of the frame returned to
//      +192  k0 ... k7                        +88  the slot: stub + 6, later the return address
//       +64  x87 state                         +0  rbx ... rax
//       +20  kind of the vectors that are kept; -1: those of results, and no x87 state
//       +16  whether there is any x87 state
//        +8  depth
//        +0  goroutine <- rsp, 64-aligned
//
// Any register may carry a result, or may be one that the function's convention keeps, unless the
// machine's byte says that the convention is C's, or that vectors are narrow. Moves take a
// quarter of the time of xsave and xrstor. Every convention keeps mxcsr and the x87 control word,
// so the hook keeps them, and they are not saved here.

// Saves or restores the mask registers by \move.
    .macro stackmark_each_mask move, saves
    .irp r, 0,1,2,3,4,5,6,7
    .if \saves
    \move [rsp + 192 + 8 * \r], k\r
    .else
    \move k\r, [rsp + 192 + 8 * \r]
    .endif
    .endr
    .endm

    .cfi_startproc
    stackmark_cfa_by_depth 96
    .cfi_offset rbx, -96
    .cfi_offset r12, -88
barrier_on_system:
    mov eax, dword ptr [rip + stackmark_vector_kind]
    mov rcx, qword ptr [rbx + {m_kept_vectors}]
    test rcx, rcx
    je 2f
    cmp byte ptr [rcx], {keeps_narrow}
    ja 2f
    mov eax, 0                                  // and keeps the flags
    je 2f
    mov dword ptr [rsp + 16], 0
    mov dword ptr [rsp + 20], -1
    movaps xmmword ptr [rsp + 256], xmm0
    movaps xmmword ptr [rsp + 272], xmm1
    jmp 7f
2:  mov dword ptr [rsp + 20], eax               // what the byte says may change meanwhile
    // The top of the x87 stack is 0 while that stack is empty, as it is at a return without x87
    // results.
    mov ecx, eax
    fnstsw ax
    and eax, 0x3800
    mov dword ptr [rsp + 16], eax
    je 2f
    fnsave [rsp + 64]                           // saves the stack and leaves it empty
2:  cmp ecx, {kind_avx}
    jb 5f
    je 4f
    cmp ecx, {kind_avx512}
    je 3f
    stackmark_each_mask kmovw, 1
    jmp 6f
3:  stackmark_each_mask kmovq, 1
6:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovaps zmmword ptr [rsp + 256 + 64 * \r], zmm\r
    .endr
    vzeroupper
    jmp 7f
4:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovaps ymmword ptr [rsp + 256 + 32 * \r], ymm\r
    .endr
    vzeroupper
    jmp 7f
5:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movaps xmmword ptr [rsp + 256 + 16 * \r], xmm\r
    .endr
7:  lea rax, [rip + stackmark_barrier_pool]
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
    mov eax, dword ptr [rsp + 20]
    test eax, eax
    js 8f
    cmp eax, {kind_avx}
    jb 5f
    je 4f
    cmp eax, {kind_avx512}
    je 3f
    stackmark_each_mask kmovw, 0
    jmp 6f
3:  stackmark_each_mask kmovq, 0
6:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovaps zmm\r, zmmword ptr [rsp + 256 + 64 * \r]
    .endr
    jmp 7f
4:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovaps ymm\r, ymmword ptr [rsp + 256 + 32 * \r]
    .endr
    jmp 7f
5:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movaps xmm\r, xmmword ptr [rsp + 256 + 16 * \r]
    .endr
7:  cmp dword ptr [rsp + 16], 0
    je 5f
    frstor [rsp + 64]
    jmp 5f
8:  movaps xmm0, xmmword ptr [rsp + 256]
    movaps xmm1, xmmword ptr [rsp + 272]
5:  mov rax, qword ptr [rsp]
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
