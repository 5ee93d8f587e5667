//! The primitives for armv7 with the AAPCS convention, floating-point numbers in their registers
//! (Linux). The code is ARM code; callers and callees may be Thumb code.
//!
//! # Two stacks
//!
//! Managed code runs on a goroutine stack, native code on the system stack of the machine. Every
//! frame that belongs to both is drawn here. Addresses grow upwards, `G` marks the goroutine stack
//! and `S` the system stack. The return slot of every frame is the word below its CFA, and the
//! saved r11, which is the frame pointer, lies below that.
//!
//! ```text
//! call_system, G                           call_system, S
//!  +104  ...managed caller   <- CFA          +16  ...older system frames
//!  +100  lr, the return address              +12  machine
//!   +96  r11                                  +8  machine.system_sp at the call
//!   +32  d8 ... d15                           +4  depth = stack_hi - sp of the G part
//!    +4  r4 ... r10                           +0  goroutine      <- sp, 8-aligned
//!    +0  (pad)   <- sp = g.sched.sp
//! ```
//!
//! The part on S keeps the *depth* of the part on G, not its address: while native code runs, a
//! callback may move the goroutine's stack (Go's issue 8696 was the address). The CFA is the DWARF
//! expression `goroutine.stack_hi - depth + 104`, so that unwinders and debuggers follow the move.
//!
//! ```text
//! callback, S                              callback, G
//!  +112  ...native caller    <- CFA          +16  call_system's part     = g.sched.sp
//!  +108  lr, the return address              +12  g.sched.pc: the return slot for walks of G
//!  +104  r11                                  +8  g.sched.fp
//!   +40  d8 ... d15                           +4  goroutine
//!   +12  r4 ... r10                           +0  sp of the S part       <- sp, 8-aligned
//!    +8  (pad)
//!    +4  (pad)
//!    +0  machine.system_sp before
//! ```
//!
//! A walk of the goroutine's stack leaves `callback` through its return slot, into `call_system`
//! and on to the managed caller. The system unwinder leaves it to the native caller: its CFA is the
//! word at sp, plus 112. `callback` never *returns* through the return slot, it copies it back into
//! `g.sched.pc`. Hence no barrier may sit there (Go's issue 12238).
//!
//! ```text
//! switch_out, G                            a goroutine that has not run yet, G
//!                                           +112  0
//!                                           +104  0   <- CFA of call_system's part
//!                                           +100  lr = goroutine_entry
//!                                            +96  r11 = 0
//!    +8  ...managed caller   <- CFA           +8  0 for all other registers
//!    +4  lr, the return address               +4  r4 = goroutine
//!    +0  r11   <- sp = g.sched.sp             +0  (pad)   <- g.sched.sp
//! ```
//!
//! # Switching to a goroutine and back
//!
//! `run` is inlined where a scheduler calls it, and has no frame. The machine keeps where it goes
//! on: `run_pc`, `run_fp` (r11), `run_saved` (r6, which the compiler keeps for itself) and
//! `system_sp`. The compiler keeps elsewhere what it needs of the other registers.
//!
//! `run` jumps to `g.sched.pc`, with the goroutine in r1 and `run_pc` in lr. There are two such
//! places, one for each kind of frame that a goroutine may stand in; each changes the stack in its
//! first instruction. A walk of a stopped goroutine takes `g.sched.pc` for a return address, so the
//! CFI of the byte before is that of the frame.
//!
//! # Native stacks
//!
//! Managed code may also run on the thread's own stack, with native frames between. Nothing is
//! switched then, and nothing moves.
//!
//! ```text
//! enter_managed                            call_native            call_native_all
//!  +128  ...native caller    <- CFA          +16  ...  <- CFA       +104  ...  <- CFA
//!  +124  lr, the return address              +12  lr                +100  lr
//!  +120  r11                                  +8  r11                +96  r11
//!   +56  d8 ... d15                           +4  r4                 +32  d8 ... d15
//!   +28  r4 ... r10                           +0  (pad)  <- sp        +4  r4 ... r10
//!   +24  (pad)                                                        +0  (pad)  <- sp
//!   +20  (pad)
//!   +16  g.entered before
//!   +12  g.sched.fp before
//!    +8  g.sched.sp before
//!    +4  g.sched.pc before
//!    +0  goroutine <- sp = g.entered
//! ```
//!
//! `call_native` makes `g.sched` the *anchor*: pc, CFA and r11 of its managed caller. A walk begins
//! there. It leaves `enter_managed` to the anchor that the frame keeps, over the native frames
//! between; the system unwinder leaves it to the native caller. No barrier lies in the return slot
//! of either. (The idea of such anchors is HotSpot's, `JavaFrameAnchor`.)
//!
//! On its way back `call_native` compares the word `g.watch` with its CFA. Thus a barrier can lie
//! at a call of native code, without a stub.
//!
//! A hit runs on the native stack itself, below the frame returned to.
//!
//! # Return addresses of Thumb code
//!
//! Their lowest bit is set. Slots and the table keep it, since code returns by them. Words that are
//! only read have the address without it: `g.sched.pc`, and the pcs that hooks are told.
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
//! next 4 mark a page of the pool, the others are stubs of 8 bytes, `nop; bl barrier_common`. A
//! hijacked slot holds stub + 4, so that what unwinders look up stays inside the stub. The stub may
//! change lr: at a return that register is dead.
//!
//! The table has 8 bytes for every 8 bytes of the pool, of which the first word counts. Thus the
//! saved return address of the stub at `pc` lies at `(pc + (table - pool)) & -8`. There is no DWARF
//! register for the pc, but lr of the stub's frame is the word that the younger frame returned by,
//! and at the stub's own instructions it is that as well. One FDE says just that, without a
//! relocation, TLS or a run-time call (`pool.s`).
//!
//! A goroutine in native code may be scanned while it unwinds itself. A scan may take the barrier
//! away while a walk stands at it; its stub and its word stay until the goroutine runs managed code
//! again. So the row looks whether what it is given lies in a page of the pool. If not, it is the
//! return address. That is in no place that the row knows: it gives values.
//!
//! ```text
//! barrier_common, G                        barrier_common, S
//!   +24  ...frame returned to  <- CFA        +80  d16 ... d31
//!   +20  the slot: stub + 4, later the       +16  d0 ... d7
//!        return address                      +12  machine; whether d16 ... are kept
//!   +16  r12                                  +8  address of the slot
//!    +0  r0 ... r3             <- sp          +4  depth
//!                                             +0  goroutine      <- sp, 8-aligned
//! ```
//!
//! A frame's own return slot is gone when the frame is: it lies below the stack pointer, and may
//! have been anywhere in the frame. `barrier_common` puts the same word into the slot that it gives
//! to the hook, right below the stack pointer of the frame returned to.
//!
//! # The system's unwinder
//!
//! It reads no CFI here. Its tables (EHABI, section `.ARM.exidx`) say for a whole function what it
//! has pushed, which is right at its calls alone; no opcode goes from one stack to another. So from
//! a signal handler on, only this library and debuggers walk, by CFI. LLVM's assembler writes it as
//! `.eh_frame` for ARM, too, where the assembly asks for it, and linkers make the table by which
//! `stackmark-unwind` finds it.
//!
//! A frame between two stacks has a personality, and that does the unwinding itself, in all phases:
//! it makes the stack pointer that of the part on the other stack, from where the opcodes go on. In
//! phase 2 that of `callback`, `enter_managed` and the pool also does what a return does. It may:
//! it runs on the stack of native code, and the frames younger than its own are done with. So there
//! are no landing pads, and nothing to resume: `_Unwind_Resume` takes the registers of its caller
//! for those of the landing pad's frame, and a frame behind a barrier has none.
//!
//! A barrier that is passed is told to the host as if the frame behind it had called out last:
//! `g.sched` is that frame itself, not a frame of `call_system` made for the purpose.
//!
//! `call_native` has a landing pad, as compiled functions have them. A forced unwinding asks its
//! stop function about a frame behind the frame's personality, not before: and where native code
//! has left a foreign call open, that function ends it. So what the way back does has to wait.
//!
//! `goroutine_entry` and `catch` find handlers. As other personalities of this ABI do, they note in
//! the exception which frame it was, by the stack pointer.
//!
//! # Landing pads
//!
//! In its last instructions the unwinder has dropped its own frame, and the landing pad counts as
//! its caller. A walk by CFI from a signal looks up the byte before the pad. So that byte belongs
//! to the pad's function and has the CFI that the pad begins with.

