//! The primitives for x86-64 with the System V calling convention (Linux).
//!
//! # Two stacks
//!
//! Managed code runs on a goroutine stack, native code on the system stack of the machine. Every frame that belongs
//! to both is drawn here; addresses grow upwards, `G` marks the goroutine stack and `S` the system stack.
//!
//! ```text
//! call_system, G                           call_system, S
//!   +56  ...managed caller   <- CFA          +32  ...older system frames
//!   +48  return address                      +24  machine
//!   +40  rbp                                 +16  machine.system_sp at the call
//!   +32  rbx                                  +8  depth = stack_hi - rsp of the G part
//!   +24  r12                                  +0  goroutine      <- rsp, 16-aligned
//!   +16  r13
//!    +8  r14
//!    +0  r15   <- rsp = g.sched.sp
//! ```
//!
//! The part on S keeps the *depth*, not the address, of the part on G: while native code runs, a callback may move
//! the goroutine's stack (Go's issue 8696 was the address). Its CFA is `goroutine.stack_hi - depth + 56`, a DWARF
//! expression, so that unwinders and debuggers follow the move too. On the way back the address is taken from r13, which the
//! native function has kept, if `stack_hi` is still what r14 says: so the stack pointer is there without a wait for the word in
//! memory, a fifth of the time of a short call.
//!
//! ```text
//! callback, S                              callback, G
//!   +64  ...native caller    <- CFA          +40  call_system's part     = g.sched.sp
//!   +56  return address                      +32  g.sched.pc: the return slot of this frame for walks of G
//!   +48  rbp                                 +24  (pad)
//!   +40  rbx                                 +16  (pad)
//!   +32  r12                                  +8  goroutine
//!   +24  r13                                  +0  rsp of the S part      <- rsp, 16-aligned
//!   +16  r14
//!    +8  r15
//!    +0  machine.system_sp before
//! ```
//!
//! A walk of the goroutine's stack leaves `callback` through its return slot, into `call_system` and on to the managed
//! caller. The system unwinder leaves it to the native caller: CFA = word at rsp, plus 64. `callback` never *returns*
//! through the return slot, it copies it back into `g.sched.pc`; hence no barrier may sit there (Go's issue 12238).
//!
//! ```text
//! switch_out, G                            a goroutine that has not run yet, G
//!                                            +72  stack_hi
//!                                            +64  0
//!                                            +56  0
//!                                            +48  goroutine_entry
//!                                            +40  rbp = 0
//!                                            +32  rbx = 0
//!   +24  ...managed caller   <- CFA          +24  r12 = goroutine
//!   +16  return address                      +16  r13 = 0
//!    +8  rbp                                  +8  r14 = 0
//!    +0  r15   <- rsp = g.sched.sp            +0  r15 = 0   <- g.sched.sp
//! ```
//!
//! # Switching to a goroutine and back
//!
//! `run` is inlined where a scheduler calls it, and has no frame: where it goes on is kept in the machine (`run_pc`, `run_rbp`,
//! `run_rbx`; its stack pointer is `system_sp`), and the compiler keeps elsewhere what it needs of the other registers.
//!
//! `g.sched.pc` is what `run` jumps to, with the goroutine in rsi and `run_pc` in rcx: one of two places, by the frame that the
//! goroutine stands in. There the stack is changed first of all. A walk of a stopped goroutine takes `g.sched.pc` for a return
//! address, so the CFI of the byte before is that of the frame. A frame that `leave` has left goes on by a jump, because the
//! returns that the processor expects are those of the native frames that were dropped. A frame of `switch_out` goes on by a
//! return: the last call but those that have returned was the one of `switch_out`, if the scheduler has its loop inlined round
//! `run`.
//!
//! # `__morestack`
//!
//! gdb stops with "previous frame inner to this frame" where the older frame lies at lower addresses, as it does
//! between two stacks in one of the two orders, unless the function is called `__morestack`: its exception for GCC's
//! split stacks. So all code that runs after a switch lies side by side under one local symbol of that name.
//!
//! # The barrier pool
//!
//! [`BARRIER_PAGES`](crate::BARRIER_PAGES) pages of 4096 bytes. The first 8 bytes of each page hold `table - pool`; the others are stubs of
//! 8 bytes. A hijacked slot holds stub + 1, so that the pc - 1 of unwinders stays inside the stub. The table has one
//! word for every 8 bytes of the pool, thus the saved return address of the stub at `pc` lies *at*
//! `(pc + (table - pool)) & -8`, at every instruction of the stub. One FDE says just that, without a relocation, TLS or a
//! run-time call:
//!
//! ```text
//! 80 00         DW_OP_breg16 0            pc
//! 0b 00 f0      DW_OP_const2s -4096
//! 1a            DW_OP_and                 the page
//! 94 04         DW_OP_deref_size 4        table - pool
//! 08 20 24 08 20 26                       shl 32, shra 32: sign-extended
//! 80 00 22      DW_OP_breg16 0, plus
//! 09 f8 1a      DW_OP_const1s -8, and
//! ```
//!
//! The FDE is not a `.cfi_signal_frame`: personality routines would look up pc instead of pc - 1 and panics abort.

use crate::layout::*;
use core::arch::global_asm;

