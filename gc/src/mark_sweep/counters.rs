//! What the heap counts, and what is left to sweep of large objects.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use parking_lot::Mutex;

use super::block::Swept;
use super::blocks::Unswept;

// Relaxed, in the whole file: counters. The protocol orders what is counted where it matters.

/// Bytes handed out.
#[derive(Default)]
pub(super) struct Allocated {
    total: AtomicU64,
    /// `total` when the last cycle ended.
    at_end: AtomicU64,
    /// `total` when the present cycle began.
    at_begin: AtomicU64,
}

impl Allocated {
    /// Adds bytes. Wraps: runs taken back may be counted before what was handed out of them.
    pub(super) fn add(&self, bytes: usize) {
        self.total.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    pub(super) fn begin_cycle(&self) {
        self.at_begin.store(self.total(), Relaxed);
    }

    /// Returns the bytes handed out since the cycle began.
    pub(super) fn end_cycle(&self) -> usize {
        let total = self.total();
        self.at_end.store(total, Relaxed);
        total.saturating_sub(self.at_begin.load(Relaxed)) as usize
    }

    /// The bytes handed out since the last cycle ended.
    pub(super) fn since_cycle(&self) -> usize {
        let since = self.total().wrapping_sub(self.at_end.load(Relaxed));
        (since as i64).max(0) as usize
    }
}

/// What is left to sweep of large objects, and what sweeping has counted.
#[derive(Default)]
pub(super) struct SweepState {
    pub(super) large: Mutex<LargeObjects>,
    /// Bytes that survive, as far as has been swept since the last cycle.
    surviving: AtomicUsize,
    live: AtomicUsize,
    objects_swept: AtomicU64,
}

/// Large objects, by their first blocks.
#[derive(Default)]
pub(super) struct LargeObjects {
    /// Handed out since the last cycle.
    pub(super) young: Vec<usize>,
    /// Swept. If marks are kept they are marked.
    pub(super) swept: Vec<usize>,
    /// Bytes of those that are swept.
    pub(super) swept_bytes: usize,
    pub(super) unswept: Unswept,
}

impl SweepState {
    pub(super) fn objects_swept(&self) -> u64 {
        self.objects_swept.load(Relaxed)
    }

    pub(super) fn live_bytes(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Counts objects of `size` bytes that were swept.
    pub(super) fn count(&self, swept: Swept, size: usize) {
        self.surviving.fetch_add(swept.live as usize * size, Relaxed);
        self.objects_swept.fetch_add(u64::from(swept.freed), Relaxed);
    }

    /// Begins a sweep. `surviving` bytes are not swept, and an estimated `live` bytes will survive
    /// in all.
    pub(super) fn begin(&self, surviving: usize, live: usize) {
        self.surviving.store(surviving, Relaxed);
        self.live.store(live, Relaxed);
    }

    /// Ends a sweep: what has survived is known.
    pub(super) fn complete(&self) {
        self.live.store(self.surviving.load(Relaxed), Relaxed);
    }
}
