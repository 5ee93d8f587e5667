//! Whether a goroutine has run since its scan: a word per goroutine, which names the cycle whose
//! scan it has run since.
//!
//! 1. A goroutine notes it itself, after it has become Running and before it runs managed code. So
//!    who holds it sees the note of every run before.
//! 2. Who scans it, its holder or itself, takes the note back. A goroutine that scans itself notes
//!    again at once.
//!
//! Within a cycle the notes make the list of stacks that mark termination rescans. From one cycle
//! to the next they tell which stacks a young cycle need not look at.

use crate::sync::{AtomicU64, LeftOut, Ordering, left_out};

/// See the module. Relaxed everywhere: only the goroutine itself writes it while it runs, and only
/// its holder while it stands still; becoming Running and being held are ordered.
#[derive(Debug)]
pub(crate) struct Ran(AtomicU64);

impl Default for Ran {
    fn default() -> Self {
        Ran(AtomicU64::new(0))
    }
}

impl Ran {
    /// Whether it is known to have run since its scan in `cycle`, or since an earlier one.
    #[inline]
    pub(crate) fn is_noted(&self, cycle: u64) -> bool {
        self.0.load(Ordering::Relaxed) == cycle
    }

    /// It runs, since its scan in `cycle` or an earlier one.
    pub(crate) fn note(&self, cycle: u64) {
        if !left_out(LeftOut::RanNote) {
            self.0.store(cycle, Ordering::Relaxed);
        }
    }

    /// Whether it has run since its last scan.
    pub(crate) fn has_run(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// It is being scanned, or begins its life.
    pub(crate) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
