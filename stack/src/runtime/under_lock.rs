//! Calls of the embedder's code under locks of the library.
//!
//! Such code must not ask for a goroutine's stack: its own thread may have the lock that it would
//! wait for. What takes these locks refuses to, instead of waiting for ever.

use crate::ending::without_unwinding;
use std::cell::Cell;

thread_local! {
    /// What runs on this thread under a lock of the library.
    static RUNS: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Something runs under a lock, as long as the value lives.
pub(crate) struct UnderLock {
    outer: Option<&'static str>,
}

impl UnderLock {
    /// `what` runs from now on: a noun phrase.
    #[inline]
    pub(crate) fn runs(what: &'static str) -> UnderLock {
        UnderLock { outer: RUNS.replace(Some(what)) }
    }
}

impl Drop for UnderLock {
    #[inline]
    fn drop(&mut self) {
        RUNS.set(self.outer);
    }
}

/// Calls `f`, which must not unwind: a scan would be lost half-made.
#[inline]
pub(crate) fn under_lock(what: &'static str, f: impl FnOnce()) {
    let _runs = UnderLock::runs(what);
    without_unwinding(what, f);
}

/// # Panics
/// If code of the embedder calls `what` under a lock of the library.
pub(crate) fn assert_no_lock(what: &str) {
    // A thread that ends has no such word any more, and runs nothing under a lock.
    if let Ok(Some(runs)) = RUNS.try_with(Cell::get) {
        panic!("{what} is not called from {runs}: it might wait for a lock of its own thread");
    }
}
