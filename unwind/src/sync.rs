//! The atomics of the published tables: the real ones, or loom's.
//!
//! Only this crate's own tests under `--cfg stackmark_loom` get loom's. Models in other crates use
//! this crate with the real ones.

#[cfg(not(all(test, stackmark_loom)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

    /// Orders a read-modify-write before it with all accesses behind it. On some architectures the
    /// read-modify-write is a full barrier itself.
    #[inline]
    pub(crate) fn fence_behind_rmw() {
        if crate::arch::RMW_IS_FULL_BARRIER {
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
