//! Who owns which block: the protocol between threads that allocate, those that sweep, and cycles
//! that begin and end.
//!
//! Plain Rust without raw memory, over [`Blocks`], so that models run this very code; `runs` is the
//! other half, what an allocator does with a block that it owns. Invariants:
//!
//! 1. *Owning*: a block is free, or in one list of its space, or one allocator's, or in the hands
//!    of one thread that sweeps it. Who takes it from a list, under the list's lock, owns it. Only
//!    the owner sweeps it and hands its cells out.
//! 2. *Once*: a block comes into `unswept` at a cycle's end alone, from wherever it is, and leaves
//!    it to be swept; nothing is handed out of it between.
//! 3. *Waiting*: an allocator takes and sweeps blocks under its own lock. Who sweeps everything
//!    takes each of these locks once when the lists are empty: then nobody sweeps any more, and
//!    marks may be set.
//! 4. *Ends*: with the world stopped, allocators give up their blocks before the lists are
//!    condemned. One that is dropped meanwhile, by a thread that ends in native code, gives its
//!    blocks up before or finds that they are gone.

use std::sync::Arc;

use stackmark_stack::sync::Ordering::{Acquire, Relaxed, Release};
use stackmark_stack::sync::{AtomicBool, LeftOut, Mutex, left_out};

use super::runs::{Local, Slots};

#[cfg(all(test, stackmark_loom))]
mod models;

/// How many blocks without a free cell a thread sweeps before it takes a fresh block instead.
const PATIENCE: usize = 16;

/// Blocks that are swept, or given back, between two takings of a lock.
const BATCH: usize = 64;

/// The blocks of cells of one heap. A *space* is a number: that of a descriptor and a class.
pub(super) trait Blocks {
    /// Why there is no block.
    type Error;
    /// Where allocators keep their runs.
    type Slots: Slots;

    /// The state of the protocol.
    fn turnover(&self) -> &Turnover<Self::Slots>;
    /// The lists of a space.
    fn space(&self, space: usize) -> &Mutex<Space>;
    /// The spaces that have or had blocks.
    fn spaces(&self) -> Vec<usize>;

    /// A block with free cells alone, set up for a space.
    ///
    /// # Errors
    /// When there is none.
    fn fresh(&self, space: usize) -> Result<usize, Self::Error>;
    /// Takes blocks back in which nothing lives.
    fn free(&self, blocks: &mut Vec<usize>);
    /// Frees the cells of a block that are not marked, and clears the marks. For the owner.
    fn sweep(&self, block: usize) -> Left;

    /// The address of a block's first cell and the size of its cells.
    fn cells_of(&self, block: usize) -> (usize, usize);
    /// The next run of cells from `from` on that are not handed out. For the owner, as all that
    /// follows.
    fn next_free_run(&self, block: usize, from: usize) -> Option<(usize, usize)>;
    /// Makes cells zero that are not handed out.
    fn clear(&self, block: usize, from: usize, to: usize);
    /// Marks cells. By whom ever.
    fn blacken(&self, block: usize, from: usize, to: usize);
    /// Publishes cells.
    fn hand_out(&self, block: usize, from: usize, to: usize);
    /// Takes cells back that became no objects.
    fn take_back(&self, block: usize, from: usize, to: usize);

    /// Adds to the bytes handed out; wraps like the counter of an allocator that took more back
    /// than it gave.
    fn count_allocated(&self, bytes: usize);
}

/// What a sweep has left of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// No object.
    Nothing,
    /// Objects and free cells.
    Some,
    /// Objects in every cell.
    All,
}

/// The blocks of one descriptor and class, but for those that an allocator has taken.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Swept, and with free cells.
    pub(super) available: Vec<usize>,
    /// Filled since the last cycle.
    pub(super) full: Vec<usize>,
    /// Swept, and without free cells: all are marked, if marks are kept, so that a cycle which
    /// keeps them finds nothing there.
    pub(super) old: Vec<usize>,
    /// Not swept since the last cycle.
    pub(super) unswept: Vec<usize>,
    /// Whether the space is one of [`Blocks::spaces`].
    pub(super) known: bool,
}