global_asm!(
    r#"
    // The machine of this OS thread: initial-exec, so that reading it calls nothing and clobbers one register.
    .section .tbss.stackmark_machine,"awT",@nobits
    .p2align 3
    .globl stackmark_machine
    .hidden stackmark_machine
    .type stackmark_machine,@object
    .size stackmark_machine, 8
stackmark_machine:
    .zero 8

    .text

// What every primitive saves, in the order of the pictures above: rbp at CFA - 16 down to r15 at CFA - 56.
    .macro stackmark_saved_at_cfa
    .cfi_offset rbp, -16
    .cfi_offset rbx, -24
    .cfi_offset r12, -32
    .cfi_offset r13, -40
    .cfi_offset r14, -48
    .cfi_offset r15, -56
    .endm
    .macro stackmark_pop_saved
    pop r15
    .cfi_def_cfa_offset 48
    .cfi_restore r15
    pop r14
    .cfi_def_cfa_offset 40
    .cfi_restore r14
    pop r13
    .cfi_def_cfa_offset 32
    .cfi_restore r13
    pop r12
    .cfi_def_cfa_offset 24
    .cfi_restore r12
    pop rbx
    .cfi_def_cfa_offset 16
    .cfi_restore rbx
    pop rbp
    .cfi_def_cfa_offset 8
    .cfi_restore rbp
    .endm

// Where run jumps to, still on S: its caller's registers are as they are.
    .macro stackmark_before_switch_in
    .cfi_def_cfa rsp, 0
    .cfi_register rip, rcx
    .irp register, rbp, rbx, r12, r13, r14, r15
    .cfi_same_value \register
    .endr
    .endm

// Saves or restores the mask registers of barrier_common by \move.
    .macro stackmark_each_mask move, saves
    .irp r, 0,1,2,3,4,5,6,7
    .if \saves
    \move [rsp + 192 + 8 * \r], k\r
    .else
    \move k\r, [rsp + 192 + 8 * \r]
    .endif
    .endr
    .endm

// Under AddressSanitizer every switch of stacks is announced (asan.rs), on the system stack: a goroutine stack has no room
// for that. Callee-saved registers, which the frame has saved or is about to restore, keep what the call would clobber.
// Takes rdi = goroutine; rsp is 16-aligned.
    .macro stackmark_announce stack
    call stackmark_asan_to_\stack
    .endm

// The end of callback, on G, after a return and when an exception passes: the goroutine stands in its call out again, and
// the stack is the system's with callback's part at rsp + 8.
    .macro stackmark_leave_callback
    mov rdi, qword ptr [rsp + 8]                // goroutine
    mov rcx, qword ptr [rsp + 32]               // the return slot goes back to where it came from
    mov qword ptr [rdi + {g_sched_pc}], rcx
    lea rcx, [rsp + 40]                         // call_system's part, where it lies now
    mov qword ptr [rdi + {g_sched_sp}], rcx
    mov rcx, qword ptr [rcx + 40]               // the rbp that it saved
    mov qword ptr [rdi + {g_sched_fp}], rcx
    dec qword ptr [rdi + {g_callback_depth}]
    mov rsp, qword ptr [rsp]                    // on the system stack from here
    .cfi_def_cfa rsp, 64
    .if {announced}
    mov r12, rax
    mov r13, rsi
    stackmark_announce system
    mov rax, r12
    mov rsi, r13
    .endif
    mov rcx, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rbx, qword ptr fs:[rcx]
    pop qword ptr [rbx + {m_system_sp}]
    .cfi_def_cfa_offset 56
    .endm

// ------------------------------------------------------------------------------------------------------------------
// stackmark_set_current(rdi = machine header or null)
    .globl stackmark_set_current
    .hidden stackmark_set_current
    .type stackmark_set_current,@function
stackmark_set_current:
    .cfi_startproc
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov qword ptr fs:[rax], rdi
    ret
    .cfi_endproc
    .size stackmark_set_current, .-stackmark_set_current

// ------------------------------------------------------------------------------------------------------------------
// stackmark_switch_out(rdi = value) -> the value that the goroutine goes on with, called by managed code: run returns the value.
// In a callback, whose native caller keeps its thread, it returns the value itself. Keeps rsp, rbp and r15, and no other register.
    .p2align 6
    .globl stackmark_switch_out
    .hidden stackmark_switch_out
    .type stackmark_switch_out,@function
stackmark_switch_out:
    .cfi_startproc
    .cfi_undefined rbx
    .cfi_undefined r12
    .cfi_undefined r13
    .cfi_undefined r14
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rdx, qword ptr fs:[rax]                 // rdx = machine
    mov rsi, qword ptr [rdx + {m_goroutine}]    // rsi = goroutine
    mov rax, rdi
    cmp qword ptr [rsi + {g_callback_depth}], 0
    jne 2f
    push rbp                                    // G: [return address][rbp]
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    push r15                                    // G: ... [rbp][r15]
    .cfi_def_cfa_offset 24
    .cfi_offset r15, -24
    lea rcx, [rip + stackmark_switch_out_resume]
    mov qword ptr [rsi + {g_sched_pc}], rcx
    mov qword ptr [rsi + {g_sched_sp}], rsp
    mov qword ptr [rsi + {g_sched_fp}], rbp
    mov rcx, qword ptr [rdx + {m_run_pc}]
    mov rbp, qword ptr [rdx + {m_run_rbp}]
    mov rbx, qword ptr [rdx + {m_run_rbx}]
    mov rsp, qword ptr [rdx + {m_system_sp}]    // on the system stack from here
    .cfi_def_cfa rsp, 0
    .cfi_register rip, rcx
    .cfi_same_value rbp
    .cfi_same_value rbx
    .cfi_same_value r15
    mov qword ptr [rdx + {m_goroutine}], 0
    jmp rcx
    .cfi_def_cfa rsp, 8
    .cfi_offset rip, -8
    .cfi_undefined rbx
2:  ret
    .cfi_endproc
    .size stackmark_switch_out, .-stackmark_switch_out

// stackmark_leave(rdi = machine, rsi = value), on the system stack of a goroutine that is no longer running.
// The frames between here and run are dropped.
    .globl stackmark_leave
    .hidden stackmark_leave
    .type stackmark_leave,@function
stackmark_leave:
    .cfi_startproc
    mov rax, rsi
    mov rcx, qword ptr [rdi + {m_run_pc}]
    mov rdx, qword ptr [rdi + {m_run_rbp}]
    mov rsi, qword ptr [rdi + {m_run_rbx}]
    mov rsp, qword ptr [rdi + {m_system_sp}]    // S: where run left it
    .cfi_def_cfa rsp, 0
    .cfi_register rip, rcx
    .cfi_register rbp, rdx
    .cfi_register rbx, rsi
    mov qword ptr [rdi + {m_goroutine}], 0
    mov rbp, rdx
    mov rbx, rsi
    jmp rcx
    .cfi_endproc
    .size stackmark_leave, .-stackmark_leave

// ------------------------------------------------------------------------------------------------------------------
// stackmark_call_system(rdi = f, rsi = a, rdx = b) -> f(a, b), called by managed code
    .p2align 6
    .globl stackmark_call_system
    .hidden stackmark_call_system
    .type stackmark_call_system,@function
stackmark_call_system:
    .cfi_startproc
    push rbp                                    // G: [return address][rbp]
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    push rbx                                    // G: ... [rbp][rbx]
    .cfi_def_cfa_offset 24
    .cfi_offset rbx, -24
    push r12                                    // G: ... [rbx][r12]
    .cfi_def_cfa_offset 32
    .cfi_offset r12, -32
    push r13                                    // G: ... [r12][r13]
    .cfi_def_cfa_offset 40
    .cfi_offset r13, -40
    push r14                                    // G: ... [r13][r14]
    .cfi_def_cfa_offset 48
    .cfi_offset r14, -48
    push r15                                    // G: ... [r14][r15]
    .cfi_def_cfa_offset 56
    .cfi_offset r15, -56
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rbx, qword ptr fs:[rax]                 // rbx = machine
    mov r12, qword ptr [rbx + {m_goroutine}]    // r12 = goroutine
    lea rax, [rip + stackmark_system_call_resume]
    mov qword ptr [r12 + {g_sched_pc}], rax
    mov qword ptr [r12 + {g_sched_sp}], rsp
    mov qword ptr [r12 + {g_sched_fp}], rbp
    mov rax, rdi                                // rax = f
    mov rdi, rsi
    mov rsi, rdx
    mov r14, qword ptr [r12 + {g_stack_hi}]     // r14 = stack_hi
    mov r13, rsp                                // r13 = our part on G, as long as stack_hi is r14
    mov rcx, r14
    sub rcx, rsp                                // rcx = depth
    mov rdx, qword ptr [rbx + {m_system_sp}]
    lea r8, [rdx - 32]
    and r8, -16
    mov qword ptr [r8], r12                     // S: [machine][system_sp][depth][goroutine]
    mov qword ptr [r8 + 8], rcx
    mov qword ptr [r8 + 16], rdx
    mov qword ptr [r8 + 24], rbx
    mov rsp, r8                                 // on the system stack from here
    // CFA = *(*(rsp) + stack_hi) - *(rsp + 8) + 56
    .cfi_escape 0x0f, 12, 0x77, 0, 0x06, 0x23, {g_stack_hi}, 0x06, 0x77, 8, 0x06, 0x1c, 0x23, 56
    jmp __morestack
    .cfi_endproc
    .size stackmark_call_system, .-stackmark_call_system

// ------------------------------------------------------------------------------------------------------------------
// What runs after a switch of stacks. Three FDEs, one symbol.
    .type __morestack,@function
__morestack:
// call_system, on S
    .cfi_startproc
    .cfi_escape 0x0f, 12, 0x77, 0, 0x06, 0x23, {g_stack_hi}, 0x06, 0x77, 8, 0x06, 0x1c, 0x23, 56
    stackmark_saved_at_cfa
    .if {announced}
    mov rbx, rax
    mov r15, rdi
    mov rbp, rsi
    mov rdi, r12
    stackmark_announce system
    mov rax, rbx
    mov rdi, r15
    mov rsi, rbp
    mov rbp, qword ptr [r12 + {g_sched_fp}]     // the chain of frame pointers
    .endif
    call rax
    .globl stackmark_system_call_returned
    .hidden stackmark_system_call_returned
stackmark_system_call_returned:                 // the pc of this part while native code runs
    mov rbx, qword ptr [rsp + 24]               // machine and goroutine from our own frame, so that a longjmp in
    mov r12, qword ptr [rsp]                    // native code over younger calls does no harm
    mov rcx, qword ptr [rsp + 16]
    mov qword ptr [rbx + {m_system_sp}], rcx
    .if {announced}
    mov r15, rax
    mov rdi, r12
    stackmark_announce goroutine
    mov rax, r15
    .endif
    mov rcx, qword ptr [r12 + {g_stack_hi}]
    cmp rcx, r14
    jne 2f
    mov rsp, r13                                // on the goroutine stack from here, without having waited for the depth
    .cfi_remember_state
    .cfi_def_cfa rsp, 56
3:  stackmark_pop_saved
    ret
    .cfi_restore_state
2:  sub rcx, qword ptr [rsp + 8]                // the stack has moved: from depth to address
    mov rsp, rcx                                // on the goroutine stack from here
    .cfi_def_cfa rsp, 56
    jmp 3b
    .globl stackmark_system_call_begin
    .hidden stackmark_system_call_begin
stackmark_system_call_begin:
    .cfi_def_cfa rsp, 56
    stackmark_saved_at_cfa
    nop                                         // pc - 1 of a walk that begins at g.sched.pc, of a goroutine that called out
    stackmark_before_switch_in
    .globl stackmark_system_call_resume
    .hidden stackmark_system_call_resume
stackmark_system_call_resume:                   // = g.sched.pc
    mov rsp, qword ptr [rsi + {g_sched_sp}]     // on the goroutine stack from here
    .cfi_def_cfa_offset 56
    .cfi_offset rip, -8
    stackmark_saved_at_cfa
    stackmark_pop_saved
    pop rcx
    .cfi_def_cfa_offset 0
    .cfi_register rip, rcx
    jmp rcx
    // Of rbx and r12 to r14 nothing is said: rules that say so cannot be packed. The caller has nothing in them.
    .cfi_def_cfa rsp, 24
    .cfi_offset rip, -8
    .cfi_offset rbp, -16
    .cfi_offset r15, -24
    nop                                         // pc - 1 of a walk that begins at g.sched.pc, of one that has switched out
    .p2align 4
    stackmark_before_switch_in
stackmark_switch_out_resume:                    // = g.sched.pc
    mov rsp, qword ptr [rsi + {g_sched_sp}]     // on the goroutine stack from here
    .cfi_def_cfa_offset 24
    .cfi_offset rip, -8
    .cfi_offset rbp, -16
    .cfi_offset r15, -24
    pop r15
    .cfi_def_cfa_offset 16
    .cfi_restore r15
    pop rbp
    .cfi_def_cfa_offset 8
    .cfi_restore rbp
    ret
    .globl stackmark_system_call_end
    .hidden stackmark_system_call_end
stackmark_system_call_end:
    .cfi_endproc

// callback, on G: rdi = argument, rsi = function
    .globl stackmark_callback_begin
    .hidden stackmark_callback_begin
stackmark_callback_begin:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_callback_personality
    // CFA = *(rsp) + 64
    .cfi_escape 0x0f, 5, 0x77, 0, 0x06, 0x23, 64
    stackmark_saved_at_cfa
callback_on_goroutine:
    call rsi
    stackmark_leave_callback
    stackmark_pop_saved
    ret

// The landing pad of callback, on G: rax = exception. Does what a return does, and goes on unwinding as if the native
// caller had called _Unwind_Resume itself.
    .globl stackmark_callback_landing
    .hidden stackmark_callback_landing
stackmark_callback_landing:
    // CFA = *(rsp) + 64, as before the switch
    .cfi_escape 0x0f, 5, 0x77, 0, 0x06, 0x23, 64
    stackmark_saved_at_cfa
    stackmark_leave_callback
    stackmark_pop_saved
    mov rdi, rax
    jmp _Unwind_Resume@PLT
    .cfi_endproc
    .globl stackmark_callback_end
    .hidden stackmark_callback_end
stackmark_callback_end:

// barrier_common, on S. r10 = address of the slot, r11 = stub + 6, rbx = machine
//  S: +256  vectors                       G: +96  CFA, the stack pointer of the frame returned to
//     +192  k0 ... k7                        +88  the slot: stub + 6, then the saved return address
//      +64  x87 state                         +0  r12 ... rax
//      +16  whether there is any
//       +8  depth
//       +0  goroutine <- rsp, 64-aligned
// Any register may carry a result, or be one that the function's convention keeps. Moves take a quarter of the time of
// xsave and xrstor. What the conventions take for kept anyway (mxcsr, the x87 control word) is the hook's to keep.
    .cfi_startproc
    // CFA = *(*(rsp) + stack_hi) - *(rsp + 8) + 96
    .cfi_escape 0x0f, 12, 0x77, 0, 0x06, 0x23, {g_stack_hi}, 0x06, 0x77, 8, 0x06, 0x1c, 0x23, 0x60
    .cfi_offset rbx, -96
    .cfi_offset r12, -88
barrier_on_system:
    fnstsw ax
    and eax, 0x3800                             // the top of the x87 stack: 0 as long as it is empty, as it is at a return
    mov qword ptr [rsp + 16], rax               // but for results
    je 2f
    fnsave [rsp + 64]                           // and leaves it empty
2:  mov eax, dword ptr [rip + stackmark_vector_kind]
    cmp eax, {kind_avx}
    jb 5f
    je 4f
    cmp eax, {kind_avx512}
    je 3f
    stackmark_each_mask kmovw, 1
    jmp 6f
3:  stackmark_each_mask kmovq, 1
6:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovaps zmmword ptr [rsp + 256 + 64 * \r], zmm\r
    .endr
    vzeroupper
    jmp 7f
4:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovaps ymmword ptr [rsp + 256 + 32 * \r], ymm\r
    .endr
    vzeroupper
    jmp 7f
5:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movaps xmmword ptr [rsp + 256 + 16 * \r], xmm\r
    .endr
7:  lea rax, [rip + stackmark_barrier_pool]
    sub r11, 6
    sub r11, rax
    shr r11, 3
    .if {announced}
    mov qword ptr [rsp + 24], r10               // S: [stub][slot] between the flag and the x87 state
    mov qword ptr [rsp + 32], r11
    mov rdi, r12
    stackmark_announce system
    mov r10, qword ptr [rsp + 24]
    mov r11, qword ptr [rsp + 32]
    .endif
    mov rdi, rbx
    mov rsi, r10
    mov rdx, r11
    call qword ptr [rbx + {m_on_hit}]
    .if {announced}
    mov rdi, r12
    stackmark_announce goroutine
    .endif
    mov eax, dword ptr [rip + stackmark_vector_kind]
    cmp eax, {kind_avx}
    jb 5f
    je 4f
    cmp eax, {kind_avx512}
    je 3f
    stackmark_each_mask kmovw, 0
    jmp 6f
3:  stackmark_each_mask kmovq, 0
6:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovaps zmm\r, zmmword ptr [rsp + 256 + 64 * \r]
    .endr
    jmp 7f
4:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovaps ymm\r, ymmword ptr [rsp + 256 + 32 * \r]
    .endr
    jmp 7f
5:  .irp r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movaps xmm\r, xmmword ptr [rsp + 256 + 16 * \r]
    .endr
7:  cmp qword ptr [rsp + 16], 0
    je 5f
    frstor [rsp + 64]
5:  mov rax, qword ptr [rsp]
    mov rcx, qword ptr [rax + {g_stack_hi}]
    sub rcx, qword ptr [rsp + 8]
    mov rsp, rcx                                // on the goroutine stack from here
    .cfi_def_cfa rsp, 96
    pop rbx
    .cfi_def_cfa_offset 88
    .cfi_restore rbx
    pop r12
    .cfi_def_cfa_offset 80
    .cfi_restore r12
    pop r11
    .cfi_def_cfa_offset 72
    pop r10
    .cfi_def_cfa_offset 64
    pop r9
    .cfi_def_cfa_offset 56
    pop r8
    .cfi_def_cfa_offset 48
    pop rdi
    .cfi_def_cfa_offset 40
    pop rsi
    .cfi_def_cfa_offset 32
    pop rdx
    .cfi_def_cfa_offset 24
    pop rcx
    .cfi_def_cfa_offset 16
    pop rax
    .cfi_def_cfa_offset 8
    ret                                         // through the slot, which holds the saved return address again
    .cfi_endproc
    .size __morestack, .-__morestack

// ------------------------------------------------------------------------------------------------------------------
// stackmark_callback(rdi = goroutine, rsi = f, rdx = argument) -> f(argument), called by native code
    .globl stackmark_callback
    .hidden stackmark_callback
    .type stackmark_callback,@function
stackmark_callback:
    .cfi_startproc
    push rbp                                    // S: [return address][rbp]
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    push rbx                                    // S: ... [rbp][rbx]
    .cfi_def_cfa_offset 24
    .cfi_offset rbx, -24
    push r12                                    // S: ... [rbx][r12]
    .cfi_def_cfa_offset 32
    .cfi_offset r12, -32
    push r13                                    // S: ... [r12][r13]
    .cfi_def_cfa_offset 40
    .cfi_offset r13, -40
    push r14                                    // S: ... [r13][r14]
    .cfi_def_cfa_offset 48
    .cfi_offset r14, -48
    push r15                                    // S: ... [r14][r15]
    .cfi_def_cfa_offset 56
    .cfi_offset r15, -56
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rbx, qword ptr fs:[rax]
    push qword ptr [rbx + {m_system_sp}]        // S: ... [r15][old system_sp]
    .cfi_def_cfa_offset 64
    mov qword ptr [rbx + {m_system_sp}], rsp    // calls out of the callback run below this frame
    .if {announced}
    mov r12, rdi
    mov r13, rsi
    mov r14, rdx
    stackmark_announce goroutine
    mov rdi, r12
    mov rsi, r13
    mov rdx, r14
    .endif
    mov rcx, qword ptr [rdi + {g_sched_sp}]
    mov rax, qword ptr [rdi + {g_sched_pc}]
    mov rbp, qword ptr [rdi + {g_sched_fp}]     // the chain of frame pointers runs on into the managed caller
    mov qword ptr [rcx - 8], rax                // G: [sched.pc][pad][pad][goroutine][rsp of S]
    mov qword ptr [rcx - 32], rdi
    mov qword ptr [rcx - 40], rsp
    inc qword ptr [rdi + {g_callback_depth}]
    mov rdi, rdx
    lea rsp, [rcx - 40]                         // on the goroutine stack from here
    .cfi_escape 0x0f, 5, 0x77, 0, 0x06, 0x23, 64
    jmp callback_on_goroutine
    .cfi_endproc
    .size stackmark_callback, .-stackmark_callback

// ------------------------------------------------------------------------------------------------------------------
// stackmark_leave_callback_by(rdi = f, rsi = argument, rdx = callback's part on G): does what a return from that callback
// does, and calls f(argument) as if its native caller had. What is younger is dropped.
    .globl stackmark_leave_callback_by
    .hidden stackmark_leave_callback_by
    .type stackmark_leave_callback_by,@function
stackmark_leave_callback_by:
    .cfi_startproc
    mov rax, rdi
    mov rsp, rdx                                // on the goroutine stack from here
    .cfi_escape 0x0f, 5, 0x77, 0, 0x06, 0x23, 64
    stackmark_saved_at_cfa
    stackmark_leave_callback
    stackmark_pop_saved
    mov rdi, rsi
    jmp rax
    .cfi_endproc
    .size stackmark_leave_callback_by, .-stackmark_leave_callback_by

// A Continuation at a register, 0x75 for rdi or 0x73 for rbx: CFA = its sp, and every register of the caller in its word.
    .macro stackmark_continuation_at base
    .cfi_escape 0x0f, 3, \base, {c_sp}, 0x06
    .cfi_escape 0x10, 16, 2, \base, {c_pc}
    .cfi_escape 0x10, 6, 2, \base, {c_rbp}
    .cfi_escape 0x10, 3, 2, \base, {c_rbx}
    .cfi_escape 0x10, 12, 2, \base, {c_r12}
    .cfi_escape 0x10, 13, 2, \base, {c_r13}
    .cfi_escape 0x10, 14, 2, \base, {c_r14}
    .cfi_escape 0x10, 15, 2, \base, {c_r15}
    .endm

// stackmark_continue(rdi = Continuation), on S: goes on in a managed frame. What is younger is dropped.
    .globl stackmark_continue
    .hidden stackmark_continue
    .type stackmark_continue,@function
stackmark_continue:
    .cfi_startproc
    stackmark_continuation_at 0x75
    .if {announced}
    push rdi                                    // S: [return address][pad]
    mov rbx, rdi
    stackmark_continuation_at 0x73
    mov rdi, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rdi, qword ptr fs:[rdi]
    mov rdi, qword ptr [rdi + {m_goroutine}]
    stackmark_announce goroutine
    mov rdi, rbx
    stackmark_continuation_at 0x75
    .endif
    mov rbp, qword ptr [rdi + {c_rbp}]
    mov rbx, qword ptr [rdi + {c_rbx}]
    mov r12, qword ptr [rdi + {c_r12}]
    mov r13, qword ptr [rdi + {c_r13}]
    mov r14, qword ptr [rdi + {c_r14}]
    mov r15, qword ptr [rdi + {c_r15}]
    mov rax, qword ptr [rdi + {c_rax}]
    mov rdx, qword ptr [rdi + {c_rdx}]
    mov rsp, qword ptr [rdi + {c_sp}]           // on the goroutine stack from here
    jmp qword ptr [rdi + {c_pc}]
    .cfi_endproc
    .size stackmark_continue, .-stackmark_continue

// stackmark_catch(rdi = f, rsi = argument) -> the exception that has left f(argument), or null
    .globl stackmark_catch
    .hidden stackmark_catch
    .type stackmark_catch,@function
stackmark_catch:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_catch_personality
    push rbx                                    // S: [return address][rbx]
    .cfi_def_cfa_offset 16
    .cfi_offset rbx, -16
    mov rax, rdi
    mov rdi, rsi
    call rax
    xor eax, eax
    .globl stackmark_catch_landing
    .hidden stackmark_catch_landing
stackmark_catch_landing:                        // rax = exception
    pop rbx
    .cfi_def_cfa_offset 8
    .cfi_restore rbx
    ret
    .cfi_endproc
    .size stackmark_catch, .-stackmark_catch

// ------------------------------------------------------------------------------------------------------------------
// The oldest frame. A new goroutine begins at the label, with r12 = goroutine and rsp 16-aligned.
    .globl stackmark_entry_begin
    .hidden stackmark_entry_begin
    .type goroutine_entry,@function
goroutine_entry:
stackmark_entry_begin:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_entry_personality
    .cfi_undefined rip
    .cfi_def_cfa rsp, 16
    nop                                         // pc - 1 of a walk over a goroutine that has not run yet
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

// ------------------------------------------------------------------------------------------------------------------
// Where every stub goes. The ret of the frame that was left has popped the slot, the stub's call has filled it again,
// with stub + 6: the slot still names the stub, and the pool's CFI still finds the saved return address.
    .type barrier_common,@function
barrier_common:
    .cfi_startproc
    push rax                                    // G: [slot][rax]
    .cfi_def_cfa_offset 16
    push rcx                                    // G: ... [rax][rcx]
    .cfi_def_cfa_offset 24
    push rdx                                    // G: ... [rcx][rdx]
    .cfi_def_cfa_offset 32
    push rsi                                    // G: ... [rdx][rsi]
    .cfi_def_cfa_offset 40
    push rdi                                    // G: ... [rsi][rdi]
    .cfi_def_cfa_offset 48
    push r8                                     // G: ... [rdi][r8]
    .cfi_def_cfa_offset 56
    push r9                                     // G: ... [r8][r9]
    .cfi_def_cfa_offset 64
    push r10                                    // G: ... [r9][r10]
    .cfi_def_cfa_offset 72
    push r11                                    // G: ... [r10][r11]
    .cfi_def_cfa_offset 80
    push r12                                    // G: ... [r11][r12]
    .cfi_def_cfa_offset 88
    .cfi_offset r12, -88
    push rbx                                    // G: ... [r12][rbx]
    .cfi_def_cfa_offset 96
    .cfi_offset rbx, -96
    mov rax, qword ptr [rip + stackmark_machine@GOTTPOFF]
    mov rbx, qword ptr fs:[rax]
    mov r12, qword ptr [rbx + {m_goroutine}]
    lea r10, [rsp + 88]                         // the slot
    mov r11, qword ptr [r10]                    // stub + 6
    mov rcx, qword ptr [r12 + {g_stack_hi}]
    sub rcx, rsp                                // depth
    mov r9, qword ptr [rbx + {m_system_sp}]
    sub r9, qword ptr [rip + stackmark_vector_size]
    sub r9, 64
    and r9, -64
    mov qword ptr [r9], r12                     // S: [registers][depth][goroutine]
    mov qword ptr [r9 + 8], rcx
    mov rsp, r9                                 // on the system stack from here
    .cfi_escape 0x0f, 12, 0x77, 0, 0x06, 0x23, {g_stack_hi}, 0x06, 0x77, 8, 0x06, 0x1c, 0x23, 0x60
    jmp barrier_on_system
    .cfi_endproc
    .size barrier_common, .-barrier_common

// The landing pad of the pool: rax = exception, rdx = index of the stub, rsp = CFA of the frame that was left.
// It makes the slot whole and goes on as if the frame returned to had called stackmark_call_system itself.
    .type barrier_landing,@function
    .globl stackmark_barrier_landing
    .hidden stackmark_barrier_landing
stackmark_barrier_landing:
barrier_landing:
    .cfi_startproc
    .cfi_def_cfa rsp, 0
    .cfi_undefined rip                          // for two instructions the slot is a dead word
    lea rcx, [rip + stackmark_barrier_table]
    push qword ptr [rcx + rdx*8]                // G: [slot = saved return address]
    .cfi_def_cfa_offset 8
    .cfi_restore rip
    lea rdi, [rip + stackmark_barrier_resume]
    mov rsi, rax
    jmp stackmark_call_system
    .cfi_endproc
    .size barrier_landing, .-barrier_landing

// ------------------------------------------------------------------------------------------------------------------
    .p2align 12
    .globl stackmark_barrier_pool
    .hidden stackmark_barrier_pool
    .type barrier_pool,@function
barrier_pool:
stackmark_barrier_pool:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_barrier_personality
    .cfi_def_cfa rsp, 0
    .cfi_escape 0x10, 16, 20, 0x80, 0x00, 0x0b, 0x00, 0xf0, 0x1a, 0x94, 0x04, 0x08, 0x20, 0x24, 0x08, 0x20, 0x26, 0x80, 0x00, 0x22, 0x09, 0xf8, 0x1a
    .rept {pages}
    .long stackmark_barrier_table - barrier_pool
    .long 0
    .rept {stubs_per_page}
    nop
    call barrier_common
    .p2align 3, 0xcc
    .endr
    .endr
    .cfi_endproc
    .size barrier_pool, .-barrier_pool
    .globl stackmark_barrier_pool_end
    .hidden stackmark_barrier_pool_end
stackmark_barrier_pool_end:

    // Personalities are named through words, so that the image stays position independent. The words are global: GNU ld
    // takes two CIEs for the same when their personalities are local symbols of one section.
    .section .data.rel.ro.stackmark_personalities,"aw",@progbits
    .p2align 3
    .irp name, barrier, callback, entry, catch
    .globl DW.ref.stackmark_\name\()_personality
    .hidden DW.ref.stackmark_\name\()_personality
    .type DW.ref.stackmark_\name\()_personality,@object
    .size DW.ref.stackmark_\name\()_personality, 8
DW.ref.stackmark_\name\()_personality:
    .quad stackmark_\name\()_personality
    .endr
    .text
"#,
    g_stack_hi = const G_STACK_HI,
    g_sched_pc = const G_SCHED_PC,
    g_sched_sp = const G_SCHED_SP,
    g_sched_fp = const G_SCHED_FP,
    g_entry = const G_ENTRY,
    g_start_arg = const G_START_ARG,
    g_on_exit = const G_ON_EXIT,
    g_callback_depth = const G_CALLBACK_DEPTH,
    g_on_uncaught = const G_ON_UNCAUGHT,
    m_goroutine = const M_GOROUTINE,
    m_system_sp = const M_SYSTEM_SP,
    m_on_hit = const M_ON_HIT,
    m_run_pc = const M_RUN_PC,
    m_run_rbp = const M_RUN_RBP,
    m_run_rbx = const M_RUN_RBX,
    c_pc = const C_PC,
    c_sp = const C_SP,
    c_rbp = const C_RBP,
    c_rbx = const C_RBX,
    c_r12 = const C_R12,
    c_r13 = const C_R13,
    c_r14 = const C_R14,
    c_r15 = const C_R15,
    c_rax = const C_RAX,
    c_rdx = const C_RDX,
    kind_avx = const KIND_AVX,
    kind_avx512 = const KIND_AVX512BW,
    pages = const crate::BARRIER_PAGES,
    stubs_per_page = const crate::STUBS_PER_PAGE,
    announced = const cfg!(stackmark_asan) as u8,
);

