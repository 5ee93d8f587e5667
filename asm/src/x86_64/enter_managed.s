// stackmark_enter_managed(rdi = goroutine, rsi = f, rdx = argument) -> f(argument), on this stack.
// Called by native code.
    .p2align 6
    .globl stackmark_enter_managed
    .hidden stackmark_enter_managed
    .type stackmark_enter_managed,@function
    .globl stackmark_enter_begin
    .hidden stackmark_enter_begin
stackmark_enter_begin:
stackmark_enter_managed:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_enter_personality
    stackmark_push_saved                        // [return address][rbp] ... [r15]
    push qword ptr [rdi + {g_entered}]          // ... [r15][previous record]
    .cfi_def_cfa_offset 64
    push qword ptr [rdi + {g_sched_fp}]         // ... [previous record][anchor fp]
    .cfi_def_cfa_offset 72
    push qword ptr [rdi + {g_sched_sp}]         // ... [anchor fp][anchor sp]
    .cfi_def_cfa_offset 80
    push qword ptr [rdi + {g_sched_pc}]         // ... [anchor sp][anchor pc]
    .cfi_def_cfa_offset 88
    push rdi                                    // ... [anchor pc][goroutine]
    .cfi_def_cfa_offset 96
    mov qword ptr [rdi + {g_sched_sp}], 0       // no anchor while managed code runs
    mov qword ptr [rdi + {g_entered}], rsp
    mov rdi, rdx
    call rsi
    .globl stackmark_enter_returned
    .hidden stackmark_enter_returned
stackmark_enter_returned:
    stackmark_leave_managed
    stackmark_pop_saved
    ret

// The landing pad of enter_managed: rax = exception. Does what a return does, and goes on unwinding
// as if the native caller had called _Unwind_Resume itself.
    .cfi_def_cfa_offset 96
    stackmark_saved_at_cfa
    nop                                         // pc - 1 of the unwinder's last instructions
    .globl stackmark_enter_landing
    .hidden stackmark_enter_landing
stackmark_enter_landing:
    stackmark_leave_managed
    stackmark_pop_saved
    mov rdi, rax
    stackmark_resume_unwinding
    .cfi_endproc
    .size stackmark_enter_managed, .-stackmark_enter_managed
    .globl stackmark_enter_end
    .hidden stackmark_enter_end
stackmark_enter_end:
