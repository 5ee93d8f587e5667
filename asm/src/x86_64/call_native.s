// Calls of native code on the same stack.

// Defines \name(rdi = f, rsi = a, rdx = b) -> f(a, b), called by managed code. \kept names the
// macros that push and pop its frame, which begins \bytes below the CFA.
    .macro stackmark_define_call_native name, kept, bytes
    .p2align 6
    .globl \name
    .hidden \name
    .type \name,@function
\name:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_native_personality
    stackmark_push_\kept
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rbx, qword ptr fs:[rax]
    mov rbx, qword ptr [rbx + {m_goroutine}]    // rbx = goroutine
    mov rax, rdi                                // rax = f
    mov rdi, rsi
    mov rsi, rdx
    mov rcx, qword ptr [rsp + \bytes - 8]
    mov qword ptr [rbx + {g_sched_pc}], rcx
    mov qword ptr [rbx + {g_sched_fp}], rbp
    lea rcx, [rsp + \bytes]
    mov qword ptr [rbx + {g_sched_sp}], rcx     // last: now there is an anchor
    call rax
    .globl \name\()_returned
    .hidden \name\()_returned
\name\()_returned:
    mov qword ptr [rbx + {g_sched_sp}], 0
    lea rcx, [rsp + \bytes]
    cmp qword ptr [rbx + {g_watch}], rcx
    jb 2f                                       // something armed is younger than the caller
    .cfi_remember_state
3:  stackmark_pop_\kept
    ret
    .cfi_restore_state
2:  sub rsp, 48
    .cfi_def_cfa_offset \bytes + 48
    mov qword ptr [rsp], rax                    // whatever may carry a result
    mov qword ptr [rsp + 8], rdx
    movups xmmword ptr [rsp + 16], xmm0
    movups xmmword ptr [rsp + 32], xmm1
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rdi, qword ptr fs:[rax]
    mov rsi, rcx
    mov rdx, qword ptr [rsp + 48 + \bytes - 8]
    mov rcx, rbp
    call qword ptr [rdi + {m_on_watched}]
    mov rax, qword ptr [rsp]
    mov rdx, qword ptr [rsp + 8]
    movups xmm0, xmmword ptr [rsp + 16]
    movups xmm1, xmmword ptr [rsp + 32]
    add rsp, 48
    .cfi_def_cfa_offset \bytes
    jmp 3b                                      // pc - 1 of the unwinder's last instructions

// The landing pad of \name: rax = exception, rbx = goroutine. Does what a return does, and goes on
// unwinding as if the managed caller had called _Unwind_Resume itself.
    .globl \name\()_landing
    .hidden \name\()_landing
\name\()_landing:
    mov qword ptr [rbx + {g_sched_sp}], 0
    lea rsi, [rsp + \bytes]
    cmp qword ptr [rbx + {g_watch}], rsi
    mov rbx, rax
    jae 4f
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rdi, qword ptr fs:[rax]
    mov rdx, qword ptr [rsp + \bytes - 8]
    mov rcx, rbp
    call qword ptr [rdi + {m_on_watched}]
4:  mov rdi, rbx
    stackmark_pop_\kept
    stackmark_resume_unwinding
    .cfi_endproc
    .size \name, .-\name
    .endm

    .macro stackmark_push_one
    push rbx                                    // [return address][rbx]
    .cfi_def_cfa_offset 16
    .cfi_offset rbx, -16
    .endm

    .macro stackmark_pop_one
    pop rbx
    .cfi_def_cfa_offset 8
    .cfi_restore rbx
    .endm

    .macro stackmark_push_all
    stackmark_push_saved                        // [return address][rbp] ... [r15]
    sub rsp, 8
    .cfi_def_cfa_offset 64
    .endm

    .macro stackmark_pop_all
    add rsp, 8
    .cfi_def_cfa_offset 56
    stackmark_pop_saved
    .endm

    .globl stackmark_call_native_begin
    .hidden stackmark_call_native_begin
stackmark_call_native_begin:
    stackmark_define_call_native stackmark_call_native, one, 16
    stackmark_define_call_native stackmark_call_native_all, all, 64
    .globl stackmark_call_native_end
    .hidden stackmark_call_native_end
stackmark_call_native_end:
