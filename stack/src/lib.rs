//! Goroutine stacks that start small and grow by moving, calls out and callbacks in that survive
//! the moves, exact roots from every frame, and return barriers that bound how much of a stack must
//! be looked at again.
//!
//! A [`Runtime`] is shared by [`Machine`]s, OS threads that run [`Goroutine`]s. Managed code, made
//! by the embedder's compiler and registered with [`stackmark_unwind::Code`], calls native
//! functions through [`call_system`](stackmark_asm::call_system_address); there a [`Caller`] names
//! its goroutine, parks it, or calls back. It calls [`poll`] when its stack pointer is below the
//! poll word, and [`switch_out`](asm::switch_out_address) with [`YIELD`] to let others run. A
//! collector drives cycles with [`Runtime::handshake`], [`Runtime::begin_scanning`],
//! [`Runtime::scan_goroutines`] and [`Runtime::stop_world`]; one with generations begins minor
//! collections by [`Runtime::begin_scanning_young`], which leaves out the frames that have not run
//! since the last one.
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
//! // Managed code of the C convention that does nothing; a real embedder generates and registers it.
//! extern "C-unwind" fn managed(_goroutine: usize, _argument: usize) {}
//!
//! let code = Arc::new(stackmark_unwind::Code::new());
//! let runtime = Runtime::new(Config::default(), code, Box::new(Embedder))?;
//! let machine = Machine::attach(&runtime)?;
//! // SAFETY: the function makes no calls and uses less than the guard.
//! let goroutine = unsafe { runtime.spawn(managed as *const () as usize, 0)? };
//! assert!(matches!(machine.run(goroutine), Left::Exited));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Contracts with managed code
//!
//! - **C1**: a frame's layout is what its CFI says at every safepoint, and every live reference is
//!   in the stack map of that safepoint. From call to return a return address stays in one place; a
//!   function that moves it is registered as such and gets no barrier.
//! - **C2**: a pointer into the goroutine's own stack is live at a safepoint only in a stack-map
//!   slot. A move rewrites slots whose value lies within the old stack, and the saved frame
//!   pointers of frames that compute their CFA from theirs; nothing else. With Cranelift at
//!   `opt_level=speed` that needs care twice: take each stack slot's address once, in the entry
//!   block, and declare it; and undo the sharing of `stack_addr` after optimisation, also for the
//!   slots that references are spilled to: a load that is merged into its user takes the address
//!   from a register, which may hold it across calls. (`tests/minigo/src/stack_addresses.rs` does
//!   that.)
//! - **C3**: a store through a pointer that may point into an older frame goes through the
//!   collector's write barrier, bulk stores too. Stack slots that hold references are zeroed before
//!   the first safepoint that maps them. Nobody holds an address in another goroutine's stack
//!   across a safepoint.
//! - **C4**: a frame of more than [`MAX_FRAME`] bytes is entered through a function that asks
//!   [`poll`] for the room first. Native code runs on the system stack only, through `call_system`.
//! - **C5**: managed code finds its goroutine by its header's address, which stays the same, not by
//!   its thread: it may go on on another after any safepoint.
//! - **C6**: a function calls [`poll`] when its stack pointer is below the word `stack_limit` of
//!   its goroutine's header; a loop when the word is `usize::MAX`.
//! - **C7**: signal handlers run on the alternate stack that attaching a thread gives it. Handlers
//!   without `SA_ONSTACK` are reported to [`Host::warn`].
//!
//! Native code that managed code calls is atomic to a collector until it returns, parks, yields or
//! enters [`Caller::foreign`]: its goroutine is not scanned, so it may hold references in plain
//! words that long.

//! # Calls out and in
//!
//! - A *leaf* call is `call_system(f, a, b)` with the C function itself: a change of stacks, and
//!   nothing else. The function is short, does not wait for anything, does not call back, and keeps
//!   no address in the goroutine's stack: the collector and everybody who stops the world wait for
//!   it.
//! - [`Caller::foreign`] is for everything else: the goroutine is scanned without its help
//!   meanwhile, the world stops without it, and its thread's other goroutines go to another thread
//!   if it lasts. Its native function may park, call back ([`Caller::callback`]), throw, be left by
//!   [`Caller::unwind_to`], or end its thread.
//! - [`Caller::lib_call`] is a foreign call whose parameters, result and errno lie in the machine.
//! - [`Runtime::call_in`] is for native code that does not know whether its thread has ever run a
//!   goroutine.
//!
//! During a callback everything moves, also the frames older than the call out. A native function
//! that writes a result into the goroutine's stack takes
//! [`stackmark_stack_top`](asm::stackmark_stack_top) before and after, and adds the difference.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64")))]
compile_error!("stackmark supports these targets: x86_64-unknown-linux-gnu");

mod attach;
pub mod barrier;
pub mod census;
mod cycle;
mod exception;
pub mod frontier;
mod goroutine;
#[cfg(any(fuzzing, all(test, not(stackmark_loom))))]
pub mod layout_model;
mod leaving;
mod lib_call;
mod machine;
mod memory;
mod moving;
pub mod observe;
mod poll;
mod ran;
mod request;
mod return_protection;
mod runtime;
pub mod sample;
mod scan;
pub mod scheduler;
mod signal_stack;
mod spare;
pub mod stats;
mod status;
pub mod sync;
mod traceback;
mod world;

pub use attach::CallInError;
pub use cycle::{Straggler, WorldStopped};
pub use exception::{ForeignException, NativeException};
pub use goroutine::Goroutine;
pub use leaving::{FrameAt, UnwindToError};
pub use lib_call::LibCall;
pub use machine::{AttachError, Caller, Left, Machine, Watch, YIELD};
pub use memory::{StackError, StackKind, StackPool};
pub use moving::POISON;
pub use poll::poll;
pub use request::Request;
pub use return_protection::{Detection, ReturnProtection};
pub use runtime::{BarrierMode, Collector, Config, Host, ModeInForce, Runtime, Schedule};
pub use scan::{ScanError, Visited};
pub use stackmark_asm as asm;
pub use stackmark_unwind as unwind;
pub use status::Status;
pub use traceback::{die_of_panic, full_backtrace, traceback};

/// Bytes of a new goroutine's stack.
pub const MIN_STACK: usize = 2 << 10;
/// The largest stack that is cut from a span.
const MAX_SMALL_STACK: usize = 32 << 10;
/// The largest frame of managed code, in bytes with its return address, that needs no entry which
/// asks for room first (contract C4).
pub const MAX_FRAME: usize = 1024;
/// Bytes above the low end of a stack at which the poll word lies: a frame may have been made
/// before its own check runs, and a call out or a barrier stub comes on top of it.
pub const STACK_GUARD: usize = MAX_FRAME + asm::CALL_BYTES + 64;
