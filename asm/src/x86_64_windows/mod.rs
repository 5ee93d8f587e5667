//! The primitives for x86-64 with the calling convention of Windows.
//!
//! # Two stacks
//!
//! Managed code runs on a goroutine stack, native code on the system stack of the machine. Every
//! frame that belongs to both is drawn here. Addresses grow upwards, `G` marks the goroutine stack
//! and `S` the system stack. Callers leave 32 bytes of shadow space below the return address for
//! their callees; those of the assembly here do not use it.
//!
//! ```text
//! call_system, G                           call_system, S
//!  +240  ...managed caller   <- CFA          +64  ...older system frames: machine.system_sp
//!  +232  return address
//!  +224  rbp
//!  +216  rbx
//!  +208  rdi                                 +56  rsp of the G part
//!  +200  rsi                                 +48  depth = stack_hi - rsp of the G part
//!  +192  r12                                 +40  goroutine
//!  +184  r13                                 +32  g.sched.pc
//!  +176  r14                                  +0  shadow space    <- rsp, 16-aligned
//!  +168  r15
//!  +160  (pad)
//!    +0  xmm6 ... xmm15      <- rsp = g.sched.sp, 16-aligned
//! ```
//!
//! On its way back `call_system` computes its part on G from the *depth*: while native code runs, a
//! callback may move the goroutine's stack (Go's issue 8696 was the address). The native function
//! keeps rbx and r12, the machine and the goroutine, and r13 and r14: the address of the part on G
//! and the `stack_hi` that belongs to it. If `stack_hi` has not changed, the way back takes the
//! address from r13.
//!
//! ```text
//! callback, S                              callback, G
//!  +256  ...native caller    <- CFA          +80  call_system's part     = g.sched.sp
//!  +248  return address                      +72  g.sched.pc: the return slot for walks of G
//!  +240  rbp                                 +64  (pad)
//!  +232  rbx                                 +56  rsp of the S part
//!  +224  rdi                                 +48  goroutine
//!  +216  rsi                                 +40  (pad)
//!  +208  r12                                 +32  a pc of the S part
//!  +200  r13                                  +0  shadow space    <- rsp, 16-aligned
//!  +192  r14
//!  +184  r15
//!  +176  (pad)
//!   +16  xmm6 ... xmm15
//!    +8  machine.system[1] before: the list of handlers
//!    +0  machine.system_sp before
//! ```
//!
//! A walk of the goroutine's stack leaves `callback` through its return slot, into `call_system`
//! and on to the managed caller. `callback` never *returns* through the return slot, it copies it
//! back into `g.sched.pc`. Hence no barrier may sit there (Go's issue 12238).
//!
//! ```text
//! a goroutine that has not run yet, G
//!  +280  0: what goroutine_entry returns to
//!  +240  shadow space and pad of goroutine_entry
//!  +232  goroutine_entry
//!    +0  a part of call_system: r12 = goroutine, all others 0   <- g.sched.sp
//! ```
//!
//! `switch_out` has the same part on G as `call_system`. It keeps all registers that a function
//! keeps.
//!
//! # How unwinders go from one stack to the other
//!
//! Windows' unwind codes have no expressions. One takes pc and stack pointer from a frame of an
//! interrupt in memory: the *record*. Its pc is the first word, its stack pointer the fourth.
//! `call_system` and a hit have one at the end of the older frames on S, `callback` on G, `run` in
//! the machine. The stack pointer in a record of S is an address in G: [`stack_moved`] rewrites
//! them when the stack moves. A walk so meets both parts of each frame.
//!
//! # Switching to a goroutine and back
//!
//! `run` is inlined where a scheduler calls it, and has no frame. The machine keeps where it goes
//! on: `system` (pc and rsp, as a record), `run_fp` (rbp) and `run_saved` (rbx). The compiler keeps
//! elsewhere what it needs of the other registers.
//!
//! `g.sched.pc` names a `nop` whose unwind information is that of `call_system`'s part on G, for
//! walks. `run` jumps behind it, with the machine in rcx and the goroutine in rdx. From there it
//! is a return that goes on with the goroutine: unwinders know no return address in a register.
//!
//! # The thread's environment block
//!
//! Windows, wine and compilers' stack probes read there where the thread's stack lies: gs:[0x8],
//! gs:[0x10], gs:[0x1478], and wine's list of handlers gs:[0]. Every switch of stacks changes them.
//! Those of S are in `machine.system` meanwhile: word 4, 2, 5 and 1. The limit is saved at each
//! switch to G, as the system lets S grow; the list by `run` and `callback`, as `system_sp` is.
//! Those of G are `stack_hi` and `stack_lo`, anew at each switch to G.
//!
//! # Native stacks
//!
//! Managed code may also run on the thread's own stack, with native frames between. Nothing is
//! switched then, and nothing moves.
//!
//! ```text
//! enter_managed                            call_native            call_native_all
//!  +320  ...native caller    <- CFA          +80  ...  <- CFA       +144  ...  <- CFA
//!  +312  return address                      +72  return address    +136  return address
//!  +304  rbp                                 +64  rbx               +128  rbp
//!  +296  rbx                                                        +120  rbx
//!  +288  rdi                                                        +112  rdi
//!  +280  rsi                                                        +104  rsi
//!  +272  r12                                                         +96  r12
//!  +264  r13                                                         +88  r13
//!  +256  r14                                                         +80  r14
//!  +248  r15                                                         +72  r15
//!  +240  (pad)                                                       +64  (pad)
//!   +80  xmm6 ... xmm15                      +48  xmm0               +48  xmm0
//!   +72  (pad)                               +40  (pad)              +40  (pad)
//!   +64  g.entered before                    +32  rax                +32  rax
//!   +56  g.sched.fp before                    +0  shadow space       +0  shadow space
//!   +48  g.sched.sp before
//!   +40  g.sched.pc before
//!   +32  goroutine             = g.entered
//!    +0  shadow space <- rsp
//! ```
//!
//! `call_native` makes `g.sched` the *anchor*: pc, CFA and rbp of its managed caller. A walk begins
//! there. It leaves `enter_managed` to the anchor that the frame keeps, over the native frames
//! between; the system unwinder leaves it to the native caller. No barrier lies in the return slot
//! of either. (The idea of such anchors is HotSpot's, `JavaFrameAnchor`.)
//!
//! On its way back `call_native` compares the word `g.watch` with its CFA. Thus a barrier can lie
//! at a call of native code, without a stub.
//!
//! A hit runs on the native stack itself, below the frame returned to.
//!
//! # The barrier pool
//!
//! [`BARRIER_PAGES`] pages of 4096 bytes, of stubs of 8 bytes; the first 8 bytes of each page are
//! none, as on other targets. A hijacked slot holds stub + 1. Each stub is a function for
//! unwinders, whose information [`describe_barrier`] writes: from the stack pointer of the frame
//! returned to, up to a record of its pc and stack pointer. Codes only add to the stack pointer, so
//! the record lies above the stack.
//!
//! # Exceptions
//!
//! See `personality/seh.rs`.

