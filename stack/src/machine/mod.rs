//! Machines: the threads that run goroutines, and how a goroutine enters and leaves native code on
//! them: calls out, foreign calls, callbacks, frames left without a return, exceptions.

mod attach;
mod caller;
mod catch;
mod error;
mod foreign;
mod inside;
mod interrupt;
mod jumps;
mod leaving;
mod leaving_on_thread;
mod lib_call;
mod native;
mod overflow;
mod places;
mod run;
pub mod sample;
mod thread;
mod thrown;
mod traceback;
mod watch;

pub use caller::Caller;
pub use error::{AttachError, CallInError, DetachError};
pub use foreign::ForeignCall;
pub use inside::{Entered, Inside};
pub(crate) use interrupt::thread_traceback;
pub use jumps::{LeaveToError, announced_longjmp};
pub use leaving::UnwindToError;
pub use lib_call::LibCall;
pub use overflow::report_native_overflow;
pub use run::{Left, Machine, YIELD};
pub(crate) use thread::EXITED;
pub use thread::thread_ends;
pub(crate) use traceback::write_lines;
pub use traceback::{die_of_panic, full_backtrace, traceback};
pub use watch::Watch;