/// What all threads share.
pub(super) struct Turnover<S> {
    pub(super) allocators: Mutex<Vec<Arc<Local<S>>>>,
    /// Objects handed out are black. Written before, read under, each allocator's lock.
    pub(super) marking: AtomicBool,
    /// Held by who sweeps everything.
    turn: Mutex<()>,
    /// Whether there is anything left to sweep. Set with the world stopped.
    pending: AtomicBool,
}

impl<S> Default for Turnover<S> {
    fn default() -> Self {
        Turnover {
            allocators: Mutex::default(),
            marking: AtomicBool::new(false),
            turn: Mutex::default(),
            pending: AtomicBool::new(false),
        }
    }
}

impl<S> Turnover<S> {
    /// Whether objects are handed out black. Called under an allocator's lock.
    pub(super) fn is_marking(&self) -> bool {
        // Relaxed: the lock orders it; see `runs::begin_marking`.
        self.marking.load(Relaxed)
    }

    /// Whether there is anything left to sweep.
    pub(super) fn sweep_is_pending(&self) -> bool {
        // Acquire: pairs with the store in `begin_sweep`.
        self.pending.load(Acquire)
    }

    /// Lets sweeping begin, after everything that is to be swept has been put into lists. The world
    /// is stopped.
    pub(super) fn begin_sweep(&self) {
        // Release: pairs with the load in `sweep_is_pending`: who sees it sees the lists filled.
        self.pending.store(true, Release);
    }
}

/// Puts every block up for sweeping, or, if earlier cycles' marks were `kept`, those that may hold
/// unmarked objects: a cycle ends. The world is stopped and the allocators have given up their
/// blocks.
pub(super) fn condemn(heap: &impl Blocks, kept: bool) {
    for space in heap.spaces() {
        let lists = &mut *heap.space(space).lock();
        if lists.unswept.is_empty() {
            std::mem::swap(&mut lists.unswept, &mut lists.full);
        }
        if !kept {
            lists.unswept.append(&mut lists.old);
        }
        lists.unswept.append(&mut lists.full);
        lists.unswept.append(&mut lists.available);
    }
}

/// A block with free cells, the caller's own. Called under an allocator's lock (invariant 3).
pub(super) fn acquire<B: Blocks>(heap: &B, space: usize) -> Result<usize, B::Error> {
    let lists = heap.space(space);
    for _ in 0..PATIENCE {
        let mut taken = lists.lock();
        if let Some(block) = taken.available.pop() {
            return Ok(block);
        }
        let Some(block) = taken.unswept.pop() else { break };
        drop(taken);
        if heap.sweep(block) != Left::All {
            return Ok(block);
        }
        lists.lock().old.push(block);
    }
    heap.fresh(space)
}

/// Sweeps whatever is left, and what `others` does; when nobody sweeps any more calls `complete`.
/// Does nothing if that has been done since the last cycle.
pub(super) fn sweep_everything<B: Blocks>(
    heap: &B,
    others: impl FnOnce(),
    complete: impl FnOnce(),
) {
    let turnover = heap.turnover();
    let turn = turnover.turn.lock();
    if !turnover.sweep_is_pending() {
        return;
    }
    let mut free = Vec::new();
    for space in heap.spaces() {
        sweep_space(heap, space, &mut free);
    }
    heap.free(&mut free);
    others();
    if !left_out(LeftOut::SweepWait) {
        // Invariant 3.
        for local in turnover.allocators.lock().iter() {
            drop(local.state.lock());
        }
    }
    complete();
    // Relaxed: who sees it goes by the lock of the turn; others may look in vain once more.
    turnover.pending.store(false, Relaxed);
    drop(turn);
}

fn sweep_space(heap: &impl Blocks, space: usize, free: &mut Vec<usize>) {
    let space = heap.space(space);
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
        for block in batch.drain(..) {
            match heap.sweep(block) {
                Left::Nothing => free.push(block),
                Left::Some => available.push(block),
                Left::All => old.push(block),
            }
        }
        if free.len() >= BATCH {
            heap.free(free);
        }
    }
}
