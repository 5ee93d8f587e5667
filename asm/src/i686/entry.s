// The oldest frame. A new goroutine begins at stackmark_goroutine_entry, with esi = goroutine and
// esp 16-aligned, below 16 bytes for arguments.
    .globl stackmark_entry_begin
    .hidden stackmark_entry_begin
    .type goroutine_entry,@function
goroutine_entry:
stackmark_entry_begin:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_entry_personality
    .cfi_undefined eip
    .cfi_def_cfa esp, 16
    nop                                         // pc - 1 of a walk over a new goroutine
    .globl stackmark_goroutine_entry
    .hidden stackmark_goroutine_entry
stackmark_goroutine_entry:
    mov eax, dword ptr [esi + {g_start_arg}]
    mov dword ptr [esi + {g_start_arg}], 0
    mov dword ptr [esp], esi                    // G: [pad][pad][start_arg][goroutine]
    mov dword ptr [esp + 4], eax
    call dword ptr [esi + {g_entry}]
    mov ecx, dword ptr [esi + {g_on_exit}]
    mov dword ptr [esp], ecx                    // G: [pad][result][goroutine][on_exit]
    mov dword ptr [esp + 4], esi
    mov dword ptr [esp + 8], eax
    call stackmark_call_system
    ud2                                         // on_exit leaves to the scheduler

// The landing pad of goroutine_entry: eax = exception
    .globl stackmark_entry_landing
    .hidden stackmark_entry_landing
stackmark_entry_landing:
    mov dword ptr [esp + 4], eax
    call stackmark_current
    mov eax, dword ptr [eax + {m_goroutine}]
    mov dword ptr [esp + 8], eax
    mov eax, dword ptr [eax + {g_on_uncaught}]
    mov dword ptr [esp], eax
    call stackmark_call_system
    ud2                                         // on_uncaught does not return
    .globl stackmark_entry_end
    .hidden stackmark_entry_end
stackmark_entry_end:
    .cfi_endproc
    .size goroutine_entry, .-goroutine_entry