// ThreadSanitizer keeps a stack of the instrumented functions that have been entered and not been left. Native code runs on the
// thread's own stack, so one such stack for each thread is right and no fibers are wanted; but `leave` drops frames
// without leaving their functions. longjmp is what the sanitizer knows of that kind: it takes its stack back to what it was
// at setjmp. So under it `run` and `callback` are called from in between.
#[cfg(stackmark_tsan)]
global_asm!(
    r#"
// stackmark_rewound(rdi = f, rsi, rdx, rcx = a, b, c) -> f(a, b, c)
//   S: +240 (pad)  +232 result  +224 c  +216 b  +208 a  +200 f  +0 jmp_buf <- rsp, 16-aligned
    .globl stackmark_rewound
    .hidden stackmark_rewound
    .type stackmark_rewound,@function
stackmark_rewound:
    .cfi_startproc
    sub rsp, 248
    .cfi_def_cfa_offset 256
    mov qword ptr [rsp + 200], rdi
    mov qword ptr [rsp + 208], rsi
    mov qword ptr [rsp + 216], rdx
    mov qword ptr [rsp + 224], rcx
    mov rdi, rsp
    call _setjmp@PLT
    test eax, eax
    jne 1f
    mov rdi, qword ptr [rsp + 208]
    mov rsi, qword ptr [rsp + 216]
    mov rdx, qword ptr [rsp + 224]
    call qword ptr [rsp + 200]
    mov qword ptr [rsp + 232], rax
    mov rdi, rsp
    mov esi, 1
    call longjmp@PLT                            // to the first return of setjmp
1:  mov rax, qword ptr [rsp + 232]
    add rsp, 248
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .size stackmark_rewound, .-stackmark_rewound
"#
);

