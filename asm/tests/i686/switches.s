// Managed code without addresses of its own stack: a copy of the bytes moves its stack.

    .macro keep_registers
    push ebp
    .cfi_adjust_cfa_offset 4
    push ebx
    .cfi_adjust_cfa_offset 4
    push esi
    .cfi_adjust_cfa_offset 4
    push edi
    .cfi_adjust_cfa_offset 4
    sub esp, 12
    .cfi_adjust_cfa_offset 12
    .endm
    .macro drop_registers
    add esp, 12
    .cfi_adjust_cfa_offset -12
    pop edi
    .cfi_adjust_cfa_offset -4
    pop esi
    .cfi_adjust_cfa_offset -4
    pop ebx
    .cfi_adjust_cfa_offset -4
    pop ebp
    .cfi_adjust_cfa_offset -4
    .endm
// Keeps a value in every callee-saved register across a call out to \native.
    .macro managed name, native, bias
    .globl \name
    .type \name,@function
\name:
    .cfi_startproc
    keep_registers
    mov ecx, [esp + 32]
    call stackmark_here_eax
    add eax, offset _GLOBAL_OFFSET_TABLE_
    mov eax, [eax + \native@GOT]
    mov [esp], eax
    mov [esp + 4], ecx
    mov [esp + 8], ecx
    lea ebp, [ecx + 1 + \bias]
    lea ebx, [ecx + 2 + \bias]
    lea esi, [ecx + 3 + \bias]
    lea edi, [ecx + 4 + \bias]
    call stackmark_call_system
    add eax, ebp
    add eax, ebx
    add eax, esi
    add eax, edi
    drop_registers
    ret
    .cfi_endproc
    .size \name, .-\name
    .endm

// managed_entry(goroutine, argument)
managed_entry:
    .cfi_startproc
    sub esp, 12
    .cfi_adjust_cfa_offset 12
    mov eax, [esp + 20]
    mov [esp], eax
    call managed_old
    add esp, 12
    .cfi_adjust_cfa_offset -12
    ret
    .cfi_endproc

// managed_switcher(goroutine, n): switches out with n ... 1. Returns the sum of what it goes on
// with, of the one kept register, ebp, and of a word of the stack.
managed_switcher:
    .cfi_startproc
    keep_registers
    sub esp, 16
    .cfi_adjust_cfa_offset 16
    mov eax, [esp + 52]
2:  mov dword ptr [esp + 8], 0
    mov [esp + 4], eax
1:  mov eax, [esp + 4]
    lea ebp, [eax + 100]
    lea ecx, [eax + 200]
    mov [esp + 12], ecx
    mov [esp], eax
    call stackmark_switch_out
    add [esp + 8], eax
    add [esp + 8], ebp
    mov eax, [esp + 12]
    add [esp + 8], eax
    dec dword ptr [esp + 4]
    jnz 1b
    mov eax, [esp + 8]
    add esp, 16
    .cfi_adjust_cfa_offset -16
    drop_registers
    ret
    .cfi_endproc

// The same from a callback: managed_switcher_back(n)
managed_switcher_back:
    .cfi_startproc
    sub esp, 12
    .cfi_adjust_cfa_offset 12
    mov eax, [esp + 16]
    mov [esp + 4], eax
    call managed_switcher
    add esp, 12
    .cfi_adjust_cfa_offset -12
    ret
    .cfi_endproc

// managed_old(argument), and managed_young(argument) from a callback
    managed managed_old, native_old, 10
    managed managed_young, native_young, 20
