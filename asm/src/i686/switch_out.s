// Leaving a goroutine for the scheduler: with a call from managed code, or for good from S.

// stackmark_switch_out(value) -> the value that the goroutine goes on with. Called by managed code;
// run returns the value. In a callback, whose native caller keeps its thread, the call returns the
// value itself. Keeps esp and ebp, and no other register.
    .p2align 4
    .globl stackmark_switch_out
    .hidden stackmark_switch_out
    .type stackmark_switch_out,@function
stackmark_switch_out:
    .cfi_startproc
    .cfi_undefined ebx
    .cfi_undefined esi
    .cfi_undefined edi
    stackmark_got eax
    stackmark_machine_by ecx, eax               // ecx = machine
    mov edx, dword ptr [ecx + {m_goroutine}]    // edx = goroutine
    cmp dword ptr [edx + {g_callback_depth}], 0
    jne 2f
    push ebp                                    // G: [return address][ebp]
    .cfi_def_cfa_offset 8
    .cfi_offset ebp, -8
    lea eax, [eax + stackmark_switch_out_resume@GOTOFF]
    mov dword ptr [edx + {g_sched_pc}], eax
    mov dword ptr [edx + {g_sched_sp}], esp
    mov dword ptr [edx + {g_sched_fp}], ebp
    mov eax, dword ptr [esp + 8]
    mov edx, dword ptr [ecx + {m_run_pc}]
    mov ebp, dword ptr [ecx + {m_run_fp}]
    mov esi, dword ptr [ecx + {m_run_saved}]
    mov esp, dword ptr [ecx + {m_system_sp}]    // on the system stack from here
    .cfi_def_cfa esp, 0
    .cfi_register eip, edx
    .cfi_same_value ebp
    .cfi_same_value esi
    mov dword ptr [ecx + {m_goroutine}], 0
    jmp edx
    .cfi_def_cfa esp, 4
    .cfi_offset eip, -4
    .cfi_undefined esi
2:  mov eax, dword ptr [esp + 4]
    ret
    .cfi_endproc
    .size stackmark_switch_out, .-stackmark_switch_out

// stackmark_leave(machine, value), on S, for a goroutine that no longer runs. The frames between
// here and run are dropped.
    .globl stackmark_leave
    .hidden stackmark_leave
    .type stackmark_leave,@function
stackmark_leave:
    .cfi_startproc
    push ebx                                    // S: [return address][ebx]
    .cfi_def_cfa_offset 8
    .cfi_offset ebx, -8
    push edi                                    // S: ... [ebx][edi]
    .cfi_def_cfa_offset 12
    .cfi_offset edi, -12
    mov ecx, dword ptr [esp + 12]               // ecx = machine
    mov eax, dword ptr [esp + 16]
    mov edx, dword ptr [ecx + {m_run_pc}]
    mov ebx, dword ptr [ecx + {m_run_fp}]
    mov edi, dword ptr [ecx + {m_run_saved}]
    mov esp, dword ptr [ecx + {m_system_sp}]    // the stack pointer of run
    .cfi_def_cfa esp, 0
    .cfi_register eip, edx
    .cfi_register ebp, ebx
    .cfi_register esi, edi
    .cfi_undefined ebx
    .cfi_undefined edi
    mov dword ptr [ecx + {m_goroutine}], 0
    mov ebp, ebx
    mov esi, edi
    jmp edx
    .cfi_endproc
    .size stackmark_leave, .-stackmark_leave
