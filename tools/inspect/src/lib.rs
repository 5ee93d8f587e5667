//! The goroutines of a core file and their stacks, without a debugger.
//!
//! A [`Core`] is an ELF core file. [`Process`] finds in it what the library describes for debuggers
//! ([`DebugInfo`](stackmark_stack::DebugInfo)): the goroutines, and the managed code that was made
//! at run time, with names, lines and CFI. The CFI of native code comes from the files that the
//! process had mapped. [`Process::stack`] walks with the library's own unwinder.
//!
//! A core is not trusted. It may be cut off, or anything else: what cannot be read is an
//! [`Error`], or the end of a stack with its reason.

mod core_file;
mod error;
mod managed;
mod native;
mod process;
mod report;
mod x86_64;

pub use core_file::Core;
pub use error::Error;
pub use process::{Frame, Goroutine, Process, Stack, State};
pub use report::report;
