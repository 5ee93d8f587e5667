//! Allocation by one thread: a pointer that moves through runs of free cells, one run for each
//! descriptor and class.
//!
//! The fast path is a load, an add, a compare and a store, with no lock and no atomic
//! read-modify-write. Managed code can do it inline through [`AllocationSlot`]. All else happens
//! under the allocator's lock, for which only a cycle's beginning and end contend; see `runs`.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use stackmark_stack::Inside;

use super::block::{LARGE, TAIL, publish};
use super::blocks::Blocks;
use super::class::{BLOCK, CLASSES, MAX_SMALL, SIZES, class_of};
use super::descriptor::DescriptorId;
use super::error::{AllocationError, HeapError};
use super::heap::MarkSweep;
use super::mapped_slots::MappedSlots;
use super::registry::{MAX_DESCRIPTORS, descriptor_of, space_of};
use super::slot::{AllocationSlot, LocalRuns, Slots};
use crate::heap::Fresh;

/// Allocates for one thread at a time. Each machine owns one.
pub struct Allocator {
    heap: Arc<MarkSweep>,
    local: Arc<LocalRuns<MappedSlots>>,
    /// One thread at a time.
    not_sync: PhantomData<Cell<()>>,
    use_of: Use,
}

/// Tells, in a debug build, when two threads use one allocator at the same time. Safe Rust cannot:
/// the type is not `Sync`. Other languages and unsafe code can, and would get one object twice.
#[derive(Default)]
struct Use {
    /// Relaxed: that the exchange is atomic suffices. No other data hangs on it.
    taken: AtomicBool,
}

impl Use {
    /// This thread uses the allocator, until the value is dropped.
    ///
    /// # Panics
    /// In a debug build, if another thread does.
    #[inline(always)]
    fn begin(&self) -> Using<'_> {
        let is_taken = cfg!(debug_assertions) && self.taken.swap(true, Relaxed);
        assert!(!is_taken, "two threads use one allocator at the same time");
        Using(self)
    }
}

/// See [`Use::begin`].
struct Using<'u>(&'u Use);

impl Drop for Using<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            self.0.taken.store(false, Relaxed);
        }
    }
}

impl std::fmt::Debug for Allocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allocator").field("slots", &self.slots_address()).finish_non_exhaustive()
    }
}

impl MarkSweep {
    /// An allocator for one thread.
    ///
    /// # Errors
    /// When the system refuses address space for its slots.
    pub fn allocator(self: &Arc<Self>) -> Result<Allocator, HeapError> {
        let slots = MappedSlots::new()
            .map_err(|source| HeapError::Reserve { what: "allocator", source })?;
        let local = LocalRuns::register(slots, &**self);
        let (heap, use_of) = (Arc::clone(self), Use::default());
        Ok(Allocator { heap, local, not_sync: PhantomData, use_of })
    }
}

