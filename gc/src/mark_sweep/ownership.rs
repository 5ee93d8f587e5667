//! Ownership of blocks: the protocol between threads that allocate, threads that sweep, and cycles
//! that begin and end.
//!
//! Plain Rust without raw memory, over [`Blocks`], so that models run this very code. `runs` is the
//! other half: what an allocator does with a block that it owns. Invariants:
//!
//! 1. *Owning*: a block is free, or in one list of its space, or one allocator's, or in the hands
//!    of one thread that sweeps it. The thread that takes it from a list, under the list's lock,
//!    owns it. Only the owner sweeps it and hands its cells out.
//! 2. *Once*: a block comes into `unswept` at a cycle's end alone, from wherever it is, and leaves
//!    it to be swept; none of its cells is handed out between.
//! 3. *Waiting*: an allocator takes and sweeps blocks under its own lock. A thread that sweeps
//!    everything takes each of these locks once when the lists are empty. Then no thread sweeps any
//!    more, and marks may be set.
//! 4. *Ends*: with the world stopped, allocators give up their blocks before the lists are
//!    condemned. An allocator that is dropped meanwhile, by a thread that ends in native code,
//!    gives its blocks up before or finds that they are gone.

use stackmark_stack::sync::{LeftOut, left_out};

use super::blocks::{Blocks, Occupancy, Space};

#[cfg(all(test, stackmark_loom))]
mod models;

/// How many blocks without a free cell a thread sweeps before it takes a fresh block instead.
const SWEEP_ATTEMPTS: usize = 16;

/// Blocks that are swept or freed each time that a lock is taken.
const BATCH: usize = 64;

/// Puts blocks up for sweeping at the end of a cycle: those that may hold unmarked objects if the
/// cycle was `minor`, else all. The world is stopped and the allocators have given up their blocks.
pub(super) fn condemn(heap: &impl Blocks, minor: bool) {
    for space in heap.spaces() {
        let lists = &mut *heap.space(space).lock();
        let Space { available, full, old, unswept, .. } = lists;
        if !minor {
            unswept.take_over(old);
        }
        unswept.take_over(full);
        unswept.take_over(available);
    }
}

/// A block with free cells, which the caller owns from now on. Called under an allocator's lock
/// (invariant 3).
pub(super) fn acquire<B: Blocks>(heap: &B, space: usize) -> Result<usize, B::Error> {
    let lists = heap.space(space);
    for _ in 0..SWEEP_ATTEMPTS {
        let mut taken = lists.lock();
        if let Some(block) = taken.available.pop() {
            return Ok(block);
        }
        let Some(block) = taken.unswept.pop() else { break };
        drop(taken);
        if heap.sweep(block) != Occupancy::Full {
            return Ok(block);
        }
        lists.lock().old.push(block);
    }
    heap.fresh(space)
}

/// Sweeps every block that is left, and calls `sweep_large` for objects that are not in cells. When
/// no thread sweeps any more it calls `complete`. Does nothing if that has been done since the last
/// cycle.
pub(super) fn sweep_everything<B: Blocks>(
    heap: &B,
    sweep_large: impl FnOnce(),
    complete: impl FnOnce(),
) {
    let protocol = heap.protocol();
    let _turn = protocol.sweep_lock.lock();
    if !protocol.is_sweep_pending() {
        return;
    }
    let mut free = Vec::new();
    for space in heap.spaces() {
        sweep_space(heap, space, &mut free);
    }
    heap.free(&mut free);
    sweep_large();
    if !left_out(LeftOut::SweepWait) {
        // Invariant 3.
        for local in protocol.allocators.lock().iter() {
            drop(local.state.lock());
        }
    }
    complete();
    protocol.end_sweep();
}

fn sweep_space(heap: &impl Blocks, space: usize, free: &mut Vec<usize>) {
    let space = heap.space(space);
    let mut batch = Vec::new();
    let (mut available, mut old) = (Vec::new(), Vec::new());
    loop {
        let mut lists = space.lock();
        lists.available.append(&mut available);
        lists.old.append(&mut old);
        batch.extend(std::iter::from_fn(|| lists.unswept.pop()).take(BATCH));
        drop(lists);
        if batch.is_empty() {
            return;
        }
        for block in batch.drain(..) {
            match heap.sweep(block) {
                Occupancy::Empty => free.push(block),
                Occupancy::Partial => available.push(block),
                Occupancy::Full => old.push(block),
            }
        }
        if free.len() >= BATCH {
            heap.free(free);
        }
    }
}
