// __morestack begins: what runs after a switch of stacks. Its three FDEs are this file and the two
// that follow; they lie side by side under one symbol.
    .type __morestack,@function
__morestack:

// call_system, on S: edi = f, its arguments at esp, ebx = machine, esi = goroutine
    .cfi_startproc
    stackmark_cfa_by_depth 8, 20
    stackmark_saved_at_cfa
    call edi
    .globl stackmark_system_call_returned
    .hidden stackmark_system_call_returned
stackmark_system_call_returned:                 // the pc of this part while native code runs
    // Native code may have left younger calls by longjmp, with another system_sp. The registers it
    // keeps even then.
    lea ecx, [esp + 16]
    mov dword ptr [ebx + {m_system_sp}], ecx
    mov ecx, dword ptr [esi + {g_stack_hi}]
    sub ecx, dword ptr [esp + 12]               // from depth to address
    mov esp, ecx                                // on the goroutine stack from here
    .cfi_def_cfa esp, 20
    stackmark_pop_saved
    ret
    .globl stackmark_system_call_begin
    .hidden stackmark_system_call_begin
stackmark_system_call_begin:
    .cfi_def_cfa esp, 20
    stackmark_saved_at_cfa
    nop                                         // pc - 1 of a walk, after a call out
    stackmark_before_switch_in
    .globl stackmark_system_call_resume
    .hidden stackmark_system_call_resume
stackmark_system_call_resume:                   // = g.sched.pc
    mov esp, dword ptr [edx + {g_sched_sp}]     // on the goroutine stack from here
    .cfi_def_cfa_offset 20
    .cfi_offset eip, -4
    stackmark_saved_at_cfa
    stackmark_pop_saved
    pop ecx
    .cfi_def_cfa_offset 0
    .cfi_register eip, ecx
    jmp ecx
    // No rule says that ebx, esi and edi are lost: such rules cannot be packed, and the caller
    // keeps nothing in these registers.
    .cfi_def_cfa esp, 8
    .cfi_offset eip, -4
    .cfi_offset ebp, -8
    nop                                         // pc - 1 of a walk, after switch_out
    .p2align 4
    stackmark_before_switch_in
stackmark_switch_out_resume:                    // = g.sched.pc
    mov esp, dword ptr [edx + {g_sched_sp}]     // on the goroutine stack from here
    .cfi_def_cfa_offset 8
    .cfi_offset eip, -4
    .cfi_offset ebp, -8
    pop ebp
    .cfi_def_cfa_offset 4
    .cfi_restore ebp
    ret
    .globl stackmark_system_call_end
    .hidden stackmark_system_call_end
stackmark_system_call_end:
    .cfi_endproc
