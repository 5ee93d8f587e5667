//! The heap's parts, and its blocks as the protocol of allocation and sweeping sees them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use stackmark_stack::sync::Mutex as ModelledMutex;

use super::arena::Arena;
use super::block::{FREE, SMALL};
use super::blocks::{Blocks, Occupancy, Protocol, Space};
use super::class::{BLOCK, CLASSES};
use super::counters::{Allocated, SweepState};
use super::descriptor::{Descriptor, DescriptorError, DescriptorId};
use super::error::{AllocationError, HeapError};
use super::mapped_slots::MappedSlots;
use super::pages::Pages;
use super::registry::Registry;
use crate::heap::{HeapCounts, HeapOwner, Object};

/// The least address space that a heap is content with, in bytes, if its limit is not smaller.
const MIN_RESERVATION: usize = 64 << 20;

/// Whether there is much more address space than memory.
const WIDE: bool = usize::BITS > 32;

/// How a [`MarkSweep`] heap is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most memory for objects, in bytes, rounded up to whole blocks of 16 KiB. An allocation
    /// beyond it fails. At least [`Options::LEAST_LIMIT`], at most [`Options::LARGEST_LIMIT`].
    pub limit: usize,
    /// Fill freed cells with a pattern, so that use of a dead object shows.
    pub poison: bool,
    /// Ask the system for pages of 2 MiB, where it has them. A large heap is marked faster, since
    /// nearly each object that a worker comes to lies on another page. A thread that touches new
    /// memory waits longer, for all of a page to be zeroed, and the system may fill memory again
    /// that was given back.
    pub huge_pages: bool,
}

impl Options {
    /// The least [`Options::limit`].
    pub const LEAST_LIMIT: usize = 1;
    /// The largest [`Options::limit`]. A heap for which there is less address space is smaller.
    pub const LARGEST_LIMIT: usize = 1 << if WIDE { 45 } else { 31 };
}

impl Default for Options {
    /// As much as there is address space for, up to 128 GiB, or 1 GiB where addresses have 32 bits.
    fn default() -> Options {
        Options { limit: 1 << if WIDE { 37 } else { 30 }, poison: false, huge_pages: false }
    }
}

/// The default heap. All threads may share it; each allocates through an
/// [`Allocator`](super::Allocator) of its own.
pub struct MarkSweep {
    pub(super) arena: Arena,
    pub(super) pages: Pages,
    pub(super) registry: Registry,
    pub(super) sweep: SweepState,
    pub(super) protocol: Protocol<MappedSlots>,
    /// Sweeping leaves marks. Relaxed: set before the first cycle.
    pub(super) keeps_marks: AtomicBool,
    /// The present cycle began with the marks of the last one. Relaxed: only the collector's thread
    /// uses it.
    pub(super) minor: AtomicBool,
    poison: bool,
    pub(super) allocated: Allocated,
    pub(super) objects_marked: AtomicU64,
    /// Relaxed: a hint.
    pub(super) trigger: AtomicUsize,
    pub(super) owner: HeapOwner,
}

impl std::fmt::Debug for MarkSweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MarkSweep").field("counts", &self.current_counts()).finish_non_exhaustive()
    }
}

impl MarkSweep {
    /// An empty heap.
    ///
    /// # Errors
    /// When the limit is out of range, and when not even a small range of address space can be
    /// reserved.
    pub fn new(options: &Options) -> Result<Arc<MarkSweep>, HeapError> {
        let (value, least, most) = (options.limit, Options::LEAST_LIMIT, Options::LARGEST_LIMIT);
        if !(least..=most).contains(&value) {
            return Err(HeapError::Limit { value, least, most });
        }
        let limit = value.next_multiple_of(BLOCK);
        let arena = Arena::reserve(limit, MIN_RESERVATION, options.huge_pages)
            .map_err(|source| HeapError::Reserve { what: "heap", source })?;
        Ok(Arc::new(MarkSweep {
            pages: Pages::new((limit / BLOCK).min(arena.capacity())),
            arena,
            registry: Registry::new(),
            sweep: SweepState::default(),
            protocol: Protocol::default(),
            keeps_marks: AtomicBool::new(false),
            minor: AtomicBool::new(false),
            poison: options.poison,
            allocated: Allocated::default(),
            objects_marked: AtomicU64::new(0),
            trigger: AtomicUsize::new(usize::MAX),
            owner: HeapOwner::new(),
        }))
    }

    /// Registers a kind of object. Equal layouts get the same id.
    ///
    /// # Errors
    /// When the heap has too many different ones.
    pub fn register(&self, descriptor: Descriptor) -> Result<DescriptorId, DescriptorError> {
        self.registry.register(descriptor)
    }

    pub(super) fn current_counts(&self) -> HeapCounts {
        HeapCounts {
            allocated_bytes: self.allocated.total(),
            objects_marked: self.objects_marked.load(Relaxed),
            objects_swept: self.sweep.objects_swept(),
            live_bytes: self.sweep.live_bytes() as u64,
            resident_bytes: self.pages.bytes().1 as u64,
        }
    }

    /// Whether sweeping leaves the marks.
    pub(super) fn keeps_marks(&self) -> bool {
        self.keeps_marks.load(Relaxed)
    }

    /// Fills freed memory, if the options ask for it.
    pub(super) fn poison_freed(&self, address: usize, len: usize) {
        if self.poison {
            self.arena.poison(address, len);
        }
    }
}

/// Names the object at `address`, where a cell that is handed out, or a large object, begins.
#[inline]
pub(super) fn object_at(address: usize) -> Object {
    let address = NonZeroUsize::new(address).expect("the heap does not begin at zero");
    // SAFETY: the callers have found a handed-out cell or a large object to begin there.
    unsafe { Object::from_address(address) }
}

impl Blocks for MarkSweep {
    type Error = AllocationError;
    type Slots = MappedSlots;

    fn protocol(&self) -> &Protocol<MappedSlots> {
        &self.protocol
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
        block.set_up_small(space % CLASSES, &self.registry.of(space).descriptor);
        block.set_kind(SMALL);
        self.registry.note_used(space);
        Ok(index)
    }

    fn free(&self, blocks: &mut Vec<usize>) {
        blocks.iter().for_each(|index| self.arena.block(*index).set_kind(FREE));
        self.pages.give_back(&self.arena, &mut blocks.drain(..).map(|index| (index, 1)).collect());
    }

    fn sweep(&self, index: usize) -> Occupancy {
        let block = self.arena.block(index);
        let (start, size) = self.cells_of(index);
        let swept =
            block.sweep(self.keeps_marks(), |cell| self.poison_freed(start + cell * size, size));
        self.sweep.count(swept, size);
        match swept.live as usize {
            0 => Occupancy::Empty,
            live if live < block.cells() => Occupancy::Partial,
            _ => Occupancy::Full,
        }
    }

    fn cells_of(&self, index: usize) -> (usize, usize) {
        (self.arena.address_of(index), self.arena.block(index).cell_size())
    }

    fn next_free_run(&self, index: usize, from: usize) -> Option<(usize, usize)> {
        self.arena.block(index).next_free_run(from)
    }

    fn clear(&self, index: usize, from: usize, to: usize) {
        // A block fresh from the system is zero, and its first run is all of it. Relaxed: only the
        // owner uses the flag.
        if self.arena.block(index).dirty().swap(true, Relaxed) {
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

    fn count_allocated(&self, bytes: i64) {
        self.allocated.add(bytes);
    }
}
