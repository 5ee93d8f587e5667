//! Slots, in which an allocator keeps its runs of free cells, and what the collector reaches of an
//! allocator.

use std::ptr::NonNull;

use stackmark_stack::sync::Ordering::Relaxed;
use stackmark_stack::sync::{AtomicU32, AtomicUsize, Mutex};

use super::class::BLOCK;

/// Where one thread allocates cells of one descriptor and class: the free run `cursor..end`.
///
/// Managed code may allocate from it inline. It loads `cursor` and adds the cell size. If the sum
/// is at most `end`, it stores the sum as `cursor`; the old value is the object, zeroed. Otherwise
/// it calls [`Allocator::allocate`](super::Allocator::allocate). There must be no safepoint between
/// the load and the store.
#[repr(C)]
#[derive(Debug, Default)]
pub struct AllocationSlot {
    cursor: AtomicUsize,
    end: AtomicUsize,
    /// One more than the number of the block that the run lies in; 0 if there is none. Read and
    /// written under the allocator's lock.
    block: AtomicU32,
}

impl AllocationSlot {
    /// Bytes from one slot to the next.
    pub const STRIDE: usize = 4 * size_of::<usize>();
    /// Offset of the word that holds the address of the next cell.
    pub const CURSOR: usize = 0;
    /// Offset of the word that holds the address after the last cell.
    pub const END: usize = size_of::<usize>();

    /// Takes the next cell of the run, of `size` bytes. For the allocator's thread.
    #[inline]
    pub(super) fn bump(&self, size: usize) -> Option<NonNull<u8>> {
        // Relaxed: the thread's own words. The collector reads them when this thread has passed a
        // safepoint, and writes them while it is stopped; both order these accesses.
        let object = self.cursor.load(Relaxed);
        let next = object + size;
        if next > self.end.load(Relaxed) {
            return None;
        }
        self.cursor.store(next, Relaxed);
        NonNull::new(object as *mut u8)
    }

    // The methods below are called under the allocator's lock, which orders `block` and `end`; for
    // `cursor` see `bump`. So Relaxed suffices.

    pub(super) fn block(&self) -> Option<usize> {
        Some(self.block.load(Relaxed).checked_sub(1)? as usize)
    }

    /// The run's cursor and end.
    pub(super) fn run(&self) -> (usize, usize) {
        (self.cursor.load(Relaxed), self.end.load(Relaxed))
    }

    pub(super) fn set_run(&self, from: usize, to: usize) {
        self.cursor.store(from, Relaxed);
        self.end.store(to, Relaxed);
    }

    /// Changes the block. There is no run yet.
    pub(super) fn set_block(&self, block: Option<usize>) {
        self.block.store(block.map_or(0, |block| block as u32 + 1), Relaxed);
        self.set_run(0, 0);
    }
}

#[cfg(not(stackmark_loom))]
const _: () = {
    assert!(std::mem::offset_of!(AllocationSlot, cursor) == AllocationSlot::CURSOR);
    assert!(std::mem::offset_of!(AllocationSlot, end) == AllocationSlot::END);
    assert!(size_of::<AllocationSlot>() <= AllocationSlot::STRIDE);
};

/// The slots of one allocator, by the numbers of their spaces.
pub(super) trait Slots {
    /// The slot of a space.
    fn slot(&self, space: usize) -> &AllocationSlot;
}

/// The part of an allocator that the collector reaches.
pub(super) struct LocalRuns<S> {
    pub(super) slots: S,
    pub(super) state: Mutex<LocalState>,
}

/// What an allocator's lock guards, together with the slots' `block`s.
#[derive(Debug, Default)]
pub(super) struct LocalState {
    /// The spaces of slots that have a block.
    pub(super) active: Vec<u32>,
    /// Bytes handed out less those taken back, of which the heap has not counted yet. Not a
    /// `usize`: below zero it is added to a counter that is wider than some words.
    allocated: i64,
    /// Bytes handed out that the heap's owner has not heard of, while marking is on.
    unreported: usize,
}

impl LocalState {
    /// Counts `bytes` bytes that are handed out.
    pub(super) fn hand_out(&mut self, bytes: usize) {
        self.allocated += bytes as i64;
    }

    /// Counts `bytes` bytes that are taken back.
    pub(super) fn take_back(&mut self, bytes: usize) {
        self.allocated -= bytes as i64;
    }

    /// The bytes handed out less those taken back since the last call.
    pub(super) fn take_allocated(&mut self) -> i64 {
        std::mem::take(&mut self.allocated)
    }

    /// Notes that `bytes` bytes are handed out. Returns how many the heap's owner is to
    /// hear of now.
    pub(super) fn take_unreported(&mut self, bytes: usize, marking: bool) -> usize {
        if !marking {
            self.unreported = 0;
            return 0;
        }
        self.unreported += bytes;
        if self.unreported < BLOCK { 0 } else { std::mem::take(&mut self.unreported) }
    }
}
