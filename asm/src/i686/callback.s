// stackmark_callback(goroutine, f, argument) -> f(argument). Called by native code.
    .globl stackmark_callback
    .hidden stackmark_callback
    .type stackmark_callback,@function
stackmark_callback:
    .cfi_startproc
    stackmark_push_saved                        // S: [return address][ebp][ebx][esi][edi]
    sub esp, 8
    .cfi_def_cfa_offset 28
    stackmark_got eax
    stackmark_machine_by ebx, eax
    push dword ptr [ebx + {m_system_sp}]        // S: ... [pad][pad][old system_sp]
    .cfi_def_cfa_offset 32
    mov dword ptr [ebx + {m_system_sp}], esp    // calls out of the callback run below this frame
    mov edx, dword ptr [esp + 32]               // edx = goroutine
    mov edi, dword ptr [esp + 36]               // edi = f
    mov esi, dword ptr [esp + 40]
    mov ecx, dword ptr [edx + {g_sched_sp}]
    mov eax, dword ptr [edx + {g_sched_pc}]
    mov ebp, dword ptr [edx + {g_sched_fp}]     // the chain of frame pointers leads to the caller
    mov dword ptr [ecx - 4], eax                // G: [sched.pc][pads][goroutine][S][argument]
    mov dword ptr [ecx - 20], edx
    mov dword ptr [ecx - 24], esp
    mov dword ptr [ecx - 28], esi
    inc dword ptr [edx + {g_callback_depth}]
    lea esp, [ecx - 28]                         // on the goroutine stack from here
    stackmark_cfa_of_callback
    jmp callback_on_goroutine
    .cfi_endproc
    .size stackmark_callback, .-stackmark_callback

// stackmark_leave_callback_by(f, argument, callback's part on G). Does what a return from that
// callback does, and calls f(argument) as if its native caller had. Younger frames are dropped.
    .globl stackmark_leave_callback_by
    .hidden stackmark_leave_callback_by
    .type stackmark_leave_callback_by,@function
stackmark_leave_callback_by:
    .cfi_startproc
    mov eax, dword ptr [esp + 4]
    mov ecx, dword ptr [esp + 8]
    mov edx, dword ptr [esp + 12]
    mov esp, edx                                // on the goroutine stack from here
    stackmark_cfa_of_callback
    stackmark_saved_at_cfa
    mov esi, ecx
    stackmark_leave_callback
    mov dword ptr [esp + 20], esi               // the argument of f
    stackmark_pop_saved
    jmp eax
    .cfi_endproc
    .size stackmark_leave_callback_by, .-stackmark_leave_callback_by
