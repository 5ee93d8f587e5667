// Calls of native code on the same stack.

// Defines \name(f, a, b) -> f(a, b), called by managed code. \kept names the macros that push and
// pop its frame, which begins \bytes below the CFA with the arguments of f.
    .macro stackmark_define_call_native name, kept, bytes
    .p2align 4
    .globl \name
    .hidden \name
    .type \name,@function
\name:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_native_personality
    mov eax, dword ptr [esp + 4]
    mov edx, dword ptr [esp + 8]
    mov ecx, dword ptr [esp + 12]

// The same with eax = f, edx = a, ecx = b: for a caller that has no room for arguments (barrier.s).
\name\()_by_registers:
    stackmark_push_\kept
    mov dword ptr [esp], edx
    mov dword ptr [esp + 4], ecx
    stackmark_got ecx
    stackmark_machine_by ebx, ecx
    mov ebx, dword ptr [ebx + {m_goroutine}]    // ebx = goroutine
    mov ecx, dword ptr [esp + \bytes - 4]
    mov dword ptr [ebx + {g_sched_pc}], ecx
    mov dword ptr [ebx + {g_sched_fp}], ebp
    lea ecx, [esp + \bytes]
    mov dword ptr [ebx + {g_sched_sp}], ecx     // last: now there is an anchor
    call eax
    .globl \name\()_returned
    .hidden \name\()_returned
\name\()_returned:
    mov dword ptr [ebx + {g_sched_sp}], 0
    lea ecx, [esp + \bytes]
    cmp dword ptr [ebx + {g_watch}], ecx
    jb 2f                                       // something armed is younger than the caller
    .cfi_remember_state
3:  stackmark_pop_\kept
    ret
    .cfi_restore_state
2:  sub esp, 160                                // room for four arguments, and what is kept
    .cfi_def_cfa_offset \bytes + 160
    mov dword ptr [esp + 16], eax               // whatever may carry a result
    mov dword ptr [esp + 20], edx
    movups xmmword ptr [esp + 32], xmm0
    fnstsw ax                                   // the top of the x87 stack is 0 if that is empty
    and eax, 0x3800
    mov dword ptr [esp + 24], eax
    je 4f
    fnsave [esp + 48]
4:  mov dword ptr [esp + 4], ecx
    mov ecx, dword ptr [esp + 160 + \bytes - 4]
    mov dword ptr [esp + 8], ecx
    mov dword ptr [esp + 12], ebp
    call stackmark_current
    mov dword ptr [esp], eax
    call dword ptr [eax + {m_on_watched}]
    cmp dword ptr [esp + 24], 0
    je 4f
    frstor [esp + 48]
4:  mov eax, dword ptr [esp + 16]
    mov edx, dword ptr [esp + 20]
    movups xmm0, xmmword ptr [esp + 32]
    add esp, 160
    .cfi_def_cfa_offset \bytes
    jmp 3b                                      // pc - 1 of the unwinder's last instructions

// The landing pad of \name: eax = exception, ebx = goroutine. Does what a return does, and goes on
// unwinding from this frame: an argument of _Unwind_Resume needs one.
    .globl \name\()_landing
    .hidden \name\()_landing
\name\()_landing:
    mov dword ptr [ebx + {g_sched_sp}], 0
    lea ecx, [esp + \bytes]
    cmp dword ptr [ebx + {g_watch}], ecx
    mov ebx, eax
    jae 4f
    sub esp, 16
    .cfi_def_cfa_offset \bytes + 16
    mov dword ptr [esp + 4], ecx
    mov ecx, dword ptr [esp + 16 + \bytes - 4]
    mov dword ptr [esp + 8], ecx
    mov dword ptr [esp + 12], ebp
    call stackmark_current
    mov dword ptr [esp], eax
    call dword ptr [eax + {m_on_watched}]
    add esp, 16
    .cfi_def_cfa_offset \bytes
4:  mov dword ptr [esp], ebx
    stackmark_got ecx
    call dword ptr [ecx + _Unwind_Resume@GOT]
    ud2
    .cfi_endproc
    .size \name, .-\name
    .endm

    .macro stackmark_push_one
    push ebx                                    // [return address][ebx]
    .cfi_def_cfa_offset 8
    .cfi_offset ebx, -8
    sub esp, 8                                  // ... [ebx][b][a]
    .cfi_def_cfa_offset 16
    .endm

    .macro stackmark_pop_one
    add esp, 8
    .cfi_def_cfa_offset 8
    pop ebx
    .cfi_def_cfa_offset 4
    .cfi_restore ebx
    .endm

    .macro stackmark_push_all
    stackmark_push_saved                        // [return address][ebp][ebx][esi][edi]
    sub esp, 12                                 // ... [edi][pad][b][a]
    .cfi_def_cfa_offset 32
    .endm

    .macro stackmark_pop_all
    add esp, 12
    .cfi_def_cfa_offset 20
    stackmark_pop_saved
    .endm

    .globl stackmark_call_native_begin
    .hidden stackmark_call_native_begin
stackmark_call_native_begin:
    stackmark_define_call_native stackmark_call_native, one, 16
    stackmark_define_call_native stackmark_call_native_all, all, 32
    .globl stackmark_call_native_end
    .hidden stackmark_call_native_end
stackmark_call_native_end:
