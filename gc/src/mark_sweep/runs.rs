//! The runs of free cells that an allocator hands out, and what the beginning and the end of a
//! cycle do to them.
//!
//! A run of cells is zeroed, counted, and marked if marking is on, all at once when the allocator
//! gets to it. When marking begins, the collector blackens what is left of each allocator's runs,
//! from where the cursor stands: the cells before it may hold references that were stored while the
//! write barrier was off; those after it will be initialised by a thread that has it on, since the
//! collector had each thread answer between the two.
//!
//! Plain Rust without raw memory, as `ownership`, whose models run this code too.

use std::ptr::NonNull;
use std::sync::Arc;

use stackmark_stack::sync::Ordering::Relaxed;
use stackmark_stack::sync::{AtomicU32, AtomicUsize, LeftOut, Mutex, left_out};

use super::class::BLOCK;
use super::ownership::{self, Blocks};

/// Where one thread allocates cells of one descriptor and class: the free run `cursor..end`.
///
/// Managed code may allocate from it inline: load `cursor`, add the cell size, and if the sum is at
/// most `end`, store it; the old value is the object, zeroed. Otherwise it calls
/// [`Allocator::allocate`](super::Allocator::allocate). Between the load and the store there must
/// be no safepoint.
#[repr(C)]
#[derive(Debug, Default)]
pub struct AllocationSlot {
    cursor: AtomicUsize,
    end: AtomicUsize,
    /// One more than the number of the block that the run lies in; 0 if there is none. Read and
    /// written under the lock.
    block: AtomicU32,
}

impl AllocationSlot {
    /// Bytes from one slot to the next.
    pub const STRIDE: usize = 32;
    /// Offset of the word that holds the address of the next cell.
    pub const CURSOR: usize = 0;
    /// Offset of the word that holds the address after the last cell.
    pub const END: usize = 8;

    /// The next cell of the run, of `size` bytes. For the allocator's thread.
    #[inline]
    pub(super) fn bump(&self, size: usize) -> Option<NonNull<u8>> {
        // Relaxed: the thread's own words. The collector reads them when this thread has passed a
        // safepoint, or writes them while it is stopped; both order these accesses.
        let object = self.cursor.load(Relaxed);
        let next = object + size;
        if next > self.end.load(Relaxed) {
            return None;
        }
        self.cursor.store(next, Relaxed);
        NonNull::new(object as *mut u8)
    }

    // Under the lock, all of these. Relaxed: the lock orders `block` and `end`; for `cursor` see
    // `bump`.

    pub(super) fn block(&self) -> Option<usize> {
        Some(self.block.load(Relaxed).checked_sub(1)? as usize)
    }

    fn set_run(&self, from: usize, to: usize) {
        self.cursor.store(from, Relaxed);
        self.end.store(to, Relaxed);
    }

    fn set_block(&self, block: Option<usize>) {
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
pub(super) struct Local<S> {
    pub(super) slots: S,
    pub(super) state: Mutex<State>,
}

/// What the lock guards, together with the slots' `block`s.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Slots that have a block.
    active: Vec<u32>,
    /// Bytes handed out that the heap does not know of yet.
    allocated: usize,
    /// Bytes handed out since the last call of `Growth::handed_out`, while marking is on.
    untold: usize,
}

impl State {
    /// What was handed out since the last call. Wraps when more was taken back than handed out
    /// meanwhile.
    pub(super) fn take_allocated(&mut self) -> usize {
        std::mem::take(&mut self.allocated)
    }

    /// Notes that `bytes` more are handed out; tells how many are to be told of now.
    pub(super) fn take_untold(&mut self, bytes: usize, marking: bool) -> usize {
        if !marking {
            self.untold = 0;
            return 0;
        }
        self.untold += bytes;
        if self.untold < BLOCK { 0 } else { std::mem::take(&mut self.untold) }
    }
}

/// Objects handed out are black from now on. The last sweep is complete, and every thread has the
/// write barrier on.
pub(super) fn begin_marking(heap: &impl Blocks) {
    let turnover = heap.turnover();
    // Relaxed: the locks below order it. An allocator that takes its lock after us sees the flag;
    // one that took it before has left its run for us to see.
    turnover.marking.store(true, Relaxed);
    for local in turnover.allocators.lock().iter() {
        let mut state = local.state.lock();
        if !left_out(LeftOut::BlackRest) {
            local.blacken(heap, &state);
        }
        heap.count_allocated(state.take_allocated());
    }
}

/// Objects are handed out white again, and no allocator has a block. The world is stopped.
pub(super) fn end_marking(heap: &impl Blocks) {
    let turnover = heap.turnover();
    turnover.marking.store(false, Relaxed);
    for local in turnover.allocators.lock().iter() {
        let mut state = local.state.lock();
        if !left_out(LeftOut::Retire) {
            local.retire(heap, &mut state);
        }
        heap.count_allocated(state.take_allocated());
    }
}

impl<S: Slots> Local<S> {
    /// An allocator of a heap from now on.
    pub(super) fn register(slots: S, heap: &impl Blocks<Slots = S>) -> Arc<Local<S>> {
        let local = Arc::new(Local { slots, state: Mutex::default() });
        heap.turnover().allocators.lock().push(Arc::clone(&local));
        local
    }

