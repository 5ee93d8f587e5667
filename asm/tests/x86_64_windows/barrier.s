// hijack(rcx = f, rdx = argument, r8 = word for the return slot, r9 = where to save the old word)
// -> f(argument)
    .seh_proc hijack
hijack:
    push rbx                                    // [return address][rbx]
    .seh_pushreg rbx
    push rsi                                    // ... [rbx][rsi]
    .seh_pushreg rsi
    push rdi                                    // ... [rsi][rdi]
    .seh_pushreg rdi
    sub rsp, 32                                 // ... [rdi][shadow space]
    .seh_stackalloc 32
    .seh_endprologue
    mov rsi, rcx
    mov rdi, rdx
    mov rbx, r8
    mov rdx, qword ptr [rsp + 56]
    mov qword ptr [r9], rdx
    mov rcx, r8
    lea r8, [rsp + 64]
    call describe
    mov qword ptr [rsp + 56], rbx
    mov rcx, rdi
    call rsi
    add rsp, 32
    pop rdi
    pop rsi
    pop rbx
    ret
    .seh_endproc

// fill_and_check_all(rdi = patterns in, rsi = patterns out, rdx = hijacked word, rcx = where to
// save the return address, r8 = kind of vectors, r9 = how many x87 registers). A part of it fills
// every register and returns through its hijacked slot; then all are stored. Offsets of the
// patterns: integer registers from 0, st0 120, st1 128, masks from 136, vectors from 256, 64 bytes
// each.
fill_and_check_all:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    sub rsp, 40
    mov [rsp], rsi
    mov [rsp + 8], r8
    mov [rsp + 24], r9
    call 7f
    mov [rsp + 16], rax
    mov rax, [rsp]
    mov [rax + 8], rbx
    mov [rax + 16], rcx
    mov [rax + 24], rdx
    mov [rax + 32], rsi
    mov [rax + 40], rdi
    mov [rax + 48], rbp
    mov [rax + 56], r8
    mov [rax + 64], r9
    mov [rax + 72], r10
    mov [rax + 80], r11
    mov [rax + 88], r12
    mov [rax + 96], r13
    mov [rax + 104], r14
    mov [rax + 112], r15
    mov rcx, [rsp + 16]
    mov [rax], rcx
    cmp qword ptr [rsp + 24], 1
    jb 8f
    fstp qword ptr [rax + 120]
    je 8f
    fstp qword ptr [rax + 128]
8:  mov r8, [rsp + 8]
    cmp r8, 1
    jb 2f
    je 3f
    cmp r8, 2
    je 4f
    .irp r, 0,1,2,3,4,5,6,7
    kmovq [rax + 136 + 8*\r], k\r
    .endr
    jmp 5f
4:  .irp r, 0,1,2,3,4,5,6,7
    kmovw [rax + 136 + 8*\r], k\r
    .endr
5:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovups [rax + 256 + 64*\r], zmm\r
    .endr
    jmp 6f
3:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovups [rax + 256 + 64*\r], ymm\r
    .endr
    jmp 6f
2:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movups [rax + 256 + 64*\r], xmm\r
    .endr
6:
    test r8, r8
    je 9f
    vzeroupper
9:  add rsp, 40
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
7:  mov rax, [rsp]          // the part that returns through a stub
    mov [rcx], rax
    mov [rsp], rdx
    cmp r8, 1
    jb 2f
    je 3f
    cmp r8, 2
    je 4f
    .irp r, 0,1,2,3,4,5,6,7
    kmovq k\r, [rdi + 136 + 8*\r]
    .endr
    jmp 5f
4:  .irp r, 0,1,2,3,4,5,6,7
    kmovw k\r, [rdi + 136 + 8*\r]
    .endr
5:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovups zmm\r, [rdi + 256 + 64*\r]
    .endr
    jmp 6f
3:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovups ymm\r, [rdi + 256 + 64*\r]
    .endr
    jmp 6f
2:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movups xmm\r, [rdi + 256 + 64*\r]
    .endr
6:
    cmp r9, 1
    jb 8f
    je 9f
    fld qword ptr [rdi + 128]
9:  fld qword ptr [rdi + 120]
8:  mov rax, [rdi]
    mov rbx, [rdi + 8]
    mov rcx, [rdi + 16]
    mov rdx, [rdi + 24]
    mov rsi, [rdi + 32]
    mov rbp, [rdi + 48]
    mov r8, [rdi + 56]
    mov r9, [rdi + 64]
    mov r10, [rdi + 72]
    mov r11, [rdi + 80]
    mov r12, [rdi + 88]
    mov r13, [rdi + 96]
    mov r14, [rdi + 104]
    mov r15, [rdi + 112]
    mov rdi, [rdi + 40]
    ret

// The same with the platform's convention: fill_and_check(rcx, rdx, r8, r9, [rsp + 40],
// [rsp + 48]).
    .seh_proc fill_and_check
fill_and_check:
    push rdi                                    // [return address][rdi]
    .seh_pushreg rdi
    push rsi                                    // ... [rdi][rsi]
    .seh_pushreg rsi
    sub rsp, 168                                // ... [rsi][vectors]
    .seh_stackalloc 168
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movaps xmmword ptr [rsp + 16 * (\i - 6)], xmm\i
    .seh_savexmm xmm\i, 16 * (\i - 6)
    .endr
    .seh_endprologue
    mov rdi, rcx
    mov rsi, rdx
    mov rdx, r8
    mov rcx, r9
    mov r8, qword ptr [rsp + 224]
    mov r9, qword ptr [rsp + 232]
    call fill_and_check_all
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movaps xmm\i, xmmword ptr [rsp + 16 * (\i - 6)]
    .endr
    add rsp, 168
    pop rsi
    pop rdi
    ret
    .seh_endproc

// spoil(rcx = kind of vectors): changes what a native function may change.
spoil:
    .rept 8
    fld1
    .endr
    .rept 8
    fstp st(0)
    .endr
    .irp r, 0,1,2,3,4,5
    pxor xmm\r, xmm\r
    .endr
    cmp rcx, 1
    jb 2f
    vzeroupper
    je 2f
    .irp r, 0,1,2,3,4,5,6,7
    kxorw k\r, k\r, k\r
    .endr
    .irp r, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vpxord zmm\r, zmm\r, zmm\r
    .endr
2:  ret
