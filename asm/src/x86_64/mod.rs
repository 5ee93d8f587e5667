//! The primitives for x86-64 with the System V calling convention (Linux).
//!
//! # Two stacks
//!
//! Managed code runs on a goroutine stack, native code on the system stack of the machine. Every
//! frame that belongs to both is drawn here. Addresses grow upwards, `G` marks the goroutine stack
//! and `S` the system stack.
//!
//! ```text
//! call_system, G                           call_system, S
//!   +56  ...managed caller   <- CFA          +16  ...older system frames: machine.system_sp
//!   +48  return address
//!   +40  rbp
//!   +32  rbx                                  +8  depth = stack_hi - rsp of the G part
//!   +24  r12                                  +0  goroutine      <- rsp, 16-aligned
//!   +16  r13
//!    +8  r14
//!    +0  r15   <- rsp = g.sched.sp
//! ```
//!
//! The part on S keeps the *depth* of the part on G, not its address: while native code runs, a
//! callback may move the goroutine's stack (Go's issue 8696 was the address). The CFA is the DWARF
//! expression `goroutine.stack_hi - depth + 56`, so that unwinders and debuggers follow the move.
//!
//! The native function keeps rbx and r12, the machine and the goroutine, and r13 and r14: the
//! address of the part on G and the `stack_hi` that belongs to it. If `stack_hi` has not changed,
//! the way back takes the address from r13 and does not wait for the depth in memory. That saves a
//! fifth of the time of a short call.
//!
//! ```text
//! callback, S                              callback, G
//!   +64  ...native caller    <- CFA          +40  call_system's part     = g.sched.sp
//!   +56  return address                      +32  g.sched.pc: the return slot for walks of G
//!   +48  rbp                                 +24  (pad)
//!   +40  rbx                                 +16  (pad)
//!   +32  r12                                  +8  goroutine
//!   +24  r13                                  +0  rsp of the S part      <- rsp, 16-aligned
//!   +16  r14
//!    +8  r15
//!    +0  machine.system_sp before
//! ```
//!
//! A walk of the goroutine's stack leaves `callback` through its return slot, into `call_system`
//! and on to the managed caller. The system unwinder leaves it to the native caller: its CFA is the
//! word at rsp, plus 64. `callback` never *returns* through the return slot, it copies it back into
//! `g.sched.pc`. Hence no barrier may sit there (Go's issue 12238).
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
//! `run` is inlined where a scheduler calls it, and has no frame. The machine keeps where it goes
//! on: `run_pc`, `run_fp` (rbp), `run_saved` (rbx) and `system_sp` (rsp). The compiler keeps
//! elsewhere what it needs of the other registers.
//!
//! `run` jumps to `g.sched.pc`, with the goroutine in rsi and `run_pc` in rcx. There are two such
//! places, one for each kind of frame that a goroutine may stand in; each changes the stack in its
//! first instruction. A walk of a stopped goroutine takes `g.sched.pc` for a return address, so the
//! CFI of the byte before is that of the frame.
//!
//! A frame that `leave` has left goes on by a jump: the processor expects returns of the native
//! frames that were dropped. A frame of `switch_out` goes on by a return: the youngest call that
//! has not returned is the call of `switch_out`, if the scheduler has its loop inlined round `run`.
//!
//! # Native stacks
//!
//! Managed code may also run on the thread's own stack, with native frames between. Nothing is
//! switched then, and nothing moves.
//!
//! ```text
//! enter_managed                            call_native            call_native_all
//!   +96  ...native caller    <- CFA          +16  ...  <- CFA        +64  ...  <- CFA
//!   +88  return address                       +8  return address     +56  return address
//!   +80  rbp                                  +0  rbx  <- rsp        +48  rbp
//!   +72  rbx                                                         +40  rbx
//!   +64  r12                                                         +32  r12
//!   +56  r13                                                         +24  r13
//!   +48  r14                                                         +16  r14
//!   +40  r15                                                          +8  r15
//!   +32  g.entered before                                             +0  (pad)  <- rsp
//!   +24  g.sched.fp before
//!   +16  g.sched.sp before
//!    +8  g.sched.pc before
//!    +0  goroutine <- rsp = g.entered
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
//! A hit runs on the native stack itself, below the frame returned to. An exception that passes a
//! barrier there goes on as if that frame had called `call_native`.
//!
//! # `__morestack`
//!
//! gdb stops with "previous frame inner to this frame" where the older frame lies at lower
//! addresses. Between two stacks that is so in one of their two orders. gdb makes an exception for
//! a function called `__morestack`, for GCC's split stacks. So all code that runs after a switch
//! lies side by side under one local symbol of that name.
//!
//! # The barrier pool
//!
//! [`BARRIER_PAGES`] pages of 4096 bytes. The first 4 bytes of each page hold `table - pool`, the
//! next 4 mark a page of the pool, the others are stubs of 8 bytes. A hijacked slot holds stub + 1,
//! so that the pc - 1 of unwinders stays inside the stub. The table has one word for every 8 bytes
//! of the pool. Thus the saved return address of the stub at `pc` lies *at*
//! `(pc + (table - pool)) & -8`, at every instruction
//! of the stub. One FDE says just that, without a relocation, TLS or a run-time call (`pool.s`).
//!
//! A goroutine in native code may be scanned while it unwinds itself. libgcc reads a return slot
//! once for the row, and again as the row's register. A scan may take the barrier away in between;
//! its stub and its word stay until the goroutine runs managed code again.
//! So the row looks whether what it is given lies in a page of the pool, and takes the slot if not.
//!
//! # Landing pads
//!
//! In its last instructions the unwinder has dropped its own frame, and the landing pad counts as
//! its caller. A walk from a signal looks up the byte before the pad. So that byte belongs to the
//! pad's function and has the CFI that the pad begins with. It is a `nop` where the instruction
//! before has another CFI. An exception that passes a barrier lands in the stub itself, at the word
//! that the slot held.
//!
//! The FDE of the pool is not a `.cfi_signal_frame`: personality routines would look up pc instead
//! of pc - 1, and panics would abort.