/// See [`crate::run`].
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn run(machine: *mut MachineHeader, goroutine: *mut GoroutineHeader) -> usize {
    let left;
    // Whatever comes back by way of `leave` has been announced before, and the second call then does nothing.
    #[cfg(stackmark_asan)]
    // SAFETY: our contract.
    unsafe {
        crate::asan::stackmark_asan_to_goroutine(goroutine);
    }
    #[cfg(stackmark_asan)]
    let left_goroutine = goroutine;
    // SAFETY: the contract of the function. Whatever leaves the goroutine restores rsp, rbp and rbx from the machine; all other
    // registers count as lost. The stack pointer does not change here, so that the CFI of the surrounding function is right.
    unsafe {
        core::arch::asm!(
            "lea rcx, [rip + 2f]",
            "mov qword ptr [rdi + {m_run_pc}], rcx",
            "mov qword ptr [rdi + {m_run_rbp}], rbp",
            "mov qword ptr [rdi + {m_run_rbx}], rbx",
            "mov qword ptr [rdi + {m_system_sp}], rsp",
            "mov qword ptr [rdi + {m_goroutine}], rsi",
            "mov rax, qword ptr [rsi + {g_resume_value}]",
            "jmp qword ptr [rsi + {g_sched_pc}]",
            "2:",
            g_sched_pc = const G_SCHED_PC,
            g_resume_value = const G_RESUME_VALUE,
            m_goroutine = const M_GOROUTINE,
            m_system_sp = const M_SYSTEM_SP,
            m_run_pc = const M_RUN_PC,
            m_run_rbp = const M_RUN_RBP,
            m_run_rbx = const M_RUN_RBX,
            inlateout("rdi") machine => _,
            inlateout("rsi") goroutine => _,
            lateout("rax") left,
            lateout("r12") _,
            lateout("r13") _,
            lateout("r14") _,
            lateout("r15") _,
            clobber_abi("sysv64"),
        );
    }
    #[cfg(stackmark_asan)]
    // SAFETY: it is the one that this thread has left, on which nobody else goes on before we return.
    unsafe {
        crate::asan::stackmark_asan_to_system(left_goroutine);
    }
    left
}

