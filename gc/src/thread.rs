//! The threads of a collector: named, and fatal to the process if they panic.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a collector's thread. A panic on it ends the process: other threads would wait for its
/// work for ever.
///
/// # Errors
/// When the system gives no thread. The error keeps the system's kind and names `purpose`.
pub(crate) fn spawn(
    name: String,
    purpose: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let guarded = move || {
        let _abort = AbortOnPanic;
        run();
    };
    Builder::new().name(name).spawn(guarded).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot start a thread for {purpose}: {error}"))
    })
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
