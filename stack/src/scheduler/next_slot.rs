//! The slot for the goroutine that runs next on a thread.
//!
//! A goroutine that is made ready on a thread runs there next: what it was handed is in the cache,
//! and often the goroutine that readied it is about to park. (After Go's `runnext`.)
//!
//! Invariants:
//!
//! 1. Only the slot's own thread puts goroutines in. It takes them, and so do other threads while
//!    this one is away or has run the same goroutine for long.
//! 2. Each exchange of the word moves the reference to the goroutine. So a goroutine that was put
//!    in is taken once.

use crate::protocol::sync::{AtomicPtr, LeftOut, Ordering, left_out};
use std::ptr;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(super) struct NextSlot<T>(AtomicPtr<T>);

impl<T> Default for NextSlot<T> {
    fn default() -> Self {
        NextSlot(AtomicPtr::new(ptr::null_mut()))
    }
}

impl<T> NextSlot<T> {
    /// Puts a goroutine in. Returns the one that was there. Called on the slot's own thread.
    #[inline]
    pub(super) fn put(&self, goroutine: Arc<T>) -> Option<Arc<T>> {
        self.exchange(Arc::into_raw(goroutine).cast_mut())
    }

    /// Takes the goroutine. Called on any thread.
    #[inline]
    pub(super) fn take(&self) -> Option<Arc<T>> {
        if self.is_empty() { None } else { self.exchange(ptr::null_mut()) }
    }

    /// Whether the slot was empty just now. Exact on the slot's own thread, but for a goroutine
    /// that another thread takes.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        // Relaxed: an exchange orders. Another thread that misses a goroutine here has seen the
        // slot's thread before it went away, and looks again.
        self.0.load(Ordering::Relaxed).is_null()
    }

    #[inline]
    fn exchange(&self, new: *mut T) -> Option<Arc<T>> {
        // Release: what the thread that readied the goroutine did is visible to the one that takes
        // it. Acquire: its counterpart.
        let found = if left_out(LeftOut::NextExchange) {
            let found = self.0.load(Ordering::Acquire);
            self.0.store(new, Ordering::Release);
            found
        } else {
            self.0.swap(new, Ordering::AcqRel)
        };
        // SAFETY: invariant 2: the pointer came from `Arc::into_raw` in `put`, and the exchange has
        // moved its reference here.
        (!found.is_null()).then(|| unsafe { Arc::from_raw(found) })
    }
}

impl<T> Drop for NextSlot<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[cfg(all(test, stackmark_loom))]
mod models;
