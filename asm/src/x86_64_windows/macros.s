// What several files here share. Comments mark frames and registers of the goroutine stack with G
// and those of the system stack with S.
//
// Windows' unwind codes describe one layout for all of a function but its beginning and its end. So
// code that changes the layout in between is several *parts*, one behind the other. Each part has
// codes of its own, which hold at all its instructions. A part ends before the instruction whose
// layout is another: never behind a call, whose return address would lie in the next part. No part
// leaves by a plain `jmp` with its frame in place, for unwinders take that for the end of an
// epilogue.

    .macro stackmark_part name
    .seh_proc \name
\name:
    .endm

    .macro stackmark_end_part
    .seh_endproc
    .endm

// A function that native code or another file here names.
    .macro stackmark_function name
    .globl \name
    stackmark_part \name
    .endm

    .macro stackmark_label name
    .globl \name
\name:
    .endm

// Loads the machine of this thread, from thread-local storage; \index is another register, without
// its first letter.
    .macro stackmark_load_machine register, index
    mov e\index, dword ptr [rip + _tls_index]
    mov \register, qword ptr gs:[0x58]
    mov \register, qword ptr [\register + r\index * 8]
    mov \register, qword ptr [\register + stackmark_machine@SECREL32]
    .endm

// The callee-saved registers, in the order of the stack pictures: rbp at CFA - 16 down to r15 at
// CFA - 72. \bytes follow, in which the vectors begin at \at.
    .macro stackmark_saved bytes, at
    .irp register, rbp, rbx, rdi, rsi, r12, r13, r14, r15
    .seh_pushreg \register
    .endr
    .seh_stackalloc \bytes
    .irp i, 6,7,8,9,10,11,12,13,14,15
    .seh_savexmm xmm\i, \at + 16 * (\i - 6)
    .endr
    .endm

// Saves them so, at the beginning of a function.
    .macro stackmark_save bytes, at
    .irp register, rbp, rbx, rdi, rsi, r12, r13, r14, r15
    push \register
    .seh_pushreg \register
    .endr
    sub rsp, \bytes
    .seh_stackalloc \bytes
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movaps xmmword ptr [rsp + \at + 16 * (\i - 6)], xmm\i
    .seh_savexmm xmm\i, \at + 16 * (\i - 6)
    .endr
    .seh_endprologue
    .endm

// Restores them. The add is the first instruction that changes the frame: a ret follows, or the end
// of the part and a jump.
    .macro stackmark_restore bytes, at
    .irp i, 6,7,8,9,10,11,12,13,14,15
    movaps xmm\i, xmmword ptr [rsp + \at + 16 * (\i - 6)]
    .endr
    mov r15, qword ptr [rsp + \bytes]
    mov r14, qword ptr [rsp + \bytes + 8]
    mov r13, qword ptr [rsp + \bytes + 16]
    mov r12, qword ptr [rsp + \bytes + 24]
    mov rsi, qword ptr [rsp + \bytes + 32]
    mov rdi, qword ptr [rsp + \bytes + 40]
    mov rbx, qword ptr [rsp + \bytes + 48]
    mov rbp, qword ptr [rsp + \bytes + 56]
    add rsp, \bytes + 64
    .endm

// The layout where run goes on, while rcx = machine: run's stack pointer and pc are in a record
// that unwinders take for the frame of an interrupt.
    .macro stackmark_at_run
    .seh_pushframe
    .seh_stackalloc {m_system}
    .seh_setframe rcx, 0
    .seh_savereg rbx, {m_run_saved}
    .seh_savereg rbp, {m_run_fp}
    .seh_endprologue
    .endm

// The words of the thread's environment block that say where its stack is: the list of handlers (of
// wine), the highest address, the lowest that is in use, the lowest that is reserved. Whoever asks
// meanwhile finds a stack without a lower end, not one that has overflowed.
//
// On S they are the thread's own whenever something is pushed, or the system would not know its
// guard page.
    .macro stackmark_stack_is_goroutines goroutine, scratch
    mov qword ptr gs:[0x10], 0
    mov \scratch, qword ptr [\goroutine + {g_stack_hi}]
    mov qword ptr gs:[0x8], \scratch
    mov \scratch, qword ptr [\goroutine + {g_stack_lo}]
    mov qword ptr gs:[0x1478], \scratch
    mov qword ptr gs:[0x10], \scratch
    mov qword ptr gs:[0x0], -1
    .endm

    .macro stackmark_stack_is_systems machine, scratch
    mov qword ptr gs:[0x10], 0
    mov \scratch, qword ptr [\machine + {m_system} + 32]
    mov qword ptr gs:[0x8], \scratch
    mov \scratch, qword ptr [\machine + {m_system} + 40]
    mov qword ptr gs:[0x1478], \scratch
    mov \scratch, qword ptr [\machine + {m_system} + 16]
    mov qword ptr gs:[0x10], \scratch
    mov \scratch, qword ptr [\machine + {m_system} + 8]
    mov qword ptr gs:[0x0], \scratch
    .endm

// Before S is left: how far the system has let it grow.
    .macro stackmark_keep_limit machine, scratch
    mov \scratch, qword ptr gs:[0x10]
    mov qword ptr [\machine + {m_system} + 16], \scratch
    .endm

// The end of call_system, on S, after a return and when an exception has come: rbx = machine,
// r12 = goroutine, r13 = the part on G while stack_hi is r14. Begins the part on G. Changes r8 and
// r9.
    .macro stackmark_leave_system name
    mov r9, r13
    mov r8, qword ptr [r12 + {g_stack_hi}]
    cmp r8, r14
    je 2f
    mov r9, r8
    sub r9, qword ptr [rsp + 48]                // the stack has moved: from depth to address
2:  stackmark_keep_limit rbx, r8
    stackmark_stack_is_goroutines r12, r8
    mov rsp, r9                                 // on the goroutine stack from here
    stackmark_end_part
    stackmark_part \name
    stackmark_saved 168, 0
    .seh_endprologue
    .endm

// The end of callback, on G, after a return and when an exception passes. Begins \name, the part on
// S, where the goroutine stands in its call out again. Changes rcx, r8 and rbx.
    .macro stackmark_leave_callback name
    mov rcx, qword ptr [rsp + 48]               // goroutine
    mov r8, qword ptr [rsp + 72]                // the return slot goes back to sched.pc
    mov qword ptr [rcx + {g_sched_pc}], r8
    lea r8, [rsp + 80]                          // call_system's part, where it lies now
    mov qword ptr [rcx + {g_sched_sp}], r8
    mov r8, qword ptr [r8 + 224]                // the rbp that it saved
    mov qword ptr [rcx + {g_sched_fp}], r8
    dec qword ptr [rcx + {g_callback_depth}]
    stackmark_load_machine rbx, cx
    stackmark_stack_is_systems rbx, r8
    mov rsp, qword ptr [rsp + 56]               // on the system stack from here
    stackmark_end_part
    stackmark_part \name
    stackmark_saved 184, 16
    .seh_endprologue
    mov r8, qword ptr [rsp]
    mov qword ptr [rbx + {m_system_sp}], r8
    mov r8, qword ptr [rsp + 8]
    mov qword ptr [rbx + {m_system} + 8], r8
    .endm