mod continuation;
mod frames;
mod jumps;
mod records;
mod registers;
// Nothing of these differs from other systems.
#[path = "../x86_64/signing.rs"]
mod signing;
#[path = "../x86_64/stubs.rs"]
mod stubs;
pub(crate) mod unwinding;
#[path = "../x86_64/vectors.rs"]
mod vectors;

pub(crate) use continuation::LANDING_REGISTER;
pub use continuation::{CXX_HEADER_BYTES, Continuation};
pub use frames::{
    CALL_BYTES, CALL_SYSTEM_BYTES, CALLBACK_FRAME_BYTES, ENTRY_RECORD_AT, PREPARED_BYTES,
    stack_moved,
};
pub use jumps::jump_target;
pub use records::{BarrierRecord, describe_barrier};
pub(crate) use registers::{current, run, stack_pointer};
pub use signing::{authenticate_return, sign_return};
pub use stubs::{BARRIER_PAGES, STUBS_PER_PAGE};
pub(crate) use stubs::{HEADER_STUBS, HIJACKED_AT, STUB_BYTES};
pub(crate) use vectors::initialise;
pub use vectors::limit_vectors;

use crate::layout::*;
use core::arch::global_asm;
use core::sync::atomic::Ordering::Relaxed;

#[cfg(any(stackmark_asan, stackmark_tsan))]
compile_error!("stackmark announces no switches of stacks to sanitizers on Windows");

