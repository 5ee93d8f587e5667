// Every stub calls barrier_common. The ret of the frame that was left has popped the slot, and the
// stub's call has filled it again with stub + 6. So the slot still names the stub, and the pool's
// CFI still finds the saved return address. (A ret that pops arguments, too, leaves the words below
// the stack pointer to the stub just the same.)
//
// A stub is its own landing pad, too: the word that the slot held. The unwinder's last instructions
// have the pad for their caller and look up pc - 1 there, with no register but esp. The pool's CFI
// needs no other. The exception comes in the machine.
    .type barrier_common,@function
barrier_common:
    .cfi_startproc
    push eax                                    // G: [slot][eax]
    .cfi_def_cfa_offset 8
    push ecx                                    // G: ... [eax][ecx]
    .cfi_def_cfa_offset 12
    stackmark_got eax                           // eax = the global offset table
    stackmark_machine_by ecx, eax
    cmp dword ptr [ecx + {m_passing}], 0
    jne 2f
    push edx                                    // G: ... [ecx][edx]
    .cfi_def_cfa_offset 16
    push ebx                                    // G: ... [edx][ebx]
    .cfi_def_cfa_offset 20
    .cfi_offset ebx, -20
    push esi                                    // G: ... [ebx][esi]
    .cfi_def_cfa_offset 24
    .cfi_offset esi, -24
    push edi                                    // G: ... [esi][edi]
    .cfi_def_cfa_offset 28
    .cfi_offset edi, -28
    mov ebx, ecx                                // ebx = machine
    mov esi, dword ptr [ebx + {m_goroutine}]
    lea edi, [esp + 24]                         // the slot
    mov ecx, dword ptr [esi + {g_stack_hi}]
    sub ecx, esp                                // depth
    mov edx, dword ptr [ebx + {m_system_sp}]
    cmp dword ptr [esi + {g_entered}], 0
    cmovne edx, esp                             // a native stack is its own system stack
    sub edx, dword ptr [eax + stackmark_vector_size@GOTOFF]
    sub edx, 64
    and edx, -64
    // Before the first store there: on a native stack it is below the stack pointer, where signal
    // handlers run.
    .cfi_def_cfa edi, 4
    mov esp, edx                                // on the system stack from here
    mov dword ptr [esp + 16], esi               // S: [registers][depth][goroutine][arguments]
    mov dword ptr [esp + 20], ecx
    stackmark_cfa_by_depth 16, 28
    jmp barrier_on_system

// eax = the global offset table, ecx = machine. The exception's registers are free; those that the
// frame returned to keeps are as it has left them. Writes the saved return address into the slot,
// and goes on as if that frame had called stackmark_call_system itself, or stackmark_call_native.
    .cfi_def_cfa esp, 12
    .cfi_restore ebx
    .cfi_restore esi
    .cfi_restore edi
2:  mov edx, dword ptr [ecx + {m_passing}]
    mov dword ptr [ecx + {m_passing}], 0
    mov dword ptr [esp + 4], edx                // G: [slot][exception][g.entered]
    mov ecx, dword ptr [ecx + {m_goroutine}]
    mov ecx, dword ptr [ecx + {g_entered}]
    mov dword ptr [esp], ecx
    mov ecx, dword ptr [esp + 8]                // the slot: stub + 6
    lea edx, [eax + stackmark_barrier_pool@GOTOFF]
    sub ecx, 6
    sub ecx, edx                                // ecx = where its word is in the table
    lea edx, [eax + stackmark_barrier_table@GOTOFF]
    mov edx, dword ptr [edx + ecx]
    mov dword ptr [esp + 8], edx                // G: [slot = saved return address] ...
    shr ecx, 3                                  // ecx = index of the stub
    mov eax, dword ptr [eax + stackmark_barrier_resume@GOT]
    mov edx, dword ptr [esp + 4]
    cmp dword ptr [esp], 0
    lea esp, [esp + 8]
    .cfi_def_cfa_offset 4
    jne stackmark_call_native_by_registers
    jmp call_system_by_registers
    .cfi_endproc
    .size barrier_common, .-barrier_common
