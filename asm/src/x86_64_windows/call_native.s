// Calls of native code on the same stack.

// Defines \name(rcx = f, rdx = a, r8 = b) -> f(a, b), called by managed code. \kept names the
// macros that push and pop registers; \bytes lie below them, and the return address is at \slot.
    .macro stackmark_define_call_native name, kept, bytes, slot
    .p2align 6
    stackmark_function \name
    .seh_handler stackmark_native_handler, @unwind
    stackmark_push_\kept
    sub rsp, \bytes                             // ... [results][shadow space]
    .seh_stackalloc \bytes
    .seh_endprologue
    stackmark_load_machine rbx, ax
    mov rbx, qword ptr [rbx + {m_goroutine}]    // rbx = goroutine
    mov rax, rcx                                // rax = f
    mov rcx, rdx
    mov rdx, r8
    mov r8, qword ptr [rsp + \slot]
    mov qword ptr [rbx + {g_sched_pc}], r8
    mov qword ptr [rbx + {g_sched_fp}], rbp
    lea r8, [rsp + \slot + 8]
    mov qword ptr [rbx + {g_sched_sp}], r8      // last: now there is an anchor
    call rax
    stackmark_label \name\()_returned
    mov qword ptr [rbx + {g_sched_sp}], 0
    lea rdx, [rsp + \slot + 8]
    cmp qword ptr [rbx + {g_watch}], rdx
    jae 3f
    // Something armed is younger than the caller.
    mov qword ptr [rsp + 32], rax               // whatever may carry a result
    movaps xmmword ptr [rsp + 48], xmm0
    stackmark_load_machine rcx, ax
    mov r8, qword ptr [rsp + \slot]
    mov r9, rbp
    call qword ptr [rcx + {m_on_watched}]
    mov rax, qword ptr [rsp + 32]
    movaps xmm0, xmmword ptr [rsp + 48]
3:  add rsp, \bytes
    stackmark_pop_\kept
    ret
    stackmark_end_part
    .endm

    .macro stackmark_push_one
    push rbx                                    // [return address][rbx]
    .seh_pushreg rbx
    .endm

    .macro stackmark_pop_one
    pop rbx
    .endm

    .macro stackmark_push_all                   // [return address][rbp] ... [r15]
    .irp register, rbp, rbx, rdi, rsi, r12, r13, r14, r15
    push \register
    .seh_pushreg \register
    .endr
    .endm

    .macro stackmark_pop_all
    .irp register, r15, r14, r13, r12, rsi, rdi, rbx, rbp
    pop \register
    .endr
    .endm

    stackmark_label stackmark_call_native_begin
    stackmark_define_call_native stackmark_call_native, one, 64, 72
    stackmark_define_call_native stackmark_call_native_all, all, 72, 136
    stackmark_label stackmark_call_native_end