mod continuation;
mod frames;
mod jumps;
mod registers;
mod signing;
mod stubs;
pub(crate) mod unwinding;
mod vectors;

pub(crate) use continuation::LANDING_REGISTER;
pub use continuation::{CXX_HEADER_BYTES, Continuation};
pub(crate) use frames::leapfrogged_slot;
pub use frames::{
    CALL_BYTES, CALL_SYSTEM_BYTES, CALLBACK_FRAME_BYTES, ENTRY_RECORD_AT, PREPARED_BYTES,
};
pub use jumps::jump_target;
pub(crate) use registers::{current, run, stack_pointer};
pub use signing::{authenticate_return, sign_return};
pub use stubs::{BARRIER_PAGES, STUBS_PER_PAGE};
pub(crate) use stubs::{HEADER_STUBS, HIJACKED_AT, LANDS_AT, STUB_BYTES};
pub(crate) use vectors::initialise;
pub use vectors::limit_vectors;

use crate::layout::*;
use core::arch::global_asm;
use core::sync::atomic::Ordering::Relaxed;

// One block, in this order: the files from call_system_on_system.s to barrier_on_system.s are
// `__morestack`.
global_asm!(
    include_str!("machine.s"),
    include_str!("macros.s"),
    include_str!("vectors.s"),
    include_str!("switch_out.s"),
    include_str!("call_system.s"),
    include_str!("call_system_on_system.s"),
    include_str!("callback_on_goroutine.s"),
    include_str!("barrier_on_system.s"),
    include_str!("callback.s"),
    include_str!("continue.s"),
    include_str!("catch.s"),
    include_str!("enter_managed.s"),
    include_str!("call_native.s"),
    include_str!("entry.s"),
    include_str!("barrier.s"),
    include_str!("pool.s"),
    g_stack_hi = const G_STACK_HI,
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
    m_passing = const M_PASSING,
    m_on_watched = const M_ON_WATCHED,
    m_kept_vectors = const M_KEPT_VECTORS,
    m_run_pc = const M_RUN_PC,
    m_run_fp = const M_RUN_FP,
    m_run_saved = const M_RUN_SAVED,
    c_pc = const continuation::C_PC,
    c_sp = const continuation::C_SP,
    c_rbp = const continuation::C_RBP,
    c_rbx = const continuation::C_RBX,
    c_r12 = const continuation::C_R12,
    c_r13 = const continuation::C_R13,
    c_r14 = const continuation::C_R14,
    c_r15 = const continuation::C_R15,
    c_rax = const continuation::C_RAX,
    c_rdx = const continuation::C_RDX,
    keeps_narrow = const KEEPS_NARROW,
    kind_avx = const vectors::KIND_AVX,
    kind_avx512 = const vectors::KIND_AVX512BW,
    pages = const BARRIER_PAGES,
    stubs_per_page = const STUBS_PER_PAGE,
    announced = const cfg!(stackmark_asan) as u8,
);

#[cfg(stackmark_tsan)]
global_asm!(include_str!("rewound.s"));

unsafe extern "C-unwind" {
    fn stackmark_goroutine_entry();
}

/// Writes the frames of a goroutine that has not run yet at its `stack_hi`. Returns the stack
/// pointer with which it goes on at [`resume_pc`](crate::resume_pc).
///
/// It stays in this module and out of line: LLVM puts the CFI of the assembly into `.eh_frame` only
/// if the module that it compiles has a function with unwind tables. The constructor that a
/// sanitizer adds to each module has none, and alone would make it `.debug_frame`.
///
/// # Safety
/// As for [`prepare`](crate::prepare).
#[inline(never)]
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
