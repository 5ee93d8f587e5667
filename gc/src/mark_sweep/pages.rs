//! Free blocks. Runs of them go out to spaces and large objects, and are merged when they come
//! back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use super::arena::Arena;
use super::class::{BLOCK, BLOCK_SHIFT};
use super::error::AllocationError;

/// The most blocks that are given back to the system in one go. More would keep threads that need
/// blocks waiting.
const DISCARD: usize = (4 << 20) / BLOCK;

/// The free blocks of a heap. Their lock is taken after every other lock of the heap.
pub(super) struct Pages {
    /// The most blocks that may be in use.
    limit: usize,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    /// Free runs by their first block, never adjacent to one another.
    by_start: BTreeMap<usize, usize>,
    /// The same runs, as (length, first block).
    by_length: BTreeSet<(usize, usize)>,
    /// Blocks from here on were never used.
    frontier: usize,
    /// Blocks in use.
    used: usize,
    /// Free blocks that hold memory.
    dirty: usize,
}

impl Pages {
    /// Of at most `limit` blocks, none of which was ever used.
    pub(super) fn new(limit: usize) -> Pages {
        Pages { limit, free: Mutex::default() }
    }

    /// Takes `count` adjacent blocks. Returns the first one. Their records' `dirty` says whether
    /// they may hold other than zeros.
    ///
    /// # Errors
    /// When the limit, the address space or the system's memory is used up.
    pub(super) fn take(&self, arena: &Arena, count: usize) -> Result<usize, AllocationError> {
        let mut free = self.free.lock();
        if count > self.limit.saturating_sub(free.used) {
            return Err(self.out_of_memory(count, &free));
        }
        // One block comes from the lowest run, which keeps the heap dense. More come from the run
        // that fits best.
        let run = match count {
            1 => free.by_start.first_key_value().map(|(start, len)| (*start, *len)),
            _ => free.by_length.range((count, 0)..).next().map(|(len, start)| (*start, *len)),
        };
        let start = match run {
            Some((start, len)) => {
                let dirty = dirty(arena, start..start + count);
                // A free block that holds no memory may be discarded.
                if dirty < count && arena.take_again(start, count).is_err() {
                    return Err(self.out_of_memory(count, &free));
                }
                free.dirty -= dirty;
                free.remove(start, len);
                if len > count {
                    free.insert(start + count, len - count);
                }
                start
            }
            None => {
                let start = free.frontier;
                if count > arena.capacity() - start || arena.make_accessible(start + count).is_err()
                {
                    return Err(self.out_of_memory(count, &free));
                }
                free.frontier += count;
                start
            }
        };
        free.used += count;
        Ok(start)
    }

    fn out_of_memory(&self, count: usize, free: &Free) -> AllocationError {
        AllocationError::OutOfMemory {
            requested: count.saturating_mul(1 << BLOCK_SHIFT),
            used: free.used << BLOCK_SHIFT,
            limit: self.limit << BLOCK_SHIFT,
        }
    }

    /// Puts runs of blocks back, given as (first block, count).
    pub(super) fn give_back(&self, arena: &Arena, runs: &mut Vec<(usize, usize)>) {
        if runs.is_empty() {
            return;
        }
        let mut free = self.free.lock();
        for (start, count) in runs.drain(..) {
            free.used -= count;
            free.dirty += dirty(arena, start..start + count);
            free.merge(start, count);
        }
    }

    /// Blocks from this number on were never used.
    pub(super) fn frontier(&self) -> usize {
        self.free.lock().frontier
    }

    /// Bytes in use, and bytes in use or still holding memory.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let free = self.free.lock();
        (free.used << BLOCK_SHIFT, (free.used + free.dirty) << BLOCK_SHIFT)
    }

    /// Gives free memory back to the system, from the top down, until at most `keep` bytes, or only
    /// used blocks, are resident.
    pub(super) fn release(&self, arena: &Arena, keep: usize) {
        let keep = keep >> BLOCK_SHIFT;
        let mut below = usize::MAX;
        loop {
            let mut free = self.free.lock();
            let excess = (free.used + free.dirty).saturating_sub(keep).min(free.dirty);
            if excess == 0 {
                return;
            }
            let Some((start, len)) =
                free.by_start.range(..below).next_back().map(|(start, len)| (*start, *len))
            else {
                return;
            };
            // The upper end of what is left of the run.
            let end = (start + len).min(below);
            let first = start.max(end.saturating_sub(DISCARD.min(excess)));
            below = first;
            let dirty = dirty(arena, first..end);
            if dirty == 0 {
                continue;
            }
            // Out of the list, so that the system can work on it without the lock.
            free.remove(start, len);
            if first > start {
                free.insert(start, first - start);
            }
            if start + len > end {
                free.insert(end, start + len - end);
            }
            drop(free);
            let discarded = arena.discard(first, end - first);
            let mut free = self.free.lock();
            if discarded {
                (first..end).for_each(|i| arena.block(i).dirty().store(false, Relaxed));
                free.dirty -= dirty;
            }
            free.merge(first, end - first);
            if !discarded {
                return;
            }
        }
    }
}

