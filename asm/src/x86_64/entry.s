// The oldest frame. A new goroutine begins at stackmark_goroutine_entry, with r12 = goroutine and
// rsp 16-aligned.
    .globl stackmark_entry_begin
    .hidden stackmark_entry_begin
    .type goroutine_entry,@function
goroutine_entry:
stackmark_entry_begin:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_entry_personality
    .cfi_undefined rip
    .cfi_def_cfa rsp, 16
    nop                                         // pc - 1 of a walk over a new goroutine
    .globl stackmark_goroutine_entry
    .hidden stackmark_goroutine_entry
stackmark_goroutine_entry:
    mov rdi, r12
    mov rsi, qword ptr [r12 + {g_start_arg}]
    mov qword ptr [r12 + {g_start_arg}], 0
    call qword ptr [r12 + {g_entry}]
    mov rdi, qword ptr [r12 + {g_on_exit}]
    mov rsi, r12
    mov rdx, rax
    call stackmark_call_system
    ud2                                         // on_exit leaves to the scheduler

// The landing pad of goroutine_entry: rax = exception
    .globl stackmark_entry_landing
    .hidden stackmark_entry_landing
stackmark_entry_landing:
    mov rsi, rax
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rax, qword ptr fs:[rax]
    mov rdx, qword ptr [rax + {m_goroutine}]
    mov rdi, qword ptr [rdx + {g_on_uncaught}]
    call stackmark_call_system
    ud2                                         // on_uncaught does not return
    .globl stackmark_entry_end
    .hidden stackmark_entry_end
stackmark_entry_end:
    .cfi_endproc
    .size goroutine_entry, .-goroutine_entry
