// stackmark_enter_managed(goroutine, f, argument) -> f(argument), on this stack. Called by native
// code.
    .p2align 4
    .globl stackmark_enter_managed
    .hidden stackmark_enter_managed
    .type stackmark_enter_managed,@function
    .globl stackmark_enter_begin
    .hidden stackmark_enter_begin
stackmark_enter_begin:
stackmark_enter_managed:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_enter_personality
    stackmark_push_saved                        // [return address][ebp][ebx][esi][edi]
    mov eax, dword ptr [esp + 20]               // eax = goroutine
    mov ecx, dword ptr [esp + 24]               // ecx = f
    mov edx, dword ptr [esp + 28]
    push dword ptr [eax + {g_entered}]          // ... [edi][previous record]
    .cfi_def_cfa_offset 24
    push dword ptr [eax + {g_sched_fp}]         // ... [previous record][anchor fp]
    .cfi_def_cfa_offset 28
    push dword ptr [eax + {g_sched_sp}]         // ... [anchor fp][anchor sp]
    .cfi_def_cfa_offset 32
    push dword ptr [eax + {g_sched_pc}]         // ... [anchor sp][anchor pc]
    .cfi_def_cfa_offset 36
    push eax                                    // ... [anchor pc][goroutine]
    .cfi_def_cfa_offset 40
    mov dword ptr [eax + {g_sched_sp}], 0       // no anchor while managed code runs
    mov dword ptr [eax + {g_entered}], esp
    push 0                                      // ... [goroutine][pad]
    .cfi_def_cfa_offset 44
    push edx                                    // ... [pad][argument]
    .cfi_def_cfa_offset 48
    call ecx
    .globl stackmark_enter_returned
    .hidden stackmark_enter_returned
stackmark_enter_returned:
    stackmark_leave_managed
    stackmark_pop_saved
    ret

// The landing pad of enter_managed: eax = exception. Does what a return does, and goes on unwinding
// as if the native caller had called _Unwind_Resume itself.
    .cfi_def_cfa_offset 48
    stackmark_saved_at_cfa
    nop                                         // pc - 1 of the unwinder's last instructions
    .globl stackmark_enter_landing
    .hidden stackmark_enter_landing
stackmark_enter_landing:
    stackmark_leave_managed
    mov dword ptr [esp + 20], eax
    stackmark_pop_saved
    stackmark_resume_unwinding
    .cfi_endproc
    .size stackmark_enter_managed, .-stackmark_enter_managed
    .globl stackmark_enter_end
    .hidden stackmark_enter_end
stackmark_enter_end:
