// lands(rcx = landing pad): called by a frame of the assembly. Goes on at the pad in that frame, as
// an unwinder does, with single steps from there on.
    .globl lands
    .seh_proc lands
lands:
    push rbx                                    // [return address][rbx]
    .seh_pushreg rbx
    sub rsp, 32                                 // ... [rbx][shadow space]
    .seh_stackalloc 32
    .seh_endprologue
    mov rbx, rcx
    call caught_exception
    mov rcx, rbx
    add rsp, 32
    pop rbx
    add rsp, 8
    pushfq
    or qword ptr [rsp], 0x100
    popfq
    jmp rcx
    .seh_endproc

// lands_in_entry(rcx, rdx = landing pad)
    .globl lands_in_entry
lands_in_entry:
    mov rcx, rdx
    jmp lands

// managed_continues(rcx = native function): calls it by stackmark_call_system with the address of
// the pc and the stack pointer to go on with. Returns the sum of what the two registers for
// exceptions and all callee-saved ones hold there.
//   +232  r15 ... rbp    +64  xmm6 ... xmm15    +40  sp    +32  pc    +0  shadow space <- rsp
    .globl managed_continues
    .seh_proc managed_continues
managed_continues:
    .irp register, rbp, rbx, rdi, rsi, r12, r13, r14, r15
    push \register
    .seh_pushreg \register
    .endr
    sub rsp, 232
    .seh_stackalloc 232
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movaps xmmword ptr [rsp + 64 + 16 * (\i - 6)], xmm\i
    .seh_savexmm xmm\i, 64 + 16 * (\i - 6)
    .endr
    .seh_endprologue
    lea rax, [rip + 1f]
    mov qword ptr [rsp + 32], rax
    mov qword ptr [rsp + 40], rsp
    lea rdx, [rsp + 32]
    call stackmark_call_system
    ud2
1:  add rax, rdx
    .irp register, rbp, rbx, rdi, rsi, r12, r13, r14, r15
    add rax, \register
    .endr
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movq rcx, xmm\i
    add rax, rcx
    movhlps xmm0, xmm\i
    movq rcx, xmm0
    add rax, rcx
    movaps xmm\i, xmmword ptr [rsp + 64 + 16 * (\i - 6)]
    .endr
    add rsp, 232
    .irp register, r15, r14, r13, r12, rsi, rdi, rbx, rbp
    pop \register
    .endr
    ret
    .seh_endproc

// patterned(rcx = f, rdx = argument) -> f(argument), with a number in every callee-saved register.
    .globl patterned
    .seh_proc patterned
patterned:
    .irp register, rbp, rbx, rdi, rsi, r12, r13, r14, r15
    push \register
    .seh_pushreg \register
    .endr
    sub rsp, 200
    .seh_stackalloc 200
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movaps xmmword ptr [rsp + 32 + 16 * (\i - 6)], xmm\i
    .seh_savexmm xmm\i, 32 + 16 * (\i - 6)
    .endr
    .seh_endprologue
    .irp i, 6,7,8,9,10,11,12,13,14,15
    mov eax, 1000 + \i
    movq xmm\i, rax
    movlhps xmm\i, xmm\i
    .endr
    .set number, 2000
    .irp register, rbp, rbx, rdi, rsi, r12, r13, r14, r15
    mov \register, number
    .set number, number + 1
    .endr
    mov rax, rcx
    mov rcx, rdx
    call rax
    .globl patterned_returned
patterned_returned:
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movaps xmm\i, xmmword ptr [rsp + 32 + 16 * (\i - 6)]
    .endr
    add rsp, 200
    .irp register, r15, r14, r13, r12, rsi, rdi, rbx, rbp
    pop \register
    .endr
    ret
    .seh_endproc
