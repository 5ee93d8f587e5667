// stackmark_enter_managed(rcx = goroutine, rdx = f, r8 = argument) -> f(argument), on this stack.
// Called by native code.
    .p2align 6
    stackmark_label stackmark_enter_begin
    stackmark_function stackmark_enter_managed
    .seh_handler stackmark_enter_handler, @unwind
    stackmark_save 248, 80                      // [return address][rbp] ... [r15][vectors][record]
    mov qword ptr [rsp + 32], rcx               // the record: goroutine, anchor, previous record
    mov rax, qword ptr [rcx + {g_sched_pc}]
    mov qword ptr [rsp + 40], rax
    mov rax, qword ptr [rcx + {g_sched_sp}]
    mov qword ptr [rsp + 48], rax
    mov rax, qword ptr [rcx + {g_sched_fp}]
    mov qword ptr [rsp + 56], rax
    mov rax, qword ptr [rcx + {g_entered}]
    mov qword ptr [rsp + 64], rax
    mov qword ptr [rcx + {g_sched_sp}], 0       // no anchor while managed code runs
    lea rax, [rsp + 32]
    mov qword ptr [rcx + {g_entered}], rax
    mov rcx, r8
    call rdx
    stackmark_label stackmark_enter_returned
    mov rcx, qword ptr [rsp + 32]               // goroutine
    mov r8, qword ptr [rsp + 40]
    mov qword ptr [rcx + {g_sched_pc}], r8
    mov r8, qword ptr [rsp + 56]
    mov qword ptr [rcx + {g_sched_fp}], r8
    mov r8, qword ptr [rsp + 64]
    mov qword ptr [rcx + {g_entered}], r8
    mov r8, qword ptr [rsp + 48]
    mov qword ptr [rcx + {g_sched_sp}], r8      // last: now there is an anchor
    stackmark_restore 248, 80
    ret
    stackmark_end_part
    stackmark_label stackmark_enter_end