mod continuation;
mod frames;
mod jumps;
mod registers;
// Nothing of it differs from x86-64.
#[path = "../x86_64/signing.rs"]
mod signing;
mod stubs;
pub(crate) mod unwinding;
mod vectors;

pub use continuation::{CXX_HEADER_BYTES, Continuation};
pub(crate) use frames::CALL_SYSTEM_FP;
pub use frames::{
    CALL_BYTES, CALL_SYSTEM_BYTES, CALLBACK_FRAME_BYTES, ENTRY_RECORD_AT, PREPARED_BYTES,
};
pub use jumps::jump_target;
pub(crate) use registers::{current, run, stack_pointer};
pub use signing::{authenticate_return, sign_return};
pub use stubs::{BARRIER_PAGES, STUBS_PER_PAGE};
pub(crate) use stubs::{HEADER_STUBS, HIJACKED_AT, STUB_BYTES};
pub(crate) use vectors::initialise;
pub use vectors::limit_vectors;

use crate::layout::*;
use core::arch::{asm, global_asm};
use core::sync::atomic::Ordering::Relaxed;

#[cfg(any(stackmark_asan, stackmark_tsan))]
compile_error!("stackmark announces no switches of stacks to sanitizers on armv7");

// One block, in this order: the files from call_system_on_system.s to barrier_on_system.s are
// `__morestack`.
global_asm!(
    include_str!("saved.s"),
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
    m_on_watched = const M_ON_WATCHED,
    m_kept_vectors = const M_KEPT_VECTORS,
    m_run_pc = const M_RUN_PC,
    m_run_fp = const M_RUN_FP,
    m_run_saved = const M_RUN_SAVED,
    c_pc = const continuation::C_PC,
    c_sp = const continuation::C_SP,
    c_fp = const continuation::C_FP,
    c_values = const continuation::C_VALUES,
    c_r4 = const continuation::C_R4,
    c_d8 = const continuation::C_D8,
    call_system_fp = const CALL_SYSTEM_FP,
    keeps_results = const KEEPS_RESULTS,
    pages = const BARRIER_PAGES,
    stubs_per_page = const STUBS_PER_PAGE,
);

