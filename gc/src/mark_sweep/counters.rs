//! What the heap counts, and what is left to sweep of large objects.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use parking_lot::Mutex;

use super::block::Swept;
use super::blocks::Unswept;
use crate::bytes::in_memory;

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
    /// Adds bytes, which are below zero where more was taken back than handed out. The total wraps:
    /// runs taken back may be counted before what was handed out of them.
    pub(super) fn add(&self, bytes: i64) {
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
        grown(total, self.at_begin.load(Relaxed))
    }

    /// The bytes handed out since the last cycle ended.
    pub(super) fn since_cycle(&self) -> usize {
        grown(self.total(), self.at_end.load(Relaxed))
    }
}

/// By how many bytes a total has grown, or 0. Totals of a process may be wider than a word, and
/// wrap: so their difference is taken first.
fn grown(total: u64, before: u64) -> usize {
    in_memory((total.wrapping_sub(before) as i64).max(0) as u64)
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

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use crate::mark_sweep::slot::LocalState;
    use proptest::prelude::*;

    /// What two allocators do, and cycles.
    #[derive(Clone, Debug)]
    enum Step {
        HandOut(usize, usize),
        /// Takes back what this allocator has handed out last.
        TakeBack(usize),
        /// Adds what this allocator has done since.
        Count(usize),
        Begin,
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = prop_oneof![8 => 1usize..16 << 10, 1 => 1usize..1 << 31];
        prop_oneof![
            4 => (0usize..2, bytes).prop_map(|(who, bytes)| Step::HandOut(who, bytes)),
            2 => (0usize..2).prop_map(Step::TakeBack),
            3 => (0usize..2).prop_map(Step::Count),
            1 => Just(Step::Begin),
            1 => Just(Step::End),
        ]
    }

    /// What words of 32 bits count.
    const WORDS: i64 = 1 << 32;
    const NEAR: i64 = 1 << 20;

    proptest! {
        /// A process may hand out more than its words can count.
        #[test]
        fn totals_are_those_of_all_allocators_also_beyond_four_gigabytes(
            before in prop_oneof![0..NEAR, WORDS - NEAR..WORDS + NEAR],
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let allocated = Allocated::default();
            allocated.add(before);
            let mut local: [LocalState; 2] = Default::default();
            let mut handed_out: [Vec<usize>; 2] = Default::default();
            let (mut uncounted, mut total) = ([0i128; 2], i128::from(before));
            let (mut at_begin, mut at_end) = (0, 0);
            for step in steps {
                match step {
                    Step::HandOut(who, bytes) => {
                        local[who].hand_out(bytes);
                        handed_out[who].push(bytes);
                        uncounted[who] += bytes as i128;
                    }
                    Step::TakeBack(who) => {
                        let bytes = handed_out[who].pop().unwrap_or(0);
                        local[who].take_back(bytes);
                        uncounted[who] -= bytes as i128;
                    }
                    Step::Count(who) => {
                        allocated.add(local[who].take_allocated());
                        total += std::mem::take(&mut uncounted[who]);
                    }
                    Step::Begin => {
                        allocated.begin_cycle();
                        at_begin = total;
                    }
                    Step::End => {
                        let black = (total - at_begin).clamp(0, usize::MAX as i128);
                        prop_assert_eq!(allocated.end_cycle() as i128, black);
                        at_end = total;
                    }
                }
                prop_assert_eq!(i128::from(allocated.total()), total);
                let since = (total - at_end).clamp(0, usize::MAX as i128);
                prop_assert_eq!(allocated.since_cycle() as i128, since);
            }
        }
    }
}
