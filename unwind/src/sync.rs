//! The atomics of the published tables, so that loom can run the very same code.
//!
//! Only this crate's own tests under `--cfg stackmark_loom` get loom's: models elsewhere use the
//! crate as it is.

#[cfg(not(all(test, stackmark_loom)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

    /// Orders a read-modify-write before it with all accesses behind it. On x86-64 the former is a
    /// full barrier itself.
    #[inline]
    pub(crate) fn fence_behind_rmw() {
        if cfg!(target_arch = "x86_64") {
            std::sync::atomic::compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }
}

#[cfg(all(test, stackmark_loom))]
mod real {
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

    pub(crate) fn fence_behind_rmw() {
        fence(Ordering::SeqCst);
    }
}

pub(crate) use real::*;
