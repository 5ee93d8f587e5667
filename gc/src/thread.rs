//! The threads of a collector: named, and fatal to the process if they panic.

use std::cell::Cell;
use std::io;
use std::thread::{Builder, JoinHandle};

use stackmark_stack::ending;

thread_local! {
    static IS_COLLECTORS: Cell<bool> = const { Cell::new(false) };
}

/// Starts a collector's thread. A panic on it ends the process with status 2: other threads would
/// wait for its work for ever.
///
/// # Errors
/// When the system gives no thread. The error keeps the system's kind and names `purpose`.
pub(crate) fn spawn(
    name: String,
    purpose: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let guarded = move || {
        IS_COLLECTORS.set(true);
        ending::run_thread(run);
    };
    Builder::new().name(name).spawn(guarded).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot start a thread for {purpose}: {error}"))
    })
}

/// Whether the calling thread is a collector's. Such a thread waits for no collection.
pub(crate) fn is_collectors() -> bool {
    IS_COLLECTORS.get()
}
