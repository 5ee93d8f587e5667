//! Whether a goroutine has run since its scan. One word per goroutine has the number of the cycle
//! in which it was marked dirty, or 0.
//!
//! Invariants:
//!
//! 1. A goroutine marks itself dirty after it has become Running and before it runs managed code.
//!    So a holder sees the mark of every earlier run.
//! 2. The scanner clears the mark: the goroutine's holder, or the goroutine itself. A goroutine
//!    that scans itself marks itself dirty again at once.
//!
//! Within a cycle the marked goroutines are those that mark termination rescans. From one cycle to
//! the next the marks tell which stacks a short cycle can leave out.

use crate::protocol::sync::{AtomicU64, LeftOut, Ordering, left_out};

/// See the module. Relaxed everywhere: only the goroutine writes the word while it runs, and only
/// its holder while it stands still. The status word orders running and holding.
#[derive(Debug)]
pub(crate) struct Dirty(AtomicU64);

impl Default for Dirty {
    fn default() -> Self {
        Dirty(AtomicU64::new(0))
    }
}

impl Dirty {
    /// Whether the goroutine was marked for `cycle`: it has run since its scan in
    /// `cycle` or in an earlier one.
    #[inline]
    pub(crate) fn is_marked(&self, cycle: u64) -> bool {
        self.0.load(Ordering::Relaxed) == cycle
    }

    /// Marks the goroutine, which has run since its scan in `cycle` or in an earlier one.
    pub(crate) fn mark(&self, cycle: u64) {
        if !left_out(LeftOut::DirtyMark) {
            self.0.store(cycle, Ordering::Relaxed);
        }
    }

    /// Whether the goroutine has run since its last scan.
    pub(crate) fn is_dirty(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Clears the mark: the goroutine is scanned, or begins its life.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_for_its_cycle_until_it_is_cleared() {
        let dirty = Dirty::default();
        assert!(!dirty.is_dirty() && !dirty.is_marked(7));
        dirty.mark(7);
        assert!(dirty.is_dirty() && dirty.is_marked(7) && !dirty.is_marked(8));
        dirty.clear();
        assert!(!dirty.is_dirty() && !dirty.is_marked(7));
    }
}
