//! The default heap: non-moving, size-segregated mark-sweep with thread-local allocation.
//!
//! One range of address space is cut into blocks of 16 KiB. A block holds cells of one size class
//! for one [`Descriptor`], or belongs to one large object. Objects have no header: what they are
//! follows from their block, whose record lies aside, marks included. Memory is handed out zeroed.
//!
//! Marks may be *sticky* ([`Heap::keep_marks`]; Demers, Weiser, Hayes, Boehm, Bobrow and Shenker,
//! "Combining generational and conservative garbage collection: framework and implementations",
//! POPL 1990): sweeping leaves them, so that what a cycle has marked is old, what was allocated
//! since is unmarked and young, and the next cycle traces from young objects only and sweeps only
//! blocks that have some. What is handed out black is old from the start: its references are marked
//! too, since the thread that stored them did so with the write barrier on. A free cell has no
//! mark, since sweeping frees unmarked ones.
//!
//! Sweeping is lazy: a thread that needs cells sweeps a block of its own kind first; the
//! collector's thread sweeps the rest meanwhile.
//!
//! # Marking, allocation and sweeping at the same time
//!
//! - *Sweeping never meets marking*: a cycle begins only when the last sweep is complete, threads
//!   in the middle of sweeping a block included ([`Heap::finish_sweep`] waits for them).
//! - *Sweeping meets allocation* only by blocks, each of which has one owner; see `ownership`.
//! - *Marking meets allocation* in one block all the time. Cells are handed out by runs, and a run
//!   is zeroed, then blackened, then published; whoever resolves a word into it sees zeros or
//!   newer, and marks that cannot be lost. See `block`.
//! - *A word that hits a free cell* (an old value in a conservatively scanned stack) resolves to
//!   nothing, since the cell is not handed out. One that hits a cell of a run that is not an object
//!   yet marks a cell that is marked already.
//! - *A word that hits a block changing hands* sees its kind last; see `block`.

mod allocator;
mod arena;
mod block;
mod class;
mod descriptor;
mod ownership;
mod pages;
mod registry;
mod runs;
#[cfg(all(test, not(stackmark_loom)))]
mod sticky_tests;
mod sweep;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

pub use self::allocator::Allocator;
pub use self::descriptor::{Descriptor, DescriptorError, DescriptorId};
pub use self::runs::AllocationSlot;

use self::allocator::MappedSlots;
use self::arena::Arena;
use self::block::{Block, LARGE, SMALL, TAIL};
use self::class::{BLOCK, MAX_SMALL};
use self::ownership::{Blocks, Turnover};
use self::pages::Pages;
use self::registry::Registry;
use self::runs::Local;
use self::sweep::Sweep;
use crate::heap::{Growth, Heap, HeapCounts, Marked, Object};

/// What freed cells are filled with under [`Options::poison`].
const POISON: u8 = 0xdb;

/// How a [`MarkSweep`] heap is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most memory for objects, in bytes. An allocation beyond it fails.
    pub limit: usize,
    /// Fill freed cells with a pattern, so that use of a dead object shows.
    pub poison: bool,
}

impl Default for Options {
    /// As much as there is address space for, up to 128 GiB.
    fn default() -> Options {
        Options { limit: 128 << 30, poison: false }
    }
}

/// Why there is no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// The limit, the address space or the system's memory is used up.
    #[error("out of memory: {requested} bytes wanted, {used} of {limit} in use")]
    OutOfMemory {
        /// Bytes that were wanted, in whole blocks.
        requested: usize,
        /// Bytes in use.
        used: usize,
        /// The heap's limit.
        limit: usize,
    },
    /// The descriptor is none of this heap's.
    #[error("descriptor {} is not registered with this heap", descriptor.index())]
    UnknownDescriptor {
        /// The id that was given.
        descriptor: DescriptorId,
    },
}