    /// What is left of the slot's run, as cells of its block.
    fn rest(&self, heap: &impl Blocks, space: u32) -> Option<(usize, usize, usize)> {
        let slot = self.slots.slot(space as usize);
        let block = slot.block()?;
        let (start, size) = heap.cells_of(block);
        // Relaxed: a stale cursor lies before the true one; the cells between were handed out after
        // this thread's last safepoint, which the collector has waited for.
        let cell = |address: usize| (address - start) / size;
        Some((block, cell(slot.cursor.load(Relaxed)), cell(slot.end.load(Relaxed))))
    }

    /// Blackens the rest of every run.
    fn blacken(&self, heap: &impl Blocks, state: &State) {
        for space in &state.active {
            if let Some((block, from, to)) = self.rest(heap, *space) {
                heap.blacken(block, from, to);
            }
        }
    }

    /// Takes the rest of every run back and condemns the blocks; the world is stopped.
    fn retire(&self, heap: &impl Blocks, state: &mut State) {
        for space in std::mem::take(&mut state.active) {
            let Some((block, from, to)) = self.rest(heap, space) else { continue };
            heap.take_back(block, from, to);
            state.allocated = state.allocated.wrapping_sub((to - from) * heap.cells_of(block).1);
            heap.space(space as usize).lock().unswept.push(block);
            // The owner is stopped, and sees this when it is started again.
            self.slots.slot(space as usize).set_block(None);
        }
    }

    /// Puts the slot on its next run of free cells; tells how many bytes [`Growth::handed_out`] is
    /// to be told of.
    ///
    /// [`Growth::handed_out`]: crate::heap::Growth::handed_out
    pub(super) fn next_run<B: Blocks>(&self, heap: &B, space: usize) -> Result<usize, B::Error> {
        let (turnover, slot) = (heap.turnover(), self.slots.slot(space));
        let too_early = left_out(LeftOut::MarkingLock).then(|| turnover.is_marking());
        let mut state = self.state.lock();
        // Read under the lock that `begin_marking` takes after it has set the flag: either this
        // sees it, or `begin_marking` sees the run.
        let marking = too_early.unwrap_or_else(|| turnover.is_marking());
        loop {
            if let Some(block) = slot.block() {
                let (start, size) = heap.cells_of(block);
                let from = slot.end.load(Relaxed).saturating_sub(start) / size;
                if let Some((first, end)) = heap.next_free_run(block, from) {
                    heap.clear(block, first, end);
                    if marking {
                        heap.blacken(block, first, end);
                    }
                    heap.hand_out(block, first, end);
                    slot.set_run(start + first * size, start + end * size);
                    let bytes = (end - first) * size;
                    state.allocated = state.allocated.wrapping_add(bytes);
                    return Ok(state.take_untold(bytes, marking));
                }
                heap.space(space).lock().full.push(block);
                slot.set_block(None);
                state.active.retain(|active| *active as usize != space);
            }
            heap.count_allocated(state.take_allocated());
            let block = ownership::acquire(heap, space)?;
            slot.set_block(Some(block));
            state.active.push(space as u32);
        }
    }

    /// The allocator goes away; its blocks go back to their spaces. What is left of the runs stays
    /// handed out (zero, black if marking is on) until the next sweep, so that a marker that looks
    /// there now sees nothing strange.
    pub(super) fn give_up(self: &Arc<Self>, heap: &impl Blocks<Slots = S>) {
        let mut state = self.state.lock();
        for space in std::mem::take(&mut state.active) {
            let slot = self.slots.slot(space as usize);
            if let Some(block) = slot.block() {
                heap.space(space as usize).lock().available.push(block);
                slot.set_block(None);
            }
        }
        heap.count_allocated(state.take_allocated());
        drop(state);
        heap.turnover().allocators.lock().retain(|other| !Arc::ptr_eq(other, self));
    }
}
