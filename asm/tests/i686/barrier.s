// hijack(f, argument, word for the return slot, where to save the old word) -> f(argument)
    .type hijack,@function
hijack:
    .cfi_startproc
    mov eax, [esp]
    mov ecx, [esp + 16]
    mov [ecx], eax
    mov eax, [esp + 12]
    mov [esp], eax
    mov eax, [esp + 4]
    mov ecx, [esp + 8]
    sub esp, 12
    .cfi_adjust_cfa_offset 12
    mov [esp], ecx
    call eax
    add esp, 12
    .cfi_adjust_cfa_offset -12
    ret
    .cfi_endproc
    .size hijack, .-hijack

// fill_and_check(patterns in, patterns out, hijacked word, where to save the return address, kind
// of vectors, how many x87 registers). A part of it fills every register and returns through its
// hijacked slot; then all are stored. Offsets of the patterns: integer registers from 0, 8 bytes
// each, st0 120, st1 128, masks from 136, vectors from 256, 64 bytes each.
    .type fill_and_check,@function
fill_and_check:
    .cfi_startproc
    push ebx
    .cfi_adjust_cfa_offset 4
    push ebp
    .cfi_adjust_cfa_offset 4
    push esi
    .cfi_adjust_cfa_offset 4
    push edi
    .cfi_adjust_cfa_offset 4
    sub esp, 12
    .cfi_adjust_cfa_offset 12
    call 7f
    mov [esp], eax
    mov eax, [esp + 36]
    mov [eax + 8], ebx
    mov [eax + 16], ecx
    mov [eax + 24], edx
    mov [eax + 32], esi
    mov [eax + 40], edi
    mov [eax + 48], ebp
    mov ecx, [esp]
    mov [eax], ecx
    cmp dword ptr [esp + 52], 1
    jb 8f
    fstp qword ptr [eax + 120]
    je 8f
    fstp qword ptr [eax + 128]
8:  mov ecx, [esp + 48]
    cmp ecx, 1
    jb 2f
    je 3f
    cmp ecx, 2
    je 4f
    .irp r, 0,1,2,3,4,5,6,7
    kmovq [eax + 136 + 8*\r], k\r
    .endr
    jmp 5f
4:  .irp r, 0,1,2,3,4,5,6,7
    kmovw [eax + 136 + 8*\r], k\r
    .endr
5:  .irp r, 0,1,2,3,4,5,6,7
    vmovups [eax + 256 + 64*\r], zmm\r
    .endr
    jmp 6f
3:  .irp r, 0,1,2,3,4,5,6,7
    vmovups [eax + 256 + 64*\r], ymm\r
    .endr
    jmp 6f
2:  .irp r, 0,1,2,3,4,5,6,7
    movups [eax + 256 + 64*\r], xmm\r
    .endr
6:
    test ecx, ecx
    je 9f
    vzeroupper
9:  add esp, 12
    .cfi_adjust_cfa_offset -12
    pop edi
    .cfi_adjust_cfa_offset -4
    pop esi
    .cfi_adjust_cfa_offset -4
    pop ebp
    .cfi_adjust_cfa_offset -4
    pop ebx
    .cfi_adjust_cfa_offset -4
    ret
7:  mov edi, [esp + 36]     // the part that returns through a stub; its arguments lie 4 further
    mov ecx, [esp + 48]
    mov eax, [esp]
    mov [ecx], eax
    mov eax, [esp + 44]
    mov [esp], eax
    mov ecx, [esp + 52]
    cmp ecx, 1
    jb 2f
    je 3f
    cmp ecx, 2
    je 4f
    .irp r, 0,1,2,3,4,5,6,7
    kmovq k\r, [edi + 136 + 8*\r]
    .endr
    jmp 5f
4:  .irp r, 0,1,2,3,4,5,6,7
    kmovw k\r, [edi + 136 + 8*\r]
    .endr
5:  .irp r, 0,1,2,3,4,5,6,7
    vmovups zmm\r, [edi + 256 + 64*\r]
    .endr
    jmp 6f
3:  .irp r, 0,1,2,3,4,5,6,7
    vmovups ymm\r, [edi + 256 + 64*\r]
    .endr
    jmp 6f
2:  .irp r, 0,1,2,3,4,5,6,7
    movups xmm\r, [edi + 256 + 64*\r]
    .endr
6:
    cmp dword ptr [esp + 56], 1
    jb 8f
    je 9f
    fld qword ptr [edi + 128]
9:  fld qword ptr [edi + 120]
8:  mov eax, [edi]
    mov ebx, [edi + 8]
    mov ecx, [edi + 16]
    mov edx, [edi + 24]
    mov esi, [edi + 32]
    mov ebp, [edi + 48]
    mov edi, [edi + 40]
    ret
    .cfi_endproc
    .size fill_and_check, .-fill_and_check

// spoil(kind of vectors): changes what a native function may change.
    .type spoil,@function
spoil:
    .cfi_startproc
    .rept 8
    fld1
    .endr
    .rept 8
    fstp st(0)
    .endr
    .irp r, 0,1,2,3,4,5,6,7
    pxor xmm\r, xmm\r
    .endr
    cmp dword ptr [esp + 4], 1
    jb 2f
    vzeroall
    je 2f
    .irp r, 0,1,2,3,4,5,6,7
    kxorw k\r, k\r, k\r
    .endr
    .irp r, 0,1,2,3,4,5,6,7
    vpxord zmm\r, zmm\r, zmm\r
    .endr
2:  ret
    .cfi_endproc
    .size spoil, .-spoil
