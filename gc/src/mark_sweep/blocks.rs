//! The blocks of a heap as the protocol of `ownership` and `runs` sees them: plain Rust without raw
//! memory, so that models run the protocol's very code.

use std::sync::Arc;

use stackmark_stack::sync::Ordering::{Acquire, Relaxed, Release};
use stackmark_stack::sync::{AtomicBool, Mutex};

use super::slot::{LocalRuns, Slots};

/// The blocks of cells of one heap. A *space* is the number of a descriptor and class.
pub(super) trait Blocks {
    /// Why there is no block.
    type Error;
    /// Where allocators keep their runs.
    type Slots: Slots;

    /// The state of the protocol.
    fn protocol(&self) -> &Protocol<Self::Slots>;
    /// The lists of a space.
    fn space(&self, space: usize) -> &Mutex<Space>;
    /// The spaces that have or had blocks.
    fn spaces(&self) -> Vec<usize>;

    /// A block with free cells alone, set up for a space.
    ///
    /// # Errors
    /// When there is none.
    fn fresh(&self, space: usize) -> Result<usize, Self::Error>;
    /// Takes back blocks in which no object lives.
    fn free(&self, blocks: &mut Vec<usize>);
    /// Frees the cells of a block that are not marked, and clears the marks. For the owner.
    fn sweep(&self, block: usize) -> Occupancy;

    /// The address of a block's first cell and the size of its cells.
    fn cells_of(&self, block: usize) -> (usize, usize);
    /// The next run of cells from `from` on that are not handed out. For the owner, as all that
    /// follows but `blacken`.
    fn next_free_run(&self, block: usize, from: usize) -> Option<(usize, usize)>;
    /// Zeroes cells that are not handed out.
    fn clear(&self, block: usize, from: usize, to: usize);
    /// Marks cells. Any thread may do so.
    fn blacken(&self, block: usize, from: usize, to: usize);
    /// Publishes cells.
    fn hand_out(&self, block: usize, from: usize, to: usize);
    /// Takes back cells that became no objects.
    fn take_back(&self, block: usize, from: usize, to: usize);

    /// Adds to the bytes handed out. `bytes` are below zero when an allocator has taken back more
    /// than it handed out since it counted last.
    fn count_allocated(&self, bytes: i64);
}

/// How many of a block's cells hold objects after a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupancy {
    /// None.
    Empty,
    /// Some; the others are free.
    Partial,
    /// All.
    Full,
}

/// The blocks of one descriptor and class, but for those that an allocator has taken.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Swept, and with free cells.
    pub(super) available: Vec<usize>,
    /// Filled since the last cycle.
    pub(super) full: Vec<usize>,
    /// Swept, and without free cells. If marks are kept all of its cells are marked, so that a
    /// minor cycle finds nothing there.
    pub(super) old: Vec<usize>,
    /// Not swept since the last cycle.
    pub(super) unswept: Unswept,
    /// Whether the space is one of [`Blocks::spaces`].
    pub(super) known: bool,
}

/// Blocks that are to be swept. Lists of them are taken over as they are: the world is stopped
/// then, and does not wait for a time that depends on the size of the heap.
#[derive(Debug, Default)]
pub(super) struct Unswept(Vec<Vec<usize>>);

impl Unswept {
    /// Takes all blocks of a list, which is empty then.
    pub(super) fn take_over(&mut self, list: &mut Vec<usize>) {
        if !list.is_empty() {
            self.0.push(std::mem::take(list));
        }
    }

    /// Adds a block.
    pub(super) fn push(&mut self, block: usize) {
        match self.0.last_mut() {
            Some(last) => last.push(block),
            None => self.0.push(vec![block]),
        }
    }

    /// One of the blocks.
    pub(super) fn pop(&mut self) -> Option<usize> {
        loop {
            match self.0.last_mut()?.pop() {
                Some(block) => return Some(block),
                None => self.0.pop(),
            };
        }
    }

    /// How many blocks there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

#[cfg(all(test, stackmark_loom))]
impl FromIterator<usize> for Unswept {
    fn from_iter<I: IntoIterator<Item = usize>>(blocks: I) -> Unswept {
        Unswept(vec![blocks.into_iter().collect()])
    }
}

/// The state of the protocol between allocation, sweeping and cycles.
pub(super) struct Protocol<S> {
    pub(super) allocators: Mutex<Vec<Arc<LocalRuns<S>>>>,
    /// Objects handed out are black. Written before each allocator's lock is taken, read under it.
    marking: AtomicBool,
    /// Held by the thread that sweeps everything.
    pub(super) sweep_lock: Mutex<()>,
    /// Whether there is anything left to sweep. Set with the world stopped.
    sweep_pending: AtomicBool,
}

impl<S> Default for Protocol<S> {
    fn default() -> Self {
        Protocol {
            allocators: Mutex::default(),
            marking: AtomicBool::new(false),
            sweep_lock: Mutex::default(),
            sweep_pending: AtomicBool::new(false),
        }
    }
}

impl<S> Protocol<S> {
    /// Whether objects are handed out black. Called under an allocator's lock.
    pub(super) fn is_marking(&self) -> bool {
        // Relaxed: the lock orders it; see `runs::begin_marking`.
        self.marking.load(Relaxed)
    }

    /// Followed by taking each allocator's lock.
    pub(super) fn set_marking(&self, marking: bool) {
        // Relaxed: see `is_marking`.
        self.marking.store(marking, Relaxed);
    }

    /// Whether there is anything left to sweep.
    pub(super) fn is_sweep_pending(&self) -> bool {
        // Acquire: pairs with the store in `begin_sweep`.
        self.sweep_pending.load(Acquire)
    }

    /// Lets sweeping begin, after everything that is to be swept has been put into lists. The world
    /// is stopped.
    pub(super) fn begin_sweep(&self) {
        // Release: pairs with the load in `is_sweep_pending`. A thread that sees it sees the lists
        // filled.
        self.sweep_pending.store(true, Release);
    }

    /// Notes that everything is swept. Called under `sweep_lock`.
    pub(super) fn end_sweep(&self) {
        // Relaxed: `sweep_lock` orders it for threads that sweep everything. Others may look in
        // vain once more.
        self.sweep_pending.store(false, Relaxed);
    }
}
