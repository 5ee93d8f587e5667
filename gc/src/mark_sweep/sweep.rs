//! Sweeping: what a cycle condemned is taken back, by the threads that need cells and by the
//! collector's thread. What is done to blocks, and what is counted; who does it when is
//! `ownership`'s.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use parking_lot::Mutex;
use stackmark_stack::sync::Mutex as ModelledMutex;

use super::allocator::MappedSlots;
use super::block::{FREE, SMALL, Swept};
use super::class::{self, CLASSES};
use super::ownership::{self, Blocks, Left, Space, Turnover};
use super::registry::descriptor_of;
use super::{AllocationError, MarkSweep};

/// What is left to sweep of large objects, and what sweeping has counted.
#[derive(Default)]
pub(super) struct Sweep {
    large: Mutex<Large>,
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

    // Relaxed, here and below: counters. The protocol orders what is counted where it matters.
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

impl Blocks for MarkSweep {
    type Error = AllocationError;
    type Slots = MappedSlots;

    fn turnover(&self) -> &Turnover<MappedSlots> {
        &self.turnover
    }

    fn space(&self, space: usize) -> &ModelledMutex<Space> {
        self.registry.space(space)
    }

    fn spaces(&self) -> Vec<usize> {
        self.registry.used_spaces()
    }

    fn fresh(&self, space: usize) -> Result<usize, AllocationError> {
        let index = self.pages.take(&self.arena, 1)?;
        let block = self.arena.block(index);
        block.set_up_small(
            space % CLASSES,
            descriptor_of(space).index(),
            &self.registry.of(space).descriptor,
        );
        block.set_kind(SMALL);
        self.registry.note_used(space);
        Ok(index)
    }

    fn free(&self, blocks: &mut Vec<usize>) {
        blocks.iter().for_each(|index| self.arena.block(*index).set_kind(FREE));
        self.pages.give_back(&self.arena, &mut blocks.drain(..).map(|index| (index, 1)).collect());
    }

    fn sweep(&self, index: usize) -> Left {
        let block = self.arena.block(index);
        let (start, size) = self.cells_of(index);
        let swept = block.sweep(self.keeps_marks(), |cell| {
            if self.poison {
                self.arena.poison(start + cell * size, size);
            }
        });
        self.sweep.count(swept, size);
        match swept.live as usize {
            0 => Left::Nothing,
            live if live < block.cells() => Left::Some,
            _ => Left::All,
        }
    }

    fn cells_of(&self, index: usize) -> (usize, usize) {
        (self.arena.address_of(index), self.arena.block(index).cell_size())
    }

    fn next_free_run(&self, index: usize, from: usize) -> Option<(usize, usize)> {
        self.arena.block(index).next_free_run(from)
    }

    fn clear(&self, index: usize, from: usize, to: usize) {
        // A block fresh from the system is zero; its first run is all of it. Relaxed: the owner's.
        if self.arena.block(index).dirty.swap(true, Relaxed) {
            let (start, size) = self.cells_of(index);
            self.arena.zero(start + from * size, (to - from) * size);
        }
    }

    fn blacken(&self, index: usize, from: usize, to: usize) {
        self.arena.block(index).blacken(from, to);
    }

    fn hand_out(&self, index: usize, from: usize, to: usize) {
        self.arena.block(index).hand_out(from, to);
    }

    fn take_back(&self, index: usize, from: usize, to: usize) {
        self.arena.block(index).take_back(from, to);
    }

    fn count_allocated(&self, bytes: usize) {
        // Relaxed: a counter.
        self.allocated.fetch_add(bytes as u64, Relaxed);
    }
}

impl MarkSweep {
    /// Puts everything up for sweeping, or, if earlier cycles' marks were `kept`, what may hold
    /// unmarked objects. The world is stopped and the allocators have given up their blocks. `live`
    /// bytes are marked that were not before.
    pub(super) fn condemn(&self, live: usize, kept: bool) {
        ownership::condemn(self, kept);
        // What is not swept again lives on.
        let bytes =
            |space: usize| class::cells(space % CLASSES) * class::SIZES[space % CLASSES] as usize;
        let blocks = self.registry.used_spaces().into_iter();
        let mut surviving: usize =
            blocks.map(|space| self.registry.space(space).lock().old.len() * bytes(space)).sum();
        let mut large = self.sweep.large.lock();
        let Large { young, swept, unswept } = &mut *large;
        unswept.append(young);
        if kept {
            surviving +=
                swept.iter().map(|first| self.arena.block(*first).large_size()).sum::<usize>();
        } else {
            unswept.append(swept);
        }
        drop(large);
        let before = if kept { self.sweep.live.load(Relaxed) } else { 0 };
        self.sweep.surviving.store(surviving, Relaxed);
        self.sweep.live.store(before + live, Relaxed);
        self.turnover.begin_sweep();
    }

    /// Sweeps whatever is left. When it returns, no other thread is sweeping either.
    pub(super) fn sweep_everything(&self) {
        let complete = || self.sweep.live.store(self.sweep.surviving.load(Relaxed), Relaxed);
        ownership::sweep_everything(self, || self.sweep_large(), complete);
    }

    /// Sweeps the large objects that are left.
    pub(super) fn sweep_large(&self) {
        if !self.turnover.sweep_is_pending() {
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
