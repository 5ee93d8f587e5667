// barrier_common, on S: eax = the global offset table, edi = address of the slot, which holds
// stub + 6, ebx = machine. Ends __morestack.
//
//   S: +256  vectors                       G: +28  CFA, the stack pointer of the frame returned to
//      +192  k0 ... k7                        +24  the slot: stub + 6, later the return address
//       +64  x87 state                         +0  edi ... eax
//       +28  kind of the vectors that are kept; -1: those of results
//       +24  whether there is any x87 state
//       +20  depth
//       +16  goroutine
//        +0  arguments of the hook <- esp, 64-aligned
//
// Any register may carry a result, or may be one that the function's convention keeps, unless the
// machine's byte says otherwise. Where the convention has the callee keep vector registers, so does
// the hook, and they are not saved here. The x87 stack carries results by any convention.

// Saves or restores the mask registers by \move.
    .macro stackmark_each_mask move, saves
    .irp r, 0,1,2,3,4,5,6,7
    .if \saves
    \move [esp + 192 + 8 * \r], k\r
    .else
    \move k\r, [esp + 192 + 8 * \r]
    .endif
    .endr
    .endm

    .cfi_startproc
    stackmark_cfa_by_depth 16, 28
    .cfi_offset ebx, -20
    .cfi_offset esi, -24
    .cfi_offset edi, -28
barrier_on_system:
    mov ecx, dword ptr [edi]
    lea edx, [eax + stackmark_barrier_pool@GOTOFF]
    sub ecx, 6
    sub ecx, edx
    shr ecx, 3
    mov dword ptr [esp], ebx                    // S: ... [fp][index][slot][machine]
    mov dword ptr [esp + 4], edi
    mov dword ptr [esp + 8], ecx
    mov dword ptr [esp + 12], ebp
    mov ecx, dword ptr [eax + stackmark_vector_kind@GOTOFF]
    // The top of the x87 stack is 0 while that stack is empty, as it is at a return without x87
    // results.
    fnstsw ax
    and eax, 0x3800
    mov dword ptr [esp + 24], eax
    je 2f
    fnsave [esp + 64]                           // saves the stack and leaves it empty
2:  mov edx, dword ptr [ebx + {m_kept_vectors}]
    test edx, edx
    je 2f
    cmp byte ptr [edx], {keeps_narrow}
    ja 2f
    mov ecx, 0                                  // and keeps the flags
    je 2f
    mov dword ptr [esp + 28], -1
    movaps xmmword ptr [esp + 256], xmm0
    jmp 7f
2:  mov dword ptr [esp + 28], ecx               // what the byte says may change meanwhile
    cmp ecx, {kind_avx}
    jb 5f
    je 4f
    cmp ecx, {kind_avx512}
    je 3f
    stackmark_each_mask kmovw, 1
    jmp 6f
3:  stackmark_each_mask kmovq, 1
6:  .irp r, 0,1,2,3,4,5,6,7
    vmovaps zmmword ptr [esp + 256 + 64 * \r], zmm\r
    .endr
    vzeroupper
    jmp 7f
4:  .irp r, 0,1,2,3,4,5,6,7
    vmovaps ymmword ptr [esp + 256 + 32 * \r], ymm\r
    .endr
    vzeroupper
    jmp 7f
5:  .irp r, 0,1,2,3,4,5,6,7
    movaps xmmword ptr [esp + 256 + 16 * \r], xmm\r
    .endr
7:  call dword ptr [ebx + {m_on_hit}]
    mov eax, dword ptr [esp + 28]
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
6:  .irp r, 0,1,2,3,4,5,6,7
    vmovaps zmm\r, zmmword ptr [esp + 256 + 64 * \r]
    .endr
    jmp 7f
4:  .irp r, 0,1,2,3,4,5,6,7
    vmovaps ymm\r, ymmword ptr [esp + 256 + 32 * \r]
    .endr
    jmp 7f
5:  .irp r, 0,1,2,3,4,5,6,7
    movaps xmm\r, xmmword ptr [esp + 256 + 16 * \r]
    .endr
    jmp 7f
8:  movaps xmm0, xmmword ptr [esp + 256]
7:  cmp dword ptr [esp + 24], 0
    je 5f
    frstor [esp + 64]
5:  mov eax, dword ptr [esp + 16]
    mov ecx, dword ptr [eax + {g_stack_hi}]
    sub ecx, dword ptr [esp + 20]
    mov esp, ecx                                // on the goroutine stack from here
    .cfi_def_cfa esp, 28
    pop edi
    .cfi_def_cfa_offset 24
    .cfi_restore edi
    pop esi
    .cfi_def_cfa_offset 20
    .cfi_restore esi
    pop ebx
    .cfi_def_cfa_offset 16
    .cfi_restore ebx
    pop edx
    .cfi_def_cfa_offset 12
    pop ecx
    .cfi_def_cfa_offset 8
    pop eax
    .cfi_def_cfa_offset 4
    ret                                         // through the slot: the saved return address
    .cfi_endproc
    .size __morestack, .-__morestack
