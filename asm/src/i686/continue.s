// Going on in a managed frame whose callees are dropped.

// Says that a Continuation lies at ecx, by DW_OP_breg1. The CFA is its sp; each register of the
// caller is in its word.
    .macro stackmark_continuation_at_ecx
    .cfi_escape 0x0f, 3, 0x71, {c_sp}, 0x06
    .cfi_escape 0x10, 8, 2, 0x71, {c_pc}
    .cfi_escape 0x10, 5, 2, 0x71, {c_ebp}
    .cfi_escape 0x10, 3, 2, 0x71, {c_ebx}
    .cfi_escape 0x10, 6, 2, 0x71, {c_esi}
    .cfi_escape 0x10, 7, 2, 0x71, {c_edi}
    .endm

// stackmark_continue(Continuation), on S
    .globl stackmark_continue
    .hidden stackmark_continue
    .type stackmark_continue,@function
stackmark_continue:
    .cfi_startproc
    mov ecx, dword ptr [esp + 4]
    stackmark_continuation_at_ecx
    // The pc waits in the word below the frame's stack pointer, where the return address of its
    // last call was: no register is left for it. On a native stack the Continuation is below that
    // stack pointer, and may be overwritten once esp is there.
    mov edx, dword ptr [ecx + {c_sp}]
    mov eax, dword ptr [ecx + {c_pc}]
    mov dword ptr [edx - 4], eax
    mov ebp, dword ptr [ecx + {c_ebp}]
    mov ebx, dword ptr [ecx + {c_ebx}]
    mov esi, dword ptr [ecx + {c_esi}]
    mov edi, dword ptr [ecx + {c_edi}]
    mov eax, dword ptr [ecx + {c_eax}]
    mov edx, dword ptr [ecx + {c_edx}]
    mov ecx, dword ptr [ecx + {c_sp}]
    .cfi_def_cfa ecx, 0
    .cfi_offset eip, -4
    .irp register, ebp, ebx, esi, edi
    .cfi_same_value \register
    .endr
    lea esp, [ecx - 4]                          // on the goroutine stack from here
    .cfi_def_cfa esp, 4
    pop ecx
    .cfi_def_cfa_offset 0
    .cfi_register eip, ecx
    jmp ecx
    .cfi_endproc
    .size stackmark_continue, .-stackmark_continue
