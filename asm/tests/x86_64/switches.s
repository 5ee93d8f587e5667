// Managed code without addresses of its own stack: a copy of the bytes moves its stack.

    .macro keep_registers
    push rbp
    .cfi_adjust_cfa_offset 8
    push rbx
    .cfi_adjust_cfa_offset 8
    push r12
    .cfi_adjust_cfa_offset 8
    push r13
    .cfi_adjust_cfa_offset 8
    push r14
    .cfi_adjust_cfa_offset 8
    push r15
    .cfi_adjust_cfa_offset 8
    sub rsp, 8
    .cfi_adjust_cfa_offset 8
    .endm
    .macro drop_registers
    add rsp, 8
    .cfi_adjust_cfa_offset -8
    pop r15
    .cfi_adjust_cfa_offset -8
    pop r14
    .cfi_adjust_cfa_offset -8
    pop r13
    .cfi_adjust_cfa_offset -8
    pop r12
    .cfi_adjust_cfa_offset -8
    pop rbx
    .cfi_adjust_cfa_offset -8
    pop rbp
    .cfi_adjust_cfa_offset -8
    .endm
// Keeps a value in every callee-saved register across a call out to \native.
    .macro managed name, native, bias
    .globl \name
    .type \name,@function
\name:
    .cfi_startproc
    keep_registers
    lea rbp, [rdi + 1 + \bias]
    lea rbx, [rdi + 2 + \bias]
    lea r12, [rdi + 3 + \bias]
    lea r13, [rdi + 4 + \bias]
    lea r14, [rdi + 5 + \bias]
    lea r15, [rdi + 6 + \bias]
    mov rsi, rdi
    mov rdx, rdi
    mov rdi, [rip + \native@GOTPCREL]
    call stackmark_call_system
    add rax, rbp
    add rax, rbx
    add rax, r12
    add rax, r13
    add rax, r14
    add rax, r15
    drop_registers
    ret
    .cfi_endproc
    .size \name, .-\name
    .endm

// managed_entry(rdi = goroutine, rsi = argument)
managed_entry:
    .cfi_startproc
    sub rsp, 8
    .cfi_adjust_cfa_offset 8
    mov rdi, rsi
    call managed_old
    add rsp, 8
    .cfi_adjust_cfa_offset -8
    ret
    .cfi_endproc

// managed_switcher(rdi = goroutine, rsi = n): switches out with n ... 1. Returns the sum of what it
// goes on with and of the kept registers.
managed_switcher:
    .cfi_startproc
    keep_registers
    sub rsp, 16
    .cfi_adjust_cfa_offset 16
    mov qword ptr [rsp], rsi
    mov qword ptr [rsp + 8], 0
1:  mov rdi, qword ptr [rsp]
    lea rbp, [rdi + 100]
    lea r15, [rdi + 200]
    call stackmark_switch_out
    add qword ptr [rsp + 8], rax
    add qword ptr [rsp + 8], rbp
    add qword ptr [rsp + 8], r15
    dec qword ptr [rsp]
    jnz 1b
    mov rax, qword ptr [rsp + 8]
    add rsp, 16
    .cfi_adjust_cfa_offset -16
    drop_registers
    ret
    .cfi_endproc

// The same from a callback: managed_switcher_back(rdi = n)
managed_switcher_back:
    mov rsi, rdi
    jmp managed_switcher

// managed_old(rdi = argument), and managed_young(rdi = argument) from a callback
    managed managed_old, native_old, 10
    managed managed_young, native_young, 20