/// Why a heap, or an allocator of it, could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// The system refused address space.
    #[error("cannot reserve address space for the {what}")]
    Reserve {
        /// What it was for.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The default heap.
pub struct MarkSweep {
    arena: Arena,
    pages: Pages,
    registry: Registry,
    sweep: Sweep,
    turnover: Turnover<MappedSlots>,
    /// Sweeping leaves marks. Relaxed: set before the first cycle.
    sticky: AtomicBool,
    /// The present cycle began with the marks of the last one. Relaxed: only the collector's thread
    /// uses it.
    kept: AtomicBool,
    poison: bool,
    allocated: AtomicU64,
    /// `allocated` when the last cycle ended, and when the present one began.
    allocated_at_end: AtomicU64,
    allocated_at_begin: AtomicU64,
    objects_marked: AtomicU64,
    trigger: AtomicUsize,
    growth: OnceLock<Box<dyn Growth>>,
}

impl std::fmt::Debug for MarkSweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MarkSweep").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl MarkSweep {
    /// An empty heap.
    ///
    /// # Errors
    /// When not even a small range of address space can be reserved.
    pub fn new(options: &Options) -> Result<Arc<MarkSweep>, HeapError> {
        let limit = options.limit.max(BLOCK).next_multiple_of(BLOCK);
        let arena = Arena::reserve(limit, 64 << 20)
            .map_err(|source| HeapError::Reserve { what: "heap", source })?;
        Ok(Arc::new(MarkSweep {
            pages: Pages::new((limit / BLOCK).min(arena.capacity())),
            arena,
            registry: Registry::new(),
            sweep: Sweep::default(),
            turnover: Turnover::default(),
            sticky: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            poison: options.poison,
            allocated: AtomicU64::new(0),
            allocated_at_end: AtomicU64::new(0),
            allocated_at_begin: AtomicU64::new(0),
            objects_marked: AtomicU64::new(0),
            trigger: AtomicUsize::new(usize::MAX),
            growth: OnceLock::new(),
        }))
    }

    /// Registers a kind of object. Equal layouts get the same id.
    ///
    /// # Errors
    /// When there are too many different ones.
    pub fn register(&self, descriptor: Descriptor) -> Result<DescriptorId, DescriptorError> {
        self.registry.register(descriptor)
    }

    /// An allocator for one thread.
    ///
    /// # Errors
    /// When the system refuses address space for its slots.
    pub fn allocator(self: &Arc<Self>) -> Result<Allocator, HeapError> {
        let slots = MappedSlots::new()
            .map_err(|source| HeapError::Reserve { what: "allocator", source })?;
        Ok(Allocator::new(Arc::clone(self), Local::register(slots, &**self)))
    }

    /// Whether sweeping leaves the marks.
    fn keeps_marks(&self) -> bool {
        self.sticky.load(Relaxed)
    }

    /// Tells that `untold` bytes more have been handed out to this thread while marking is on, and
    /// that the heap has grown to its trigger, if either is so. Called without a lock.
    fn tell_growth(&self, untold: usize) {
        let Some(growth) = self.growth.get() else { return };
        if untold > 0 {
            growth.handed_out(untold);
        }
        // Relaxed: the trigger is a hint; whoever disarms it calls.
        if self.allocated_since_cycle() >= self.trigger.load(Relaxed)
            && self.trigger.swap(usize::MAX, Relaxed) != usize::MAX
        {
            growth.reached_trigger();
        }
    }

    #[cold]
    fn allocate_large(
        &self,
        local: &Local<MappedSlots>,
        id: DescriptorId,
        bytes: usize,
    ) -> Result<NonNull<u8>, AllocationError> {
        let Some(record) = self.registry.record(id) else {
            return Err(AllocationError::UnknownDescriptor { descriptor: id });
        };
        debug_assert!(bytes > MAX_SMALL);
        let count = bytes.div_ceil(BLOCK);
        self.sweep_large();
        let first = match self.pages.take(&self.arena, count) {
            Err(_) => {
                self.sweep_everything();
                self.pages.take(&self.arena, count)?
            }
            Ok(first) => first,
        };
        // Nobody else knows the blocks yet. Zeroing is not done under the lock: it may take long.
        for index in first..first + count {
            let block = self.arena.block(index);
            if block.dirty.swap(true, Relaxed) {
                self.arena.zero(self.arena.address_of(index), BLOCK);
            }
            if index > first {
                block.head.store(first as u32, Relaxed);
                block.set_kind(TAIL);
            }
        }
        let mut state = local.state.lock();
        let head = self.arena.block(first);
        let marking = self.turnover.is_marking();
        head.set_up_large(bytes, marking, id.index(), &record.descriptor);
        head.set_kind(LARGE);
        self.sweep.add_large(first);
        self.count_allocated(state.take_allocated().wrapping_add(bytes));
        let untold = state.take_untold(bytes, marking);
        drop(state);
        self.tell_growth(untold);
        Ok(NonNull::new(self.arena.address_of(first) as *mut u8)
            .expect("the heap does not begin at zero"))
    }

    /// An object's block and its number.
    #[inline]
    fn locate(&self, object: Object) -> (usize, &Block) {
        let index = self.arena.index_of(object.address()).expect("an object of this heap");
        (index, self.arena.block(index))
    }

    /// The number of the object's cell in its block. A large object has one.
    #[inline]
    fn cell(&self, object: Object, index: usize, block: &Block) -> usize {
        match block.kind() {
            SMALL => block.cell_number(object.address() - self.arena.address_of(index)),
            _ => 0,
        }
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

#[inline]
fn object_at(address: usize) -> Object {
    let address = NonZeroUsize::new(address).expect("the heap does not begin at zero");
    // SAFETY: the callers have found a handed-out cell or a large object to begin there.
    unsafe { Object::from_address(address) }
}

// SAFETY: marked objects, and those that were handed out after `begin_cycle`, have their mark set,
// and sweeping frees only cells whose mark is clear, and clears no mark of others once marks are
// kept; `trace` visits each place that the descriptor names; `resolve` returns cells that are
// handed out, which are objects or zero. The head of this file tells how that holds while threads
// allocate.
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
            TAIL => self.resolve_large(word, (block.head.load(Relaxed) as usize).min(index)),
            _ => None,
        }
    }

    #[inline]
    fn prefetch(&self, word: usize) -> bool {
        self.arena.prefetch(word)
    }

    #[inline]
    fn mark(&self, object: Object) -> bool {
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
        if block.kind() == LARGE { block.large_size() } else { block.cell_size() }
    }

    #[inline]
    fn trace(&self, object: Object, range: Range<usize>, visit: &mut impl FnMut(usize)) {
        let (_, block) = self.locate(object);
        let size = if block.kind() == LARGE { block.large_size() } else { block.cell_size() };
        block.places(size, range.start, range.end, |offset| {
            // SAFETY: a word of the object, aligned, in memory that stays accessible as long as the
            // heap. Mutators store whole words.
            let word = unsafe { AtomicUsize::from_ptr((object.address() + offset) as *mut usize) };
            // Relaxed: what the word refers to was published by `hand_out`, which `resolve`
            // acquires.
            visit(word.load(Relaxed));
        });
    }

    fn begin_cycle(&self) {
        self.finish_sweep();
        runs::begin_marking(self);
        // Relaxed: counters, as all loads and stores of `allocated*`.
        self.allocated_at_begin.store(self.allocated.load(Relaxed), Relaxed);
    }

    fn end_cycle(&self, marked: Marked) {
        runs::end_marking(self);
        let allocated = self.allocated.load(Relaxed);
        let black = allocated.saturating_sub(self.allocated_at_begin.load(Relaxed));
        self.allocated_at_end.store(allocated, Relaxed);
        self.objects_marked.fetch_add(marked.objects, Relaxed);
        let kept = self.kept.swap(self.keeps_marks(), Relaxed);
        self.condemn((marked.bytes + black) as usize, kept);
    }

    fn keep_marks(&self) -> bool {
        self.sticky.store(true, Relaxed);
        true
    }

    fn clear_marks(&self) {
        self.kept.store(false, Relaxed);
        for index in 0..self.pages.frontier() {
            let block = self.arena.block(index);
            if matches!(block.kind(), SMALL | LARGE) {
                block.clear_marks();
            }
        }
    }

    fn finish_sweep(&self) {
        self.sweep_everything();
    }

    fn release(&self, keep: usize) {
        self.pages.release(&self.arena, keep);
    }

    fn set_trigger(&self, bytes: usize) {
        // Relaxed: a hint. Who is told synchronises for itself.
        self.trigger.store(bytes, Relaxed);
    }

    fn on_growth(&self, growth: Box<dyn Growth>) {
        // A second one is dropped, as documented.
        let _ = self.growth.set(growth);
    }

    fn allocated_since_cycle(&self) -> usize {
        let since = self.allocated.load(Relaxed).wrapping_sub(self.allocated_at_end.load(Relaxed));
        // Runs taken back may be counted before what was handed out of them.
        (since as i64).max(0) as usize
    }

    fn counts(&self) -> HeapCounts {
        HeapCounts {
            allocated_bytes: self.allocated.load(Relaxed),
            objects_marked: self.objects_marked.load(Relaxed),
            objects_swept: self.sweep.objects_swept(),
            live_bytes: self.sweep.live_bytes() as u64,
            resident_bytes: self.pages.bytes().1 as u64,
        }
    }
}
