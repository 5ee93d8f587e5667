// Managed code without addresses of its own stack: a copy of the bytes moves its stack.

    .macro keep_registers
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
    .endm
    .macro drop_registers
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movaps xmm\i, xmmword ptr [rsp + 32 + 16 * (\i - 6)]
    .endr
    add rsp, 200
    .irp register, r15, r14, r13, r12, rsi, rdi, rbx, rbp
    pop \register
    .endr
    .endm
// Fills every callee-saved register with its number and the sum of \n and \bias.
    .macro fill_registers n, bias
    .set number, 9
    .irp i, 6,7,8,9,10,11,12,13,14,15
    lea rax, [\n + number + \bias]
    movq xmm\i, rax
    .set number, number + 1
    .endr
    .set number, 1
    .irp register, rbp, rbx, rdi, rsi, r12, r13, r14, r15
    lea \register, [\n + number + \bias]
    .set number, number + 1
    .endr
    .endm
// Adds them to rax.
    .macro add_registers
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movq rcx, xmm\i
    add rax, rcx
    .endr
    .irp register, rbp, rbx, rdi, rsi, r12, r13, r14, r15
    add rax, \register
    .endr
    .endm
// Keeps a value in every callee-saved register across a call out to \native.
    .macro managed name, native, bias
    .globl \name
    .seh_proc \name
\name:
    keep_registers
    fill_registers rcx, \bias
    mov rdx, rcx
    mov r8, rcx
    lea rcx, [rip + \native]
    call stackmark_call_system
    add_registers
    drop_registers
    ret
    .seh_endproc
    .endm

// managed_entry(rcx = goroutine, rdx = argument)
    .globl managed_entry
    .seh_proc managed_entry
managed_entry:
    sub rsp, 40
    .seh_stackalloc 40
    .seh_endprologue
    mov rcx, rdx
    call managed_old
    add rsp, 40
    ret
    .seh_endproc

// managed_switcher(rcx = goroutine, rdx = n): switches out with n ... 1. Returns the sum of what it
// goes on with and of two kept registers, and 1 << 32 for each that has lost its value.
    .globl managed_switcher
    .seh_proc managed_switcher
managed_switcher:
    keep_registers
    mov qword ptr [rsp + 16], rdx               // in the shadow space, which no callee here uses
    mov qword ptr [rsp + 24], 0
1:  mov rcx, qword ptr [rsp + 16]
    fill_registers rcx, 99
    lea r15, [rcx + 200]
    call stackmark_switch_out
    add qword ptr [rsp + 24], rax
    add qword ptr [rsp + 24], rbp
    add qword ptr [rsp + 24], r15
    // The sum of all is 18 * (n + 99), of the numbers to 18, and what r15 has more.
    xor eax, eax
    add_registers
    mov rcx, qword ptr [rsp + 16]
    imul rcx, rcx, 18
    lea rcx, [rcx + 18 * 99 + 171 + 200 - 99 - 8]
    sub rax, rcx
    shl rax, 32
    add qword ptr [rsp + 24], rax
    dec qword ptr [rsp + 16]
    jnz 1b
    mov rax, qword ptr [rsp + 24]
    drop_registers
    ret
    .seh_endproc

// The same from a callback: managed_switcher_back(rcx = n)
    .globl managed_switcher_back
managed_switcher_back:
    mov rdx, rcx
    jmp managed_switcher

// managed_old(rcx = argument), and managed_young(rcx = argument) from a callback
    managed managed_old, native_old, 10
    managed managed_young, native_young, 20
