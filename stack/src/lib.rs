//! Goroutine stacks that start small and grow by moving. Calls out and callbacks survive the moves.
//! Every frame gives exact roots, and return barriers bound how much of a stack is scanned again.
//!
//! A [`Runtime`] is shared by [`Machine`]s, which are OS threads that run [`Goroutine`]s. The
//! embedder's compiler makes managed code and registers it with [`stackmark_unwind::Code`].
//!
//! - *Managed code* calls native functions through
//!   [`call_system`](stackmark_asm::call_system_address). There a [`Caller`] names the goroutine,
//!   parks it, or calls back. Managed code calls [`poll`] when its stack pointer is below the poll
//!   word. It calls [`switch_out`](asm::switch_out_address) with [`YIELD`] to let others run.
//! - *An embedder* implements [`Host`], and runs goroutines by [`Machine::run`] or
//!   with the [`scheduler`].
//! - *A collector* implements [`RootSink`] and drives cycles with the runtime's
//!   [`CycleDriver`]: [`CycleDriver::handshake`], [`CycleDriver::begin_scanning`],
//!   [`CycleDriver::scan_goroutines`], [`Runtime::scan_frozen`],
//!   [`CycleDriver::rescan_concurrently`] and [`CycleDriver::stop_world`]. In the stopped
//!   world, [`CycleStopped`] rescans and ends the scans. A collector with generations begins
//!   its minor collections with [`ScanScope::Short`], which leaves out the frames that have not
//!   run since the last collection.
//!
//! ```
//! use stackmark_stack::{Config, Goroutine, Host, Left, Machine, Runtime};
//! use std::sync::Arc;
//!
//! struct Embedder;
//! impl Host for Embedder {
//!     fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
//!         panic!("stack exceeds {limit} bytes")
//!     }
//! }
//! // Managed code of the C convention that does nothing. A real embedder generates and registers
//! // its code.
//! extern "C-unwind" fn managed(_goroutine: usize, _argument: usize) {}
//!
//! let code = Arc::new(stackmark_unwind::Code::new());
//! let runtime = Runtime::new(Config::default(), code, Box::new(Embedder))?;
//! let machine = Machine::attach(&runtime)?;
//! // SAFETY: the function makes no calls, and its frame is smaller than the stack's guard.
//! let goroutine = unsafe { runtime.spawn(managed as *const () as usize, 0)? };
//! assert!(matches!(machine.run(goroutine), Left::Exited));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Contracts with managed code
//!
//! - **C1**: at every safepoint a frame's layout is what its CFI says, and the safepoint's stack
//!   map has every live reference. From call to return a return address stays in its slot. A
//!   function that moves its return address is registered as such, and gets no barrier. One that
//!   signs it (arm64 PAC) signs it for its CFA, with key A, and its CFI says so.
//! - **C2**: at a safepoint a live pointer into the goroutine's own stack is only in a stack-map
//!   slot. A move rewrites the slots whose value lies within the old stack, and the saved frame
//!   pointers of frames that compute their CFA from theirs. It signs signed return addresses again,
//!   and rewrites nothing else. Cranelift at `opt_level=speed` needs care in two respects. First,
//!   take each stack slot's address once, in the entry block, and declare it. Second, undo the
//!   sharing of `stack_addr` after optimisation, also for the slots that references are spilled to:
//!   a load that is merged into its user takes the address from a register, which may have it
//!   across calls. (`rematerialise` of `stackmark-cranelift` does that.)
//! - **C3**: a store through a pointer that may point into an older frame goes through the
//!   collector's write barrier, and so does a bulk store. Stack slots that have references are
//!   zeroed before the first safepoint that maps them. No address in another goroutine's stack is
//!   live across a safepoint.
//! - **C4**: a function with a frame of more than [`Config::max_frame`] bytes first asks [`poll`]
//!   for the room. Native code runs on the system stack only, through `call_system`.
//! - **C5**: managed code finds its goroutine by the address of the goroutine's header, which stays
//!   the same, and not by its thread: after any safepoint it may run on another thread.
//! - **C6**: a function calls [`poll`] when its stack pointer is below the word `stack_limit` of
//!   its goroutine's header. A loop calls it when the word is `usize::MAX`, and so does code behind
//!   a call that may be a part of a recursion: between its returns there is no other poll.
//! - **C7**: signal handlers run on the alternate stack that a thread has when it is
//!   attached, or gets then. Handlers without `SA_ONSTACK` are reported to [`Host::warn`]
//!   when the runtime is made. One that is installed later ends the process, with one line and
//!   status 2, when it is found: on the way back from native code, or by the [`scheduler`]'s
//!   monitor. Windows has no such stacks: code that faults there needs room for the handlers.
//! - **C8**: the child of a fork does not call into the runtime, whose other threads it does not
//!   have. If it does, it ends with one line and status 2.
//!
//! Managed code on a [fixed stack](StackKind::Fixed) need not keep C2. Managed code on a [native
//! stack](#native-stacks) need not either, and calls native code there, as said below.
//!
//! Native code that managed code calls is atomic to a collector until it returns, parks, yields or
//! enters [`Caller::foreign`]. Its goroutine is not scanned before, so it may keep references in
//! plain words until then.
//!
//! # Calls out and in
//!
//! - A *leaf* call is `call_system(f, a, b)` with the C function itself: it changes stacks,
//!   and does nothing else. The function is short, does not wait for anything, does not call
//!   back, and keeps no address in the goroutine's stack. A handshake and a stop of the
//!   world wait for its end.
//! - [`Caller::foreign`] is for everything else. During the call other threads may scan the
//!   goroutine, and the world stops without waiting for it. If the call lasts, the [`scheduler`]
//!   gives the other goroutines of its thread to another thread. The native function may park, call
//!   back ([`Caller::callback`]), throw, be left by [`Caller::unwind_to`], or end its thread.
//! - [`Caller::lib_call`] is a foreign call whose parameters, result and errno lie in the machine.
//! - [`Runtime::call_in`] is for native code that does not know whether its thread
//!   has ever run a goroutine.
//!
//! During a callback the whole stack may move, also the frames older than the call
//! out. A native function that writes a result into the goroutine's stack takes
//! [`stackmark_stack_top`](asm::stackmark_stack_top) before and after the callback,
//! and adds the difference.
//!
//! # Native stacks
//!
//! A thread that [`Runtime::attach_native_stack`] has attached runs managed code on its own stack,
//! native frames between. It has one goroutine, which is InForeign outside of managed code.
//!
//! - Native code calls managed code by [`Runtime::call_in`] and [`Caller::callback`], from a
//!   foreign call or while it runs. Managed code calls native code by
//!   [`call_native`](asm::call_native_address), also the [`poll`], where C4 and the rules of calls
//!   out say `call_system`. Code whose stack maps name registers calls
//!   [`call_native_all`](asm::call_native_all_address).
//! - Managed frames are scanned and get barriers as those of any goroutine; native frames are
//!   passed over. So native code keeps references in handles, as it does anywhere, unless
//!   [`Config::ambiguous_native_roots`] makes roots of the words of native frames that have called
//!   managed code.
//! - The stack does not move. Native code may keep the address of a slot in a managed frame, but
//!   announces its stores there: [`Caller::note_stack_write`].
//! - An exception may leave any number of managed and native frames, and so does
//!   [`Caller::unwind_to`]. Native code announces a `longjmp` over managed frames:
//!   [`Caller::leave_to`], or [`interpose_longjmp`] for every jump of the program.

