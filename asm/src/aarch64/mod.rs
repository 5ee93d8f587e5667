//! The primitives for arm64 with the AAPCS64 calling convention (Linux).
//!
//! # Two stacks
//!
//! Managed code runs on a goroutine stack, native code on the system stack of the machine. Every
//! frame that belongs to both is drawn here. Addresses grow upwards, `G` marks the goroutine stack
//! and `S` the system stack. The return slot of every frame is the word below its CFA, and the
//! saved x29 lies below that.
//!
//! ```text
//! call_system, G                           call_system, S
//!  +160  ...managed caller   <- CFA          +32  ...older system frames
//!  +152  x30, the return address             +24  machine
//!  +144  x29                                 +16  machine.system_sp at the call
//!   +80  d8 ... d15                           +8  depth = stack_hi - sp of the G part
//!    +0  x19 ... x28 <- sp = g.sched.sp       +0  goroutine      <- sp, 16-aligned
//! ```
//!
//! The part on S keeps the *depth* of the part on G, not its address: while native code runs, a
//! callback may move the goroutine's stack (Go's issue 8696 was the address). The CFA is the DWARF
//! expression `goroutine.stack_hi - depth + 160`, so that unwinders and debuggers follow the move.
//!
//! The native function keeps x21 and x22: the address of the part on G and the `stack_hi` that
//! belongs to it. If `stack_hi` has not changed, the way back takes the address from x21 and does
//! not wait for the depth in memory.
//!
//! ```text
//! callback, S                              callback, G
//!  +176  ...native caller    <- CFA          +32  call_system's part     = g.sched.sp
//!  +168  x30, the return address             +24  g.sched.pc: the return slot for walks of G
//!  +160  x29                                 +16  g.sched.fp
//!   +96  d8 ... d15                           +8  goroutine
//!   +16  x19 ... x28                          +0  sp of the S part       <- sp, 16-aligned
//!    +8  (pad)
//!    +0  machine.system_sp before
//! ```
//!
//! A walk of the goroutine's stack leaves `callback` through its return slot, into `call_system`
//! and on to the managed caller. The system unwinder leaves it to the native caller: its CFA is the
//! word at sp, plus 176. `callback` never *returns* through the return slot, it copies it back into
//! `g.sched.pc`. Hence no barrier may sit there (Go's issue 12238).
//!
//! ```text
//! switch_out, G                            a goroutine that has not run yet, G
//!                                           +168  0
//!                                           +160  0   <- CFA of call_system's part
//!   +32  ...managed caller   <- CFA         +152  x30 = goroutine_entry
//!   +24  x30, the return address            +144  x29 = 0
//!   +16  x29                                 +16  0 for all other registers
//!    +8  x28                                  +8  x20 = goroutine
//!    +0  x21   <- sp = g.sched.sp             +0  x19 = 0   <- g.sched.sp
//! ```
//!
//! x28 and x21 are the registers that Cranelift's Winch convention keeps, and that it pins. x18
//! belongs to the platform: nothing here reads or writes it.
//!
//! # Switching to a goroutine and back
//!
//! `run` is inlined where a scheduler calls it, and has no frame. The machine keeps where it goes
//! on: `run_pc`, `run_fp` (x29), `run_saved` (x19, which the compiler keeps for itself) and
//! `system_sp`. The compiler keeps elsewhere what it needs of the other registers.
//!
//! `run` jumps to `g.sched.pc`, with the goroutine in x1 and `run_pc` in x30. There are two such
//! places, one for each kind of frame that a goroutine may stand in; each changes the stack in its
//! first instructions. A walk of a stopped goroutine takes `g.sched.pc` for a return address, so
//! the CFI of the byte before is that of the frame.
//!
//! # Native stacks
//!
//! Managed code may also run on the thread's own stack, with native frames between. Nothing is
//! switched then, and nothing moves.
//!
//! ```text
//! enter_managed                            call_native            call_native_all
//!  +208  ...native caller    <- CFA          +32  ...  <- CFA       +160  ...  <- CFA
//!  +200  x30, the return address             +24  x30               +152  x30
//!  +192  x29                                 +16  x29               +144  x29
//!  +128  d8 ... d15                           +8  (pad)              +80  d8 ... d15
//!   +48  x19 ... x28                          +0  x19  <- sp          +0  x19 ... x28  <- sp
//!   +40  (pad)
//!   +32  g.entered before
//!   +24  g.sched.fp before
//!   +16  g.sched.sp before
//!    +8  g.sched.pc before
//!    +0  goroutine <- sp = g.entered
//! ```
//!
//! `call_native` makes `g.sched` the *anchor*: pc, CFA and x29 of its managed caller. A walk begins
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
//! next 4 mark a page of the pool, the others are stubs of 8 bytes, `bti j; bl barrier_common`. A
//! hijacked slot holds stub + 4, so that the pc - 1 of unwinders stays inside the stub. The stub
//! may change x30: at a return that register is dead.
//!
//! The table has one word for every 8 bytes of the pool. Thus the saved return address of the stub
//! at `pc` lies at `(pc + (table - pool)) & -8`. There is no DWARF register for the pc, but x30
//! of the stub's frame is the word that the younger frame returned by, and at the stub's own
//! instructions it is that as well. One FDE says just that, without a relocation, TLS or a run-time
//! call (`pool.s`). The word may be signed: a function that signs its return address returns
//! through a stub whose address is signed for its frame. So the expression clears the upper 16
//! bits, where the signature lies.
//!
//! A goroutine in native code may be scanned while it unwinds itself. libgcc reads a return slot
//! once for the row, and again as the row's register. A scan may take the barrier away in between;
//! its stub and its word stay until the goroutine runs managed code again.
//! So the row looks whether what it is given lies in a page of the pool. If not, it is the return
//! address. That is in no place that the row knows: it gives values.
//!
//! ```text
//! barrier_common, G                        barrier_common, S
//!  +144  ...frame returned to  <- CFA        +32  vectors
//!  +136  the slot: stub + 4, later the       +24  index of the stub
//!        return address                      +16  address of the slot
//!  +128  (pad)                                +8  depth
//!    +0  x0 ... x15            <- sp          +0  goroutine      <- sp, 16-aligned
//! ```
//!
//! A frame's own return slot is gone when the frame is: it lies below the stack pointer, and may
//! have been anywhere in the frame. `barrier_common` puts the same word into the slot that it gives
//! to the hook, right below the stack pointer of the frame returned to.
//!
//! # Jumps and their targets
//!
//! Where processors check the targets of jumps (BTI), a `br` may go to a `bti j` alone, or by x16
//! to a `bti c`; a `ret` may go anywhere. What is entered by a jump here begins with one of them.
//! Older processors run them as `nop`.
//!
//! # Landing pads
//!
//! In its last instructions the unwinder has dropped its own frame, and the landing pad counts as
//! its caller. A walk from a signal looks up the byte before the pad. So that byte belongs to the
//! pad's function and has the CFI that the pad begins with. It is a `nop` where the instruction
//! before has another CFI. An exception that passes a barrier lands in the stub itself, at its
//! beginning.
//!
//! The FDE of the pool is not a `.cfi_signal_frame`: personality routines would look up pc instead
//! of pc - 1, and panics would abort.

mod continuation;
mod frames;
mod jumps;
mod registers;
mod signing;
mod stubs;
#[path = "../x86_64/unwinding.rs"]
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
    include_str!("saved.s"),
    include_str!("macros.s"),
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
    m_run_pc = const M_RUN_PC,
    m_run_fp = const M_RUN_FP,
    m_run_saved = const M_RUN_SAVED,
    c_pc = const continuation::C_PC,
    c_sp = const continuation::C_SP,
    c_fp = const continuation::C_FP,
    c_values = const continuation::C_VALUES,
    c_x19 = const continuation::C_X19,
    c_d8 = const continuation::C_D8,
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
        *((sp + frames::CALL_SYSTEM_X20) as *mut usize) = core::ptr::from_ref(goroutine) as usize;
        *((sp + frames::CALL_SYSTEM_RETURN) as *mut usize) =
            stackmark_goroutine_entry as *const () as usize;
    }
    sp
}
