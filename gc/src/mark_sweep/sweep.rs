//! Sweeping: what a cycle condemned is taken back, by the threads that need cells and by the collector's thread.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use parking_lot::Mutex;

use super::block::{FREE, SMALL, Swept};
use super::class;
use super::descriptor::DescriptorId;
use super::{AllocationError, MarkSweep};

/// How many blocks without a free cell a thread sweeps before it takes a fresh block instead.
const PATIENCE: usize = 16;

/// Blocks that are swept, or given back, between two takings of a lock.
const BATCH: usize = 64;

/// What is left to sweep, and what sweeping has counted.
#[derive(Default)]
pub(super) struct Sweep {
    large: Mutex<Large>,
    /// Held by who sweeps everything.
    turn: Mutex<()>,
    /// Whether there is anything left. Set with the world stopped.
    pending: AtomicBool,
    /// Bytes that lived on, in what has been swept since the last cycle.
    surviving: AtomicUsize,
    live: AtomicUsize,
    objects_swept: AtomicU64,
}

/// First blocks of large objects.
#[derive(Default)]
struct Large {
    /// Handed out since the last cycle.
    young: Vec<usize>,
    /// Swept: marked, if marks are kept.
    swept: Vec<usize>,
    unswept: Vec<usize>,
}

impl Sweep {
    /// Adds a large object.
    pub(super) fn add_large(&self, first: usize) {
        self.large.lock().young.push(first);
    }

    // Relaxed, here and below: counters. `pending` and the locks order what is counted where it matters.
    pub(super) fn objects_swept(&self) -> u64 {
        self.objects_swept.load(Relaxed)
    }

    pub(super) fn live_bytes(&self) -> usize {
        self.live.load(Relaxed)
    }

    fn count(&self, swept: Swept, size: usize) {
        self.surviving.fetch_add(swept.live as usize * size, Relaxed);
        self.objects_swept.fetch_add(u64::from(swept.freed), Relaxed);
    }
}

impl MarkSweep {
    /// Puts every block up for sweeping, or, if earlier cycles' marks were `kept`, those that may hold unmarked objects. The world
    /// is stopped and the allocators have given up their blocks. `live` bytes are marked that were not before.
    pub(super) fn condemn(&self, live: usize, kept: bool) {
        let mut surviving = 0;
        for (descriptor, class) in self.registry.used_spaces() {
            let mut space = self.registry.space(descriptor, class).lock();
            space.condemn(kept);
            surviving += space.old.len() * class::cells(class) * class::SIZES[class] as usize;
        }
        let mut large = self.sweep.large.lock();
        let Large { young, swept, unswept } = &mut *large;
        unswept.append(young);
        if kept {
            surviving += swept.iter().map(|first| self.arena.block(*first).large_size()).sum::<usize>();
        } else {
            unswept.append(swept);
        }
        drop(large);
        let before = if kept { self.sweep.live.load(Relaxed) } else { 0 };
        self.sweep.surviving.store(surviving, Relaxed);
        self.sweep.live.store(before + live, Relaxed);
        // Release: pairs with the load in `sweep_everything`, which then sees the lists filled.
        self.sweep.pending.store(true, Release);
    }

    /// A block with free cells, the caller's own. Called under an allocator's lock, which `sweep_everything` relies on.
    pub(super) fn acquire_block(&self, id: DescriptorId, class: usize) -> Result<usize, AllocationError> {
        let space = self.registry.space(id, class);
        for _ in 0..PATIENCE {
            let mut lists = space.lock();
            if let Some(index) = lists.available.pop() {
                return Ok(index);
            }
            let Some(index) = lists.unswept.pop() else { break };
            drop(lists);
            if (self.sweep_block(index).live as usize) < self.arena.block(index).cells() {
                return Ok(index);
            }
            space.lock().old.push(index);
        }
        let index = self.pages.take(&self.arena, 1)?;
        let record = self.registry.record(id).expect("the caller has looked");
        let block = self.arena.block(index);
        block.set_up_small(class, id.index(), &record.descriptor);
        block.set_kind(SMALL);
        self.registry.note_used(&mut space.lock(), id, class);
        Ok(index)
    }

    fn sweep_block(&self, index: usize) -> Swept {
        let block = self.arena.block(index);
        let (start, size) = (self.arena.address_of(index), block.cell_size());
        let swept = block.sweep(self.keeps_marks(), |cell| {
            if self.poison {
                self.arena.poison(start + cell * size, size);
            }
        });
        self.sweep.count(swept, size);
        swept
    }

    /// Sweeps whatever is left. When it returns, no other thread is sweeping either.
    pub(super) fn sweep_everything(&self) {
        let turn = self.sweep.turn.lock();
        // Acquire: pairs with the store in `condemn`.
        if !self.sweep.pending.load(Acquire) {
            return;
        }
        let mut freed = Vec::new();
        for (descriptor, class) in self.registry.used_spaces() {
            self.sweep_space(descriptor, class, &mut freed);
        }
        self.pages.give_back(&self.arena, &mut freed);
        self.sweep_large();
        // An allocator sweeps under its lock, so whoever has begun has finished when we have had the lock.
        for local in self.allocators.lock().iter() {
            drop(local.state.lock());
        }
        self.sweep.live.store(self.sweep.surviving.load(Relaxed), Relaxed);
        self.sweep.pending.store(false, Relaxed);
        drop(turn);
    }

    fn sweep_space(&self, id: DescriptorId, class: usize, freed: &mut Vec<(usize, usize)>) {
        let space = self.registry.space(id, class);
        let mut batch = Vec::new();
        let (mut available, mut old) = (Vec::new(), Vec::new());
        loop {
            let mut lists = space.lock();
            lists.available.append(&mut available);
            lists.old.append(&mut old);
            let rest = lists.unswept.len().saturating_sub(BATCH);
            batch.extend(lists.unswept.drain(rest..));
            drop(lists);
            if batch.is_empty() {
                return;
            }
            for index in batch.drain(..) {
                let block = self.arena.block(index);
                match self.sweep_block(index).live as usize {
                    0 => {
                        block.set_kind(FREE);
                        freed.push((index, 1));
                    }
                    live if live < block.cells() => available.push(index),
                    _ => old.push(index),
                }
            }
            if freed.len() >= BATCH {
                self.pages.give_back(&self.arena, freed);
            }
        }
    }

    /// Sweeps the large objects that are left.
    pub(super) fn sweep_large(&self) {
        if !self.sweep.pending.load(Acquire) {
            return;
        }
        let mut freed = Vec::new();
        let mut large = self.sweep.large.lock();
        while let Some(first) = large.unswept.pop() {
            let head = self.arena.block(first);
            let size = head.large_size();
            if head.sweep_large(self.keeps_marks()) {
                large.swept.push(first);
                self.sweep.count(Swept { live: 1, freed: 0 }, size);
                continue;
            }
            let count = size.div_ceil(super::class::BLOCK);
            if self.poison {
                self.arena.poison(self.arena.address_of(first), count * super::class::BLOCK);
            }
            (first..first + count).for_each(|index| self.arena.block(index).set_kind(FREE));
            self.sweep.count(Swept { live: 0, freed: 1 }, size);
            freed.push((first, count));
        }
        drop(large);
        self.pages.give_back(&self.arena, &mut freed);
    }
}