#[doc(hidden)]
pub mod alarm;
mod cycle;
#[doc(hidden)]
pub mod ending;
mod entry;
mod goroutine;
pub mod handles;
#[cfg(any(fuzzing, all(test, not(stackmark_loom))))]
pub mod layout_model;
mod machine;
mod memory;
mod os;
mod picture;
mod protocol;
/// For the heap that comes with the collector, and not a part of the public interface.
#[doc(hidden)]
pub mod reservation;
mod runtime;
mod scan;
pub mod scheduler;
mod word;

pub use cycle::{
    AlreadyDriven, CycleDriver, CycleStopped, NextCycle, RootAt, ScanScope, Straggler,
    UnregisterError, WorldStopped,
};
pub use entry::poll;
pub use goroutine::Goroutine;
/// What [`interpose_longjmp`] expands to calls it.
#[doc(hidden)]
pub use machine::announced_longjmp;
pub use machine::{
    AttachError, CallInError, Caller, DetachError, Entered, ForeignCall, Inside, LeaveToError,
    Left, LibCall, Machine, UnwindToError, Watch, YIELD, die_of_panic, full_backtrace,
    report_native_overflow, sample, thread_ends, traceback,
};
pub use memory::{MAX_FRAME, StackError, StackKind};
pub use picture::{BarrierRole, FrameScan, Picture, PictureFrame};
/// For the collector's models.
#[cfg(stackmark_loom)]
#[doc(hidden)]
pub use protocol::OneMachine;
/// Atomics, locks and fences, which loom replaces in models. For the other crates of this
/// workspace, and not a part of the public interface.
#[doc(hidden)]
pub use protocol::sync;
pub use protocol::{REFUSALS, Refusal, Request, Status};
#[doc(hidden)]
pub use runtime::HijackCallbacks;
pub use runtime::{
    Activity, BarrierMode, Census, Config, Counters, CycleFigures, DebugInfo, Detection,
    ForeignException, Histogram, Host, ListedRuntime, ModeInForce, NativeException, Observed,
    Observer, ReturnProtection, RootSink, Runtime, RuntimeError, Schedule, Span, StackBytes,
    Summary, stackmark_debug_info,
};
pub use scan::{FrameAt, POISON, RootSlot, ScanError, Visited};
pub use stackmark_asm as asm;
pub use stackmark_unwind as unwind;
pub use word::Word;