// One block, beginning with switch_out.s and ending with the pool: the tests step through it.
global_asm!(
    include_str!("macros.s"),
    include_str!("../x86_64/vectors.s"),
    include_str!("switch_out.s"),
    include_str!("machine.s"),
    include_str!("call_system.s"),
    include_str!("callback.s"),
    include_str!("continue.s"),
    include_str!("catch.s"),
    include_str!("enter_managed.s"),
    include_str!("call_native.s"),
    include_str!("entry.s"),
    include_str!("barrier.s"),
    include_str!("pool.s"),
    g_stack_hi = const G_STACK_HI,
    g_stack_lo = const G_STACK_LO,
    g_sched_pc = const G_SCHED_PC,
    g_sched_sp = const G_SCHED_SP,
    g_sched_fp = const G_SCHED_FP,
    g_entry = const G_ENTRY,
    g_start_arg = const G_START_ARG,
    g_on_exit = const G_ON_EXIT,
    g_callback_depth = const G_CALLBACK_DEPTH,
    g_on_uncaught = const G_ON_UNCAUGHT,
    g_entered = const G_ENTERED,
    g_watch = const G_WATCH,
    m_goroutine = const M_GOROUTINE,
    m_system_sp = const M_SYSTEM_SP,
    m_on_hit = const M_ON_HIT,
    m_on_watched = const M_ON_WATCHED,
    m_kept_vectors = const M_KEPT_VECTORS,
    m_run_fp = const M_RUN_FP,
    m_run_saved = const M_RUN_SAVED,
    m_system = const M_SYSTEM,
    m_on_thrown = const M_ON_THROWN,
    c_pc = const continuation::C_PC,
    c_sp = const continuation::C_SP,
    c_rbp = const continuation::C_RBP,
    c_rbx = const continuation::C_RBX,
    c_rdi = const continuation::C_RDI,
    c_rsi = const continuation::C_RSI,
    c_r12 = const continuation::C_R12,
    c_r13 = const continuation::C_R13,
    c_r14 = const continuation::C_R14,
    c_r15 = const continuation::C_R15,
    c_rax = const continuation::C_RAX,
    c_rdx = const continuation::C_RDX,
    c_vectors = const continuation::C_VECTORS,
    keeps_narrow = const KEEPS_NARROW,
    kind_avx = const vectors::KIND_AVX,
    kind_avx512 = const vectors::KIND_AVX512BW,
    pages = const BARRIER_PAGES,
    stubs_per_page = const STUBS_PER_PAGE,
    unwind_bytes = const records::STUB_UNWIND_BYTES,
);

unsafe extern "C-unwind" {
    fn stackmark_goroutine_entry();
}

/// Writes the frames of a goroutine that has not run yet at its `stack_hi`. Returns the stack
/// pointer with which it goes on at [`resume_pc`](crate::resume_pc).
///
/// # Safety
/// As for [`prepare`](crate::prepare).
pub(crate) unsafe fn write_first_frames(goroutine: &GoroutineHeader) -> usize {
    let sp = goroutine.stack_hi.load(Relaxed) - PREPARED_BYTES;
    // SAFETY: the caller owns the bytes from sp to stack_hi.
    unsafe {
        core::ptr::write_bytes(sp as *mut u8, 0, PREPARED_BYTES);
        *((sp + frames::CALL_SYSTEM_R12) as *mut usize) = core::ptr::from_ref(goroutine) as usize;
        *((sp + frames::CALL_SYSTEM_RETURN) as *mut usize) =
            stackmark_goroutine_entry as *const () as usize;
    }
    sp
}