/// How many of these blocks may hold other than zeros. The lock of the list of free ones is held.
fn dirty(arena: &Arena, blocks: Range<usize>) -> usize {
    // Relaxed: the flag of a free block is guarded by that lock.
    blocks.filter(|block| arena.block(*block).dirty().load(Relaxed)).count()
}

impl Free {
    fn insert(&mut self, start: usize, len: usize) {
        self.by_start.insert(start, len);
        self.by_length.insert((len, start));
    }

    fn remove(&mut self, start: usize, len: usize) {
        self.by_start.remove(&start);
        self.by_length.remove(&(len, start));
    }

    /// Inserts a run, merged with its neighbours.
    fn merge(&mut self, mut start: usize, mut len: usize) {
        if let Some((before, count)) =
            self.by_start.range(..start).next_back().map(|(s, l)| (*s, *l))
            && before + count == start
        {
            self.remove(before, count);
            start = before;
            len += count;
        }
        if let Some(count) = self.by_start.get(&(start + len)).copied() {
            self.remove(start + len, count);
            len += count;
        }
        self.insert(start, len);
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn runs_never_overlap_and_everything_comes_back(
            steps in prop::collection::vec((1usize..40, any::<bool>(), 0usize..64), 1..80),
        ) {
            let arena = Arena::reserve(1024 * BLOCK, BLOCK, false).expect("address space");
            let pages = Pages::new(512);
            let mut held: Vec<(usize, usize)> = Vec::new();
            for (count, take, pick) in steps {
                if take {
                    let used: usize = held.iter().map(|(_, len)| len).sum();
                    match pages.take(&arena, count) {
                        Ok(start) => {
                            let apart =
                                |(s, l): &(usize, usize)| start + count <= *s || s + l <= start;
                            prop_assert!(held.iter().all(apart));
                            for i in start..start + count {
                                arena.block(i).dirty().store(true, Relaxed);
                            }
                            held.push((start, count));
                        }
                        Err(_) => {
                            let frontier = pages.free.lock().frontier;
                            prop_assert!(used + count > 512 || frontier + count > 1024);
                        }
                    }
                } else if !held.is_empty() {
                    let run = held.swap_remove(pick % held.len());
                    pages.give_back(&arena, &mut vec![run]);
                    if pick % 4 == 0 {
                        let keep = pick * BLOCK;
                        pages.release(&arena, keep);
                        let (used, resident) = pages.bytes();
                        prop_assert!(resident <= used.max(keep));
                    }
                }
            }
            pages.give_back(&arena, &mut held);
            let free = pages.free.lock();
            prop_assert_eq!(free.used, 0);
            prop_assert!(free.by_start.len() <= 1);
            prop_assert_eq!(free.by_start.values().sum::<usize>(), free.frontier);
        }
    }

    #[test]
    fn released_memory_reads_as_zero() {
        let arena = Arena::reserve(64 * BLOCK, BLOCK, false).expect("address space");
        let pages = Pages::new(64);
        let start = pages.take(&arena, 8).expect("room");
        arena.poison(arena.address_of(start), 8 * BLOCK);
        (start..start + 8).for_each(|i| arena.block(i).dirty().store(true, Relaxed));
        pages.give_back(&arena, &mut vec![(start, 8)]);
        pages.release(&arena, 0);
        assert_eq!(pages.bytes(), (0, 0));
        let again = pages.take(&arena, 8).expect("room");
        assert!(!arena.block(again).dirty().load(Relaxed));
        // SAFETY: the blocks are taken, so they are accessible and this thread's alone.
        let bytes =
            unsafe { std::slice::from_raw_parts(arena.address_of(again) as *const u8, 8 * BLOCK) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}
