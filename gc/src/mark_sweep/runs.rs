//! The runs of free cells that an allocator hands out, and what the beginning and the end of a
//! cycle do to them.
//!
//! A run of cells is zeroed, counted, and marked if marking is on, all at once when the allocator
//! gets to it. When marking begins, the collector blackens what is left of each allocator's runs,
//! from the cursor on. The cells before the cursor may hold references that were stored while the
//! write barrier was off. Those after it will be initialised by a thread that has it on, since the
//! collector has had each thread answer between the two.
//!
//! Plain Rust without raw memory, as `ownership`, whose models run this code too.

use std::sync::Arc;

use stackmark_stack::sync::{LeftOut, Mutex, left_out};

use super::blocks::Blocks;
use super::ownership;
use super::slot::{LocalRuns, LocalState, Slots};

/// Has objects handed out black from now on. The last sweep is complete, and every thread has the
/// write barrier on.
pub(super) fn begin_marking(heap: &impl Blocks) {
    let protocol = heap.protocol();
    // The locks below order it. An allocator that takes its lock after us sees the flag. One that
    // took it before has left its run for us to see.
    protocol.set_marking(true);
    for local in protocol.allocators.lock().iter() {
        let mut state = local.state.lock();
        if !left_out(LeftOut::BlackRest) {
            local.blacken(heap, &state);
        }
        heap.count_allocated(state.take_allocated());
    }
}

/// Has objects handed out white again, and takes every allocator's blocks. The world is stopped.
pub(super) fn end_marking(heap: &impl Blocks) {
    let protocol = heap.protocol();
    protocol.set_marking(false);
    for local in protocol.allocators.lock().iter() {
        let mut state = local.state.lock();
        if !left_out(LeftOut::Retire) {
            local.retire(heap, &mut state);
        }
        heap.count_allocated(state.take_allocated());
    }
}

impl<S: Slots> LocalRuns<S> {
    /// Adds an allocator to a heap.
    pub(super) fn register(slots: S, heap: &impl Blocks<Slots = S>) -> Arc<LocalRuns<S>> {
        let local = Arc::new(LocalRuns { slots, state: Mutex::default() });
        heap.protocol().allocators.lock().push(Arc::clone(&local));
        local
    }

    /// What is left of a slot's run: its block, and the numbers of the first cell and the end.
    fn rest(&self, heap: &impl Blocks, space: u32) -> Option<(usize, usize, usize)> {
        let slot = self.slots.slot(space as usize);
        let block = slot.block()?;
        let (start, size) = heap.cells_of(block);
        // A stale cursor lies before the true one. The cells between were handed out after this
        // thread's last safepoint, which the collector has waited for.
        let (cursor, end) = slot.run();
        let cell = |address: usize| (address - start) / size;
        Some((block, cell(cursor), cell(end)))
    }

    /// Blackens the rest of every run.
    fn blacken(&self, heap: &impl Blocks, state: &LocalState) {
        for space in &state.active {
            if let Some((block, from, to)) = self.rest(heap, *space) {
                heap.blacken(block, from, to);
            }
        }
    }

    /// Takes the rest of every run back and condemns the blocks. The world is stopped.
    fn retire(&self, heap: &impl Blocks, state: &mut LocalState) {
        for space in std::mem::take(&mut state.active) {
            let Some((block, from, to)) = self.rest(heap, space) else { continue };
            heap.take_back(block, from, to);
            state.take_back((to - from) * heap.cells_of(block).1);
            heap.space(space as usize).lock().unswept.push(block);
            // The owner is stopped. It sees this when it runs again.
            self.slots.slot(space as usize).set_block(None);
        }
    }

    /// Gives the slot of a space its next run of free cells. Returns how many bytes
    /// [`handed_out`](crate::heap::HeapOwner::handed_out) is to hear of.
    ///
    /// # Errors
    /// When the heap has no block for the space.
    pub(super) fn next_run<B: Blocks>(&self, heap: &B, space: usize) -> Result<usize, B::Error> {
        let (protocol, slot) = (heap.protocol(), self.slots.slot(space));
        let too_early = left_out(LeftOut::MarkingLock).then(|| protocol.is_marking());
        let mut state = self.state.lock();
        // Read under the lock that `begin_marking` takes after it has set the flag. Either this
        // load sees the flag, or `begin_marking` sees the run.
        let marking = too_early.unwrap_or_else(|| protocol.is_marking());
        loop {
            if let Some(block) = slot.block() {
                let (start, size) = heap.cells_of(block);
                let from = slot.run().1.saturating_sub(start) / size;
                if let Some((first, end)) = heap.next_free_run(block, from) {
                    heap.clear(block, first, end);
                    if marking {
                        heap.blacken(block, first, end);
                    }
                    heap.hand_out(block, first, end);
                    slot.set_run(start + first * size, start + end * size);
                    let bytes = (end - first) * size;
                    state.hand_out(bytes);
                    return Ok(state.take_unreported(bytes, marking));
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

    /// Removes the allocator from its heap. Its blocks go back to their spaces. What is left of the
    /// runs stays handed out until the next sweep: zero, and black if marking is on. So a marker
    /// that looks there sees what it would see in any run.
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
        heap.protocol().allocators.lock().retain(|other| !Arc::ptr_eq(other, self));
    }
}