unsafe extern "C-unwind" {
    fn stackmark_goroutine_entry();
}

/// Writes the frames of a goroutine that has not run yet at its `stack_hi`. Returns the stack
/// pointer with which it goes on at [`resume_pc`](crate::resume_pc).
///
/// It stays in this module and out of line: for functions with debugging information LLVM asks its
/// assembler for `.debug_frame` alone, once for each module that it compiles, and what was asked
/// for last holds for all of it.
///
/// # Safety
/// As for [`prepare`](crate::prepare).
#[inline(never)]
pub(crate) unsafe fn write_first_frames(goroutine: &GoroutineHeader) -> usize {
    // SAFETY: a directive to the assembler, no instruction.
    unsafe {
        asm!(".cfi_sections .eh_frame, .debug_frame", options(nomem, nostack, preserves_flags))
    };
    let sp = goroutine.stack_hi.load(Relaxed) - PREPARED_BYTES;
    // SAFETY: the caller owns the bytes from sp to stack_hi.
    unsafe {
        core::ptr::write_bytes(sp as *mut u8, 0, PREPARED_BYTES);
        *((sp + frames::CALL_SYSTEM_R4) as *mut usize) = core::ptr::from_ref(goroutine) as usize;
        *((sp + frames::CALL_SYSTEM_RETURN) as *mut usize) =
            stackmark_goroutine_entry as *const () as usize;
    }
    sp
}
