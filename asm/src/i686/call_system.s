// stackmark_call_system(f, a, b) -> f(a, b). Called by managed code.
    .p2align 4
    .globl stackmark_call_system
    .hidden stackmark_call_system
    .type stackmark_call_system,@function
stackmark_call_system:
    .cfi_startproc
    mov eax, dword ptr [esp + 4]
    mov edx, dword ptr [esp + 8]
    mov ecx, dword ptr [esp + 12]

// The same with eax = f, edx = a, ecx = b: for a caller that has no room for arguments (barrier.s).
call_system_by_registers:
    stackmark_push_saved                        // G: [return address][ebp][ebx][esi][edi]
    mov edi, eax                                // edi = f
    mov esi, ecx                                // esi = b
    stackmark_got eax
    stackmark_machine_by ebx, eax               // ebx = machine
    mov ecx, dword ptr [ebx + {m_system_sp}]    // 16-aligned
    mov dword ptr [ecx - 16], edx               // S: [depth][goroutine][b][a]
    mov dword ptr [ecx - 12], esi
    mov esi, dword ptr [ebx + {m_goroutine}]    // esi = goroutine
    mov dword ptr [ecx - 8], esi
    lea eax, [eax + stackmark_system_call_resume@GOTOFF]
    mov dword ptr [esi + {g_sched_pc}], eax
    mov dword ptr [esi + {g_sched_sp}], esp
    mov dword ptr [esi + {g_sched_fp}], ebp
    mov eax, dword ptr [esi + {g_stack_hi}]
    sub eax, esp
    mov dword ptr [ecx - 4], eax
    lea esp, [ecx - 16]                         // on the system stack from here
    stackmark_cfa_by_depth 8, 20
    .cfi_endproc                                // goes on at __morestack, which comes next
    .size stackmark_call_system, .-stackmark_call_system
