//! The heap as a collector sees it.

use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::block::{Block, LARGE, SMALL, TAIL};
use super::heap::{MarkSweep, object_at};
use super::runs;
use crate::bytes::in_memory;
use crate::heap::{CycleRight, Heap, HeapCounts, HeapOwner, Marked, Object, Shade};

impl MarkSweep {
    /// An object's block and its number.
    #[inline]
    fn locate(&self, object: Object) -> (usize, Block<'_>) {
        let index = self.arena.index_of(object.address()).expect("an object of this heap");
        (index, self.arena.block(index))
    }

    /// The number of the object's cell in its block. A large object has one.
    #[inline]
    fn cell(&self, object: Object, index: usize, block: Block<'_>) -> usize {
        match block.kind() {
            SMALL => block.cell_number(object.address() - self.arena.address_of(index)),
            _ => 0,
        }
    }

    #[cold]
    fn mark_large_at(&self, word: usize, right: &CycleRight) -> Option<Shade> {
        self.resolve(word).filter(|object| self.mark(*object, right)).map(Shade::Grey)
    }

    #[inline]
    fn resolve_large(&self, word: usize, index: usize) -> Option<Object> {
        let block = self.arena.block(index);
        let start = self.arena.address_of(index);
        let inside = block.kind() == LARGE
            && block.large_is_handed_out()
            && word - start < block.large_size();
        inside.then(|| object_at(start))
    }
}

// SAFETY: an object that is marked, or was handed out after `begin_cycle`, has its mark set.
// Sweeping frees only cells whose mark is clear, and clears no marks once they are kept. `trace`
// visits each place that the descriptor names. `resolve` returns cells that are handed out, which
// are objects or zero. The parent module tells how that holds while threads allocate.
unsafe impl Heap for MarkSweep {
    #[inline]
    fn resolve(&self, word: usize) -> Option<Object> {
        let index = self.arena.index_of(word)?;
        let block = self.arena.block(index);
        match block.kind() {
            SMALL => {
                let start = self.arena.address_of(index);
                let cell = block.cell(word - start)?;
                Some(object_at(start + cell * block.cell_size()))
            }
            LARGE => self.resolve_large(word, index),
            // Relaxed: `kind` was stored after it. A tail's head lies before it.
            TAIL => self.resolve_large(word, (block.head().load(Relaxed) as usize).min(index)),
            _ => None,
        }
    }

    #[inline]
    fn prefetch(&self, word: usize) -> bool {
        self.arena.prefetch(word)
    }

    #[inline]
    fn mark_at(&self, word: usize, right: &CycleRight) -> Option<Shade> {
        let index = self.arena.index_of(word)?;
        let block = self.arena.block(index);
        if block.kind() != SMALL {
            return self.mark_large_at(word, right);
        }
        let start = self.arena.address_of(index);
        let cell = block.mark_at(word - start)?;
        let size = block.cell_size();
        Some(match block.holds_references() {
            true => Shade::Grey(object_at(start + cell * size)),
            false => Shade::Black(size),
        })
    }

    #[inline]
    fn mark(&self, object: Object, _right: &CycleRight) -> bool {
        let (index, block) = self.locate(object);
        block.mark(self.cell(object, index, block))
    }

    #[inline]
    fn is_marked(&self, object: Object) -> bool {
        let (index, block) = self.locate(object);
        block.is_marked(self.cell(object, index, block))
    }

    #[inline]
    fn size(&self, object: Object) -> usize {
        let (_, block) = self.locate(object);
        block.object_size()
    }

    #[inline]
    fn trace(
        &self,
        object: Object,
        range: Range<usize>,
        visit: &mut impl FnMut(usize),
        _right: &CycleRight,
    ) -> usize {
        let (_, block) = self.locate(object);
        let size = block.object_size();
        block.places(size, range.start, range.end, |offset| {
            // SAFETY: a word of the object, aligned, in memory that stays accessible as long as the
            // heap. Mutators store whole words.
            let word = unsafe { AtomicUsize::from_ptr((object.address() + offset) as *mut usize) };
            // Relaxed: what the word refers to was published by `hand_out`, which `resolve`
            // acquires.
            visit(word.load(Relaxed));
        });
        size
    }

    fn begin_cycle(&self, _right: &CycleRight) {
        self.sweep_everything();
        runs::begin_marking(self);
        self.allocated.begin_cycle();
    }

    fn end_cycle(&self, marked: Marked, _right: &CycleRight) {
        runs::end_marking(self);
        let black = self.allocated.end_cycle();
        self.objects_marked.fetch_add(marked.objects, Relaxed);
        let minor = self.minor.swap(self.keeps_marks(), Relaxed);
        self.condemn(in_memory(marked.bytes).saturating_add(black), minor);
    }

    fn keep_marks(&self, keep: bool, _right: &CycleRight) -> bool {
        self.keeps_marks.store(keep, Relaxed);
        true
    }

    fn clear_marks(&self, _right: &CycleRight) {
        self.minor.store(false, Relaxed);
        for index in 0..self.pages.frontier() {
            let block = self.arena.block(index);
            if matches!(block.kind(), SMALL | LARGE) {
                block.clear_marks();
            }
        }
    }

    fn finish_sweep(&self, _right: &CycleRight) {
        self.sweep_everything();
    }

    fn release(&self, keep: usize, _right: &CycleRight) {
        self.pages.release(&self.arena, keep);
    }

    fn set_trigger(&self, bytes: usize, _right: &CycleRight) {
        self.trigger.store(bytes, Relaxed);
    }

    fn owner(&self) -> &HeapOwner {
        &self.owner
    }

    fn allocated_since_cycle(&self) -> usize {
        self.allocated.since_cycle()
    }

    fn counts(&self) -> HeapCounts {
        self.current_counts()
    }
}