impl Allocator {
    /// A new object of `bytes` bytes, all zero. It is aligned to 8 bytes, and to 16 when its size
    /// is a multiple of 16. `inside` shows that the collector waits for the thread before it frees
    /// what the thread has not kept yet.
    ///
    /// No collection happens here. When the heap has grown to its trigger, the collector hears of
    /// it, and the next poll of managed code lets a cycle begin. While a cycle marks, the call may
    /// mark for a while.
    ///
    /// # Errors
    /// When the heap's limit, the address space or the system's memory is used up; when the
    /// descriptor is not registered; when the thread has gone outside since `inside` was made, or
    /// belongs to another runtime than the heap.
    #[inline]
    pub fn allocate<'i>(
        &self,
        inside: &Inside<'i>,
        descriptor: DescriptorId,
        bytes: usize,
    ) -> Result<Fresh<'i>, AllocationError> {
        self.heap.owner.admit(inside)?;
        let object = self.hand_out(descriptor, bytes)?;
        // SAFETY: the heap has handed out the object just now, and the thread is still inside.
        Ok(unsafe { Fresh::new(object.addr(), inside) })
    }

    /// As [`Allocator::allocate`], for a thread that was admitted.
    #[inline]
    pub(crate) fn hand_out(
        &self,
        descriptor: DescriptorId,
        bytes: usize,
    ) -> Result<NonNull<u8>, AllocationError> {
        let _using = self.use_of.begin();
        if bytes > MAX_SMALL || descriptor.0 as usize >= MAX_DESCRIPTORS {
            return self.allocate_large(descriptor, bytes);
        }
        let class = class_of(bytes);
        let space = space_of(descriptor, class);
        match self.bump(space, SIZES[class] as usize) {
            Some(object) => Ok(object),
            None => self.refill(space),
        }
    }

    /// The address of this allocator's first slot: a constant for the thread. See
    /// [`slot_offset`](Allocator::slot_offset).
    pub fn slots_address(&self) -> usize {
        self.local.slots.address()
    }

    /// The offset of the [`AllocationSlot`] for objects of `bytes` bytes and the size of their
    /// cells, both in bytes, or `None` when they are too large for one, or no descriptor can have
    /// this number.
    pub fn slot_offset(descriptor: DescriptorId, bytes: usize) -> Option<(usize, usize)> {
        let has_slot = bytes <= MAX_SMALL && (descriptor.0 as usize) < MAX_DESCRIPTORS;
        let class = has_slot.then(|| class_of(bytes))?;
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
        let unreported = match self.local.next_run(&*self.heap, space) {
            Ok(unreported) => unreported,
            Err(first) => {
                // There may be memory that the last cycle freed and that is not swept yet.
                self.heap.sweep_everything();
                self.local.next_run(&*self.heap, space).map_err(|_| first)?
            }
        };
        self.report_growth(unreported);
        let size = SIZES[space % CLASSES] as usize;
        Ok(self.bump(space, size).expect("a run has at least one cell"))
    }

    #[cold]
    fn allocate_large(
        &self,
        id: DescriptorId,
        bytes: usize,
    ) -> Result<NonNull<u8>, AllocationError> {
        let heap = &*self.heap;
        let Some(record) = heap.registry.record(id) else {
            return Err(AllocationError::UnknownDescriptor { descriptor: id });
        };
        debug_assert!(bytes > MAX_SMALL);
        let first = self.take_blocks(bytes.div_ceil(BLOCK))?;
        let mut state = self.local.state.lock();
        let head = heap.arena.block(first);
        let marking = heap.protocol.is_marking();
        head.set_up_large(bytes, marking, &record.descriptor);
        head.set_kind(LARGE);
        publish();
        heap.sweep.large.lock().young.push(first);
        state.hand_out(bytes);
        heap.count_allocated(state.take_allocated());
        let unreported = state.take_unreported(bytes, marking);
        drop(state);
        self.report_growth(unreported);
        Ok(NonNull::new(heap.arena.address_of(first) as *mut u8)
            .expect("the heap does not begin at zero"))
    }

    /// Takes adjacent blocks and zeroes them. All but the first become tails of it.
    fn take_blocks(&self, count: usize) -> Result<usize, AllocationError> {
        let heap = &*self.heap;
        heap.sweep_large();
        let first = match heap.pages.take(&heap.arena, count) {
            Err(_) => {
                heap.sweep_everything();
                heap.pages.take(&heap.arena, count)?
            }
            Ok(first) => first,
        };
        // No other thread knows the blocks yet. Zeroing takes long, so it is not done under a lock.
        for index in first..first + count {
            let block = heap.arena.block(index);
            if block.dirty().swap(true, Relaxed) {
                heap.arena.zero(heap.arena.address_of(index), BLOCK);
            }
            if index > first {
                block.head().store(first as u32, Relaxed);
                block.set_kind(TAIL);
            }
        }
        Ok(first)
    }

    /// Reports to the heap's owner that `unreported` bytes were handed out to this thread while
    /// marking is on, if any, and that the heap has grown to its trigger, if so. Called without a
    /// lock.
    fn report_growth(&self, unreported: usize) {
        let heap = &*self.heap;
        if unreported > 0 {
            heap.owner.report(unreported);
        }
        // Relaxed: the trigger is a hint. The thread that disarms it reports it.
        if heap.allocated.since_cycle() >= heap.trigger.load(Relaxed)
            && heap.trigger.swap(usize::MAX, Relaxed) != usize::MAX
        {
            heap.owner.reached_trigger();
        }
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.local.give_up(&*self.heap);
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use crate::mark_sweep::{Descriptor, MarkSweep, Options};

    #[test]
    #[cfg_attr(not(debug_assertions), ignore = "debug builds look for it")]
    #[should_panic(expected = "two threads use one allocator at the same time")]
    fn two_threads_that_use_one_allocator_at_the_same_time_are_told() {
        let heap = MarkSweep::new(&Options::default()).expect("a heap");
        let descriptor = heap.register(Descriptor::references()).expect("a descriptor");
        let allocator = heap.allocator().expect("an allocator");
        allocator.hand_out(descriptor, 16).expect("memory");
        let _another_thread = allocator.use_of.begin();
        let _ = allocator.hand_out(descriptor, 16);
    }
}
