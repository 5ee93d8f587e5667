//! Allocation by one thread: a pointer that moves through runs of free cells, one run for each
//! descriptor and class.
//!
//! The fast path is a load, an add, a compare and a store, with no lock and no atomic
//! read-modify-write; managed code can do it inline through [`AllocationSlot`]. Everything else
//! happens under the allocator's lock, which only a cycle's beginning and end contend for; see
//! `runs`.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use super::arena::Reservation;
use super::class::{CLASSES, MAX_SMALL, SIZES, class_of};
use super::descriptor::DescriptorId;
use super::registry::{MAX_DESCRIPTORS, descriptor_of, space_of};
use super::runs::{AllocationSlot, Local, Slots};
use super::{AllocationError, MarkSweep};

/// The slots of an allocator, in address space of their own that is touched only where a descriptor
/// is used.
pub(super) struct MappedSlots(Reservation);

impl MappedSlots {
    pub(super) fn new() -> std::io::Result<MappedSlots> {
        let slots = Reservation::new(MAX_DESCRIPTORS * CLASSES * AllocationSlot::STRIDE)?;
        slots.make_accessible(MAX_DESCRIPTORS * CLASSES * AllocationSlot::STRIDE)?;
        Ok(MappedSlots(slots))
    }
}

impl Slots for MappedSlots {
    #[inline]
    fn slot(&self, space: usize) -> &AllocationSlot {
        debug_assert!(space < MAX_DESCRIPTORS * CLASSES);
        // SAFETY: the reservation has that many slots, all zeros is a valid one, and slots consist
        // of atomics. (Not so under models, which have slots of their own.)
        unsafe { &*((self.0.start + space * AllocationSlot::STRIDE) as *const AllocationSlot) }
    }
}

/// Allocates for one thread. A machine owns one; only code that the collector can stop may use it,
/// that is a thread that runs a goroutine and is not in a foreign call.
pub struct Allocator {
    heap: Arc<MarkSweep>,
    local: Arc<Local<MappedSlots>>,
    /// One thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl std::fmt::Debug for Allocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allocator")
            .field("slots", &self.local.slots.0.start)
            .finish_non_exhaustive()
    }
}

impl Allocator {
    pub(super) fn new(heap: Arc<MarkSweep>, local: Arc<Local<MappedSlots>>) -> Allocator {
        Allocator { heap, local, not_sync: PhantomData }
    }

    /// A new object of `bytes` bytes, all zero, aligned to 8 (to 16 when its size is a multiple of
    /// 16).
    ///
    /// No collection happens here. When the heap has grown to its trigger, the collector is told,
    /// and the next poll of managed code lets it begin.
    ///
    /// # Errors
    /// When the heap's limit, the address space or the system's memory is used up.
    #[inline]
    pub fn allocate(
        &self,
        descriptor: DescriptorId,
        bytes: usize,
    ) -> Result<NonNull<u8>, AllocationError> {
        if bytes > MAX_SMALL || descriptor.0 as usize >= MAX_DESCRIPTORS {
            return self.heap.allocate_large(&self.local, descriptor, bytes);
        }
        let class = class_of(bytes);
        let space = space_of(descriptor, class);
        match self.bump(space, SIZES[class] as usize) {
            Some(object) => Ok(object),
            None => self.refill(space),
        }
    }

    /// Where the slots of this allocator begin: a constant for the thread. See
    /// [`slot_offset`](Allocator::slot_offset).
    pub fn slots_address(&self) -> usize {
        self.local.slots.0.start
    }

    /// The offset of the [`AllocationSlot`] for objects of `bytes` bytes and the size of their
    /// cells, or `None` when they are too large for one.
    pub fn slot_offset(descriptor: DescriptorId, bytes: usize) -> Option<(usize, usize)> {
        let class = (bytes <= MAX_SMALL).then(|| class_of(bytes))?;
        Some((space_of(descriptor, class) * AllocationSlot::STRIDE, SIZES[class] as usize))
    }

    #[inline]
    fn bump(&self, space: usize, size: usize) -> Option<NonNull<u8>> {
        self.local.slots.slot(space).bump(size)
    }

    #[cold]
    fn refill(&self, space: usize) -> Result<NonNull<u8>, AllocationError> {
        let descriptor = descriptor_of(space);
        if self.heap.registry.record(descriptor).is_none() {
            return Err(AllocationError::UnknownDescriptor { descriptor });
        }
        let untold = match self.local.next_run(&*self.heap, space) {
            Ok(untold) => untold,
            Err(first) => {
                // There may be memory that the last cycle freed and nobody has swept.
                self.heap.sweep_everything();
                self.local.next_run(&*self.heap, space).map_err(|_| first)?
            }
        };
        self.heap.tell_growth(untold);
        let size = SIZES[space % CLASSES] as usize;
        Ok(self.bump(space, size).expect("a run has at least one cell"))
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.local.give_up(&*self.heap);
    }
}
