//! The primitives for i686 with the System V calling convention (Linux): arguments in memory, the
//! stack 16-aligned at calls.
//!
//! # Two stacks
//!
//! Managed code runs on a goroutine stack, native code on the system stack of the machine. Every
//! frame that belongs to both is drawn here. Addresses grow upwards, `G` marks the goroutine stack
//! and `S` the system stack.
//!
//! ```text
//! call_system, G                           call_system, S
//!   +20  ...arguments        <- CFA          +16  ...older system frames: machine.system_sp
//!   +16  return address                      +12  depth = stack_hi - esp of the G part
//!   +12  ebp                                  +8  goroutine
//!    +8  ebx                                  +4  b
//!    +4  esi                                  +0  a              <- esp, 16-aligned
//!    +0  edi   <- esp = g.sched.sp
//! ```
//!
//! The part on S keeps the *depth* of the part on G, not its address: while native code runs, a
//! callback may move the goroutine's stack (Go's issue 8696 was the address). The CFA is the DWARF
//! expression `goroutine.stack_hi - depth + 20`, so that unwinders and debuggers follow the move.
//! a and b belong to the native function, which may change them.
//!
//! ```text
//! callback, S                              callback, G
//!   +32  ...arguments        <- CFA          +28  call_system's part     = g.sched.sp
//!   +28  return address                      +24  g.sched.pc: the return slot for walks of G
//!   +24  ebp                                 +20  (pad)
//!   +20  ebx                                 +16  (pad)
//!   +16  esi                                 +12  (pad)
//!   +12  edi                                  +8  goroutine
//!    +8  (pad)                                +4  esp of the S part
//!    +4  (pad)                                +0  argument       <- esp, 16-aligned
//!    +0  machine.system_sp before
//! ```
//!
//! A walk of the goroutine's stack leaves `callback` through its return slot, into `call_system`
//! and on to the managed caller. The system unwinder leaves it to the native caller: its CFA is the
//! second word at esp, plus 32. `callback` never *returns* through the return slot, it copies it
//! back into `g.sched.pc`. Hence no barrier may sit there (Go's issue 12238).
//!
//! ```text
//! switch_out, G                            a goroutine that has not run yet, G
//!                                            +36  stack_hi
//!                                            +28  (pad)
//!                                            +20  16 bytes for arguments
//!                                            +16  goroutine_entry
//!                                            +12  ebp = 0
//!    +8  ...arguments        <- CFA           +8  ebx = 0
//!    +4  return address                       +4  esi = goroutine
//!    +0  ebp   <- esp = g.sched.sp            +0  edi = 0   <- g.sched.sp
//! ```
//!
//! # Where the code lies
//!
//! There is no addressing by pc. A function calls `stackmark_here_REGISTER`, which returns the
//! address of what follows, and adds the distance to the global offset table. The call writes one
//! word below the stack pointer.
//!
//! # Switching to a goroutine and back
//!
//! `run` is inlined where a scheduler calls it, and has no frame. The machine keeps where it goes
//! on: `run_pc`, `run_fp` (ebp), `run_saved` (esi, which the compiler keeps for itself) and
//! `system_sp` (esp). The compiler keeps elsewhere what it needs of the other registers.
//!
//! `run` jumps to `g.sched.pc`, with the goroutine in edx and `run_pc` in ecx. There are two such
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
//!   +48  ...arguments        <- CFA          +16  ...  <- CFA        +32  ...  <- CFA
//!   +44  return address                      +12  return address     +28  return address
//!   +40  ebp                                  +8  ebx                +24  ebp
//!   +36  ebx                                  +4  b                  +20  ebx
//!   +32  esi                                  +0  a    <- esp        +16  esi
//!   +28  edi                                                         +12  edi
//!   +24  g.entered before                                             +8  (pad)
//!   +20  g.sched.fp before                                            +4  b
//!   +16  g.sched.sp before                                            +0  a    <- esp
//!   +12  g.sched.pc before
//!    +8  goroutine             = g.entered
//!    +4  (pad)
//!    +0  argument <- esp
//! ```
//!
//! `call_native` makes `g.sched` the *anchor*: pc, CFA and ebp of its managed caller. A walk begins
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
//! so that the pc - 1 of unwinders stays inside the stub. The table has 8 bytes for every 8 bytes
//! of the pool, of which the first word counts. Thus the saved return address of the stub at `pc`
//! lies *at* `(pc + (table - pool)) & -8`, at every instruction of the stub. One FDE says just
//! that, without a relocation, TLS or a run-time call (`pool.s`).
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
//! Unwinding goes on by a call of `_Unwind_Resume`, whose argument lies in memory. Where a frame
//! was called with arguments, its pad puts the exception in their place, drops the frame and jumps.
//! The frame behind a barrier has not left such a place: there `call_system` is entered with its
//! arguments in registers. So `call_native` may be, and its pad keeps its frame.
//!
//! The FDE of the pool is not a `.cfi_signal_frame`: personality routines would look up pc instead
//! of pc - 1, and panics would abort.
//!
//! # What a hit keeps
//!
//! Functions return floating-point numbers on the x87 stack. So a hit keeps that whatever the
//! machine's byte says, if there is anything on it.

mod continuation;
mod frames;
mod jumps;
mod registers;
// Nothing of these differs from x86-64.
#[path = "../x86_64/signing.rs"]
mod signing;
#[path = "../x86_64/stubs.rs"]
mod stubs;
#[path = "../x86_64/unwinding.rs"]
pub(crate) mod unwinding;
#[path = "../x86_64/vectors.rs"]
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

#[cfg(any(stackmark_asan, stackmark_tsan))]
compile_error!("stackmark announces no switches of stacks to sanitizers on i686");

// One block, in this order: the files from call_system_on_system.s to barrier_on_system.s are
// `__morestack`.
global_asm!(
    include_str!("macros.s"),
    include_str!("machine.s"),
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
    c_ebp = const continuation::C_EBP,
    c_ebx = const continuation::C_EBX,
    c_esi = const continuation::C_ESI,
    c_edi = const continuation::C_EDI,
    c_eax = const continuation::C_EAX,
    c_edx = const continuation::C_EDX,
    keeps_narrow = const KEEPS_NARROW,
    kind_avx = const vectors::KIND_AVX,
    kind_avx512 = const vectors::KIND_AVX512BW,
    pages = const BARRIER_PAGES,
    stubs_per_page = const STUBS_PER_PAGE,
);

unsafe extern "C-unwind" {
    fn stackmark_goroutine_entry();
}

/// Writes the frames of a goroutine that has not run yet at its `stack_hi`. Returns the stack
/// pointer with which it goes on at [`resume_pc`](crate::resume_pc).
///
/// It stays in this module and out of line: LLVM puts the CFI of the assembly into `.eh_frame` only
/// if the module that it compiles has a function with unwind tables.
///
/// # Safety
/// As for [`prepare`](crate::prepare).
#[inline(never)]
pub(crate) unsafe fn write_first_frames(goroutine: &GoroutineHeader) -> usize {
    let sp = goroutine.stack_hi.load(Relaxed) - PREPARED_BYTES;
    // SAFETY: the caller owns the bytes from sp to stack_hi.
    unsafe {
        core::ptr::write_bytes(sp as *mut u8, 0, PREPARED_BYTES);
        *((sp + frames::CALL_SYSTEM_ESI) as *mut usize) = core::ptr::from_ref(goroutine) as usize;
        *((sp + frames::CALL_SYSTEM_RETURN) as *mut usize) =
            stackmark_goroutine_entry as *const () as usize;
    }
    sp
}
