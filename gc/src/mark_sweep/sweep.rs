//! Sweeping: threads that need cells, and the collector's thread, take back what a cycle condemned.
//! Here is what is condemned and what of it is large; `ownership` has the order of it all.

use super::block::{FREE, Swept};
use super::class::{BLOCK, CLASSES, SIZES, cells};
use super::counters::LargeObjects;
use super::heap::MarkSweep;
use super::ownership;

impl MarkSweep {
    /// Puts up for sweeping what may hold unmarked objects if the cycle was `minor`, else
    /// everything. The world is stopped and the allocators have given up their blocks.
    /// `newly_marked` bytes are marked that were not before the cycle.
    pub(super) fn condemn(&self, newly_marked: usize, minor: bool) {
        ownership::condemn(self, minor);
        // Blocks that are not swept again live on.
        let bytes = |space: usize| cells(space % CLASSES) * SIZES[space % CLASSES] as usize;
        let spaces = self.registry.used_spaces().into_iter();
        let mut surviving: usize =
            spaces.map(|space| self.registry.space(space).lock().old.len() * bytes(space)).sum();
        let mut large = self.sweep.large.lock();
        let LargeObjects { young, swept, swept_bytes, unswept } = &mut *large;
        unswept.take_over(young);
        if minor {
            surviving += *swept_bytes;
        } else {
            unswept.take_over(swept);
            *swept_bytes = 0;
        }
        drop(large);
        let before = if minor { self.sweep.live_bytes() } else { 0 };
        self.sweep.begin(surviving, before.saturating_add(newly_marked));
        self.protocol.begin_sweep();
    }

    /// Sweeps whatever is left. When it returns, no other thread is sweeping either.
    pub(super) fn sweep_everything(&self) {
        ownership::sweep_everything(self, || self.sweep_large(), || self.sweep.complete());
    }

    /// Sweeps the large objects that are left.
    pub(super) fn sweep_large(&self) {
        if !self.protocol.is_sweep_pending() {
            return;
        }
        let mut freed = Vec::new();
        let mut large = self.sweep.large.lock();
        while let Some(first) = large.unswept.pop() {
            let head = self.arena.block(first);
            let size = head.large_size();
            if head.sweep_large(self.keeps_marks()) {
                large.swept.push(first);
                large.swept_bytes += size;
                self.sweep.count(Swept { live: 1, freed: 0 }, size);
                continue;
            }
            let count = size.div_ceil(BLOCK);
            self.poison_freed(self.arena.address_of(first), count * BLOCK);
            (first..first + count).for_each(|index| self.arena.block(index).set_kind(FREE));
            self.sweep.count(Swept { live: 0, freed: 1 }, size);
            freed.push((first, count));
        }
        drop(large);
        self.pages.give_back(&self.arena, &mut freed);
    }
}
