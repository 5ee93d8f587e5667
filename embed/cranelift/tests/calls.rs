//! Calls out of Cranelift's code and callbacks into it, frames that are left, native exceptions:
//! what most of `stack/tests/calls` does.

// The same functions, by Cranelift.
extern crate jit as compiler;

#[path = "../../../stack/tests/calls/exceptions.rs"]
mod exceptions;
#[path = "../../../stack/tests/calls/foreign.rs"]
mod foreign;
#[path = "../../../stack/tests/calls/leaving.rs"]
mod leaving;
#[path = "../../../stack/tests/calls/native.rs"]
mod native;
#[path = "../../../stack/tests/calls/regressions.rs"]
mod regressions;
#[path = "../../../stack/tests/calls/scanning.rs"]
mod scanning;
#[path = "../../../stack/tests/calls/setting.rs"]
mod setting;
#[path = "../../../stack/tests/calls/threads.rs"]
mod threads;

pub(crate) use setting::*;