/// The same as a function that can be called through its address.
///
/// # Safety
/// As there.
#[cfg(stackmark_tsan)]
pub(crate) unsafe extern "C-unwind" fn run_out_of_line(
    machine: *mut MachineHeader,
    goroutine: *mut GoroutineHeader,
) -> usize {
    // SAFETY: our contract is the same.
    unsafe { run(machine, goroutine) }
}

/// Which vector registers `barrier_common` keeps: what the CPU and the system have.
pub(crate) const KIND_SSE: u32 = 0;
pub(crate) const KIND_AVX: u32 = 1;
/// AVX-512 with masks of 16 bits.
pub(crate) const KIND_AVX512F: u32 = 2;
/// And with masks of 64 bits.
pub(crate) const KIND_AVX512BW: u32 = 3;

/// Bytes of the area in which `barrier_common` keeps registers of that kind, from the x87 state on.
pub(crate) const fn vector_bytes(kind: u32) -> usize {
    256 - 64
        + match kind {
            KIND_SSE => 16 * 16,
            KIND_AVX => 16 * 32,
            _ => 32 * 64,
        }
}

/// Asks the CPU which vector registers there are.
pub(crate) fn vector_kind() -> u32 {
    // Each implies that the system keeps the registers, and the one before.
    if is_x86_feature_detected!("avx512bw") {
        KIND_AVX512BW
    } else if is_x86_feature_detected!("avx512f") {
        KIND_AVX512F
    } else if is_x86_feature_detected!("avx") {
        KIND_AVX
    } else {
        KIND_SSE
    }
}

/// Offset in a parked goroutine's `call_system` frame of the callee-saved `r12`, for [`crate::prepare`].
pub(crate) const PARKED_R12: usize = 24;
/// Offset of the return address in that frame.
pub(crate) const PARKED_RETURN: usize = 48;
/// Bytes of a stack that a goroutine which has not run yet occupies.
pub(crate) const PREPARED_BYTES: usize = 72;
/// See [`crate::CALLBACK_FRAME_BYTES`].
pub(crate) const CALLBACK_BYTES: usize = 40;
