// What a hit keeps of the registers that are not general, in an area at rsp + \base.
//
//   +256  vectors
//   +192  k0 ... k7
//    +64  x87 state
//    +20  kind of the vectors that are kept; -1: those of results, and no x87 state
//    +16  whether there is any x87 state
//
// Any register may carry a result, or may be one that the function's convention keeps, unless the
// machine's byte says that the convention is C's, or that vectors are narrow. Moves take a
// quarter of the time of xsave and xrstor. Every convention keeps mxcsr and the x87 control word,
// so the hook keeps them, and they are not saved here.

// Saves or restores the mask registers by \move.
    .macro stackmark_each_mask move, saves, base
    .irp r, 0,1,2,3,4,5,6,7
    .if \saves
    \move [rsp + \base + 192 + 8 * \r], k\r
    .else
    \move k\r, [rsp + \base + 192 + 8 * \r]
    .endif
    .endr
    .endm

// Takes rbx = machine; rsp + \base is 64-aligned. Changes rax and rcx.
    .macro stackmark_keep_vectors base
    mov eax, dword ptr [rip + stackmark_vector_kind]
    mov rcx, qword ptr [rbx + {m_kept_vectors}]
    test rcx, rcx
    je 2f
    cmp byte ptr [rcx], {keeps_narrow}
    ja 2f
    mov eax, 0                                  // and keeps the flags
    je 2f
    mov dword ptr [rsp + \base + 16], 0
    mov dword ptr [rsp + \base + 20], -1
    movaps xmmword ptr [rsp + \base + 256], xmm0
    movaps xmmword ptr [rsp + \base + 272], xmm1
    jmp 7f
2:  mov dword ptr [rsp + \base + 20], eax       // what the byte says may change meanwhile
    // The top of the x87 stack is 0 while that stack is empty, as it is at a return without x87
    // results.
    mov ecx, eax
    fnstsw ax
    and eax, 0x3800
    mov dword ptr [rsp + \base + 16], eax
    je 2f
    fnsave [rsp + \base + 64]                   // saves the stack and leaves it empty
2:  cmp ecx, {kind_avx}
    jb 5f
    je 4f
    cmp ecx, {kind_avx512}
    je 3f
    stackmark_each_mask kmovw, 1, \base
    jmp 6f
3:  stackmark_each_mask kmovq, 1, \base
6:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovaps zmmword ptr [rsp + \base + 256 + 64 * \r], zmm\r
    .endr
    vzeroupper
    jmp 7f
4:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovaps ymmword ptr [rsp + \base + 256 + 32 * \r], ymm\r
    .endr
    vzeroupper
    jmp 7f
5:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movaps xmmword ptr [rsp + \base + 256 + 16 * \r], xmm\r
    .endr
7:
    .endm

// Changes rax.
    .macro stackmark_restore_vectors base
    mov eax, dword ptr [rsp + \base + 20]
    test eax, eax
    js 8f
    cmp eax, {kind_avx}
    jb 5f
    je 4f
    cmp eax, {kind_avx512}
    je 3f
    stackmark_each_mask kmovw, 0, \base
    jmp 6f
3:  stackmark_each_mask kmovq, 0, \base
6:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovaps zmm\r, zmmword ptr [rsp + \base + 256 + 64 * \r]
    .endr
    jmp 7f
4:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovaps ymm\r, ymmword ptr [rsp + \base + 256 + 32 * \r]
    .endr
    jmp 7f
5:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movaps xmm\r, xmmword ptr [rsp + \base + 256 + 16 * \r]
    .endr
7:  cmp dword ptr [rsp + \base + 16], 0
    je 5f
    frstor [rsp + \base + 64]
    jmp 5f
8:  movaps xmm0, xmmword ptr [rsp + \base + 256]
    movaps xmm1, xmmword ptr [rsp + \base + 272]
5:
    .endm
