//! Calls out of managed code and callbacks into it: frames left for a recover, native exceptions,
//! foreign calls, threads that the runtime has never seen. The managed code is compiled by the
//! small compiler in `tests/compiler`.

mod exceptions;
mod foreign;
mod forgetting;
mod leaving;
mod native;
mod regressions;
mod scanning;
mod setting;
mod stack_writes;
mod threads;

pub(crate) use setting::*;
