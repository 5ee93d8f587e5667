//! What compiled programs call: memory, strings, slices, channels, goroutines, printing, run-time
//! errors.
//!
//! Natives run on the system stack and are atomic for the collector: while one runs, its goroutine
//! is not scanned, unless the native parks. `host` alone knows the library that is embedded.

pub(crate) mod alloc;
pub(crate) mod arguments;
pub(crate) mod channel;
pub(crate) mod compare;
pub(crate) mod fail;
pub(crate) mod foreign;
pub(crate) mod format;
pub(crate) mod goroutine;
pub(crate) mod host;
pub(crate) mod interface;
pub(crate) mod map;
pub(crate) mod natives;
pub(crate) mod output;
pub(crate) mod panic;
pub(crate) mod print;
mod queue;
pub(crate) mod select;
pub(crate) mod slice;
pub(crate) mod string;
pub(crate) mod traceback;
pub(crate) mod typeinfo;
pub(crate) mod verbs;
