// stackmark_call_system(rcx = f, rdx = a, r8 = b) -> f(a, b). Called by managed code.
    .p2align 6
    stackmark_function stackmark_call_system
    stackmark_save 168, 0                       // G: [return address][rbp] ... [r15][vectors]
    mov r10, rcx                                // r10 = f
    stackmark_load_machine rbx, ax              // rbx = machine
    mov r12, qword ptr [rbx + {m_goroutine}]    // r12 = goroutine
    lea rax, [rip + stackmark_system_call_resume]
    mov qword ptr [r12 + {g_sched_pc}], rax
    mov qword ptr [r12 + {g_sched_sp}], rsp
    mov qword ptr [r12 + {g_sched_fp}], rbp
    mov rcx, rdx
    mov rdx, r8
    mov r14, qword ptr [r12 + {g_stack_hi}]     // r14 = stack_hi
    mov r13, rsp                                // r13 = this part on G while stack_hi is r14
    mov r11, r14
    sub r11, rsp                                // r11 = depth
    stackmark_stack_is_systems rbx, r8
    stackmark_end_part
    stackmark_part call_system_between
    stackmark_saved 168, 0
    .seh_setframe r13, 0
    .seh_endprologue
    mov rsp, qword ptr [rbx + {m_system_sp}]    // on the system stack from here, 16-aligned
    sub rsp, 64                                 // S: [record of the part on G][shadow space]
    mov qword ptr [rsp + 32], rax
    mov qword ptr [rsp + 40], r12
    mov qword ptr [rsp + 48], r11
    mov qword ptr [rsp + 56], r13
    stackmark_end_part
    stackmark_part call_system_on_system
    .seh_pushframe
    .seh_stackalloc 32
    .seh_handler stackmark_call_handler, @unwind, @except
    .seh_endprologue
    call r10
    stackmark_label stackmark_system_call_returned // the pc of this part while native code runs
    // Native code may have left younger calls by longjmp, with another system_sp. The registers it
    // keeps even then.
    lea rcx, [rsp + 64]
    mov qword ptr [rbx + {m_system_sp}], rcx
    stackmark_leave_system call_system_returns
    stackmark_restore 168, 0
    ret
    stackmark_end_part

// The landing pad of call_system, on S: rax = exception. Asks the hook what is to be done with it.
// Without a hook, or if that returns, throws it again as if the managed caller had.
    stackmark_part call_system_throws
    .seh_pushframe
    .seh_stackalloc 32
    .seh_endprologue
    nop                                         // pc - 1 of a walk from the next instruction
    stackmark_label stackmark_call_landing
    lea rcx, [rsp + 64]
    mov qword ptr [rbx + {m_system_sp}], rcx
    mov rsi, rax
    mov rax, qword ptr [rbx + {m_on_thrown}]
    test rax, rax
    je 3f
    mov rcx, rsi
    mov rdx, r12
    call rax
3:  stackmark_leave_system call_system_throws_on
    mov rcx, rsi
    stackmark_restore 168, 0
    stackmark_end_part
    stackmark_part call_system_thrown
    .seh_endprologue
    jmp stackmark_throw
    stackmark_end_part

// Where goroutines go on that are not on their stack: g.sched.pc is the second nop, which is there
// for walks. run goes on behind it.
    stackmark_label stackmark_system_call_begin
    stackmark_part system_call_stands
    stackmark_saved 168, 0
    .seh_endprologue
    nop
    stackmark_label stackmark_system_call_resume
    nop
    stackmark_end_part
    stackmark_part system_call_goes_on          // rcx = machine, rdx = goroutine
    stackmark_at_run
    mov rsp, qword ptr [rdx + {g_sched_sp}]     // on the goroutine stack from here
    stackmark_end_part
    stackmark_part system_call_resumed
    stackmark_saved 168, 0
    .seh_endprologue
    stackmark_restore 168, 0
    ret
    stackmark_end_part
    stackmark_label stackmark_system_call_end
