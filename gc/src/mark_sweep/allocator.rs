//! Allocation by one thread: a pointer that moves through runs of free cells, one run for each descriptor and class.
//!
//! The fast path is a load, an add, a compare and a store, with no lock and no atomic read-modify-write; managed code can
//! do it inline through [`AllocationSlot`]. Everything else happens under the allocator's lock, which only a cycle's
//! beginning and end contend for.
//!
//! A run of cells is zeroed, counted, and marked if marking is on, all at once when the allocator gets to it. When marking
//! begins, the collector blackens what is left of each allocator's runs, from where the cursor stands: the cells before
//! it may hold references that were stored while the write barrier was off; those after it will be initialised by a
//! thread that has it on, since the collector had each thread answer between the two.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicUsize};

use parking_lot::Mutex;

use super::arena::{Arena, Reservation};
use super::class::{BLOCK, CLASSES, MAX_SMALL, SIZES, class_of};
use super::descriptor::DescriptorId;
use super::registry::{MAX_DESCRIPTORS, Registry};
use super::{AllocationError, MarkSweep};

/// Where one thread allocates cells of one descriptor and class: the free run `cursor..end`.
///
/// Managed code may allocate from it inline: load `cursor`, add the cell size, and if the sum is at most `end`, store it;
/// the old value is the object, zeroed. Otherwise it calls [`Allocator::allocate`]. Between the load and the store there
/// must be no safepoint.
#[repr(C)]
#[derive(Debug)]
pub struct AllocationSlot {
    cursor: AtomicUsize,
    end: AtomicUsize,
    /// One more than the number of the block that the run lies in; 0 if there is none. Read and written under the lock.
    block: AtomicU32,
}

impl AllocationSlot {
    /// Bytes from one slot to the next.
    pub const STRIDE: usize = 32;
    /// Offset of the word that holds the address of the next cell.
    pub const CURSOR: usize = 0;
    /// Offset of the word that holds the address after the last cell.
    pub const END: usize = 8;
}

const _: () = {
    assert!(std::mem::offset_of!(AllocationSlot, cursor) == AllocationSlot::CURSOR);
    assert!(std::mem::offset_of!(AllocationSlot, end) == AllocationSlot::END);
    assert!(size_of::<AllocationSlot>() <= AllocationSlot::STRIDE);
};

/// The part of an allocator that the collector reaches.
pub(super) struct Local {
    slots: Reservation,
    pub(super) state: Mutex<State>,
}

/// What the lock guards, together with the slots' `block`s.
#[derive(Default)]
pub(super) struct State {
    /// Slots that have a block.
    active: Vec<u32>,
    /// Bytes handed out that the heap does not know of yet.
    allocated: usize,
    /// Bytes handed out since the last call of `Growth::handed_out`, while marking is on.
    untold: usize,
}

impl Local {
    pub(super) fn new() -> std::io::Result<Local> {
        // Touched only where a descriptor is used.
        let slots = Reservation::new(MAX_DESCRIPTORS * CLASSES * AllocationSlot::STRIDE)?;
        slots.make_accessible(MAX_DESCRIPTORS * CLASSES * AllocationSlot::STRIDE)?;
        Ok(Local { slots, state: Mutex::default() })
    }

    #[inline]
    fn slot(&self, index: usize) -> &AllocationSlot {
        debug_assert!(index < MAX_DESCRIPTORS * CLASSES);
        // SAFETY: the reservation has that many slots, all zeros is a valid one, and slots consist of atomics.
        unsafe { &*((self.slots.start + index * AllocationSlot::STRIDE) as *const AllocationSlot) }
    }

    /// What is left of the slot's run, as cells of its block.
    fn rest(&self, arena: &Arena, slot: &AllocationSlot) -> Option<(usize, usize, usize)> {
        let block = slot.block.load(Relaxed).checked_sub(1)? as usize;
        let start = arena.address_of(block);
        let size = arena.block(block).cell_size();
        // Relaxed: a stale cursor lies before the true one; the cells between were handed out after this thread's last
        // safepoint, which the collector has waited for.
        let cell = |address: usize| (address - start) / size;
        Some((block, cell(slot.cursor.load(Relaxed)), cell(slot.end.load(Relaxed))))
    }

    /// Blackens the rest of every run: marking begins.
    pub(super) fn blacken(&self, arena: &Arena, state: &State) {
        for index in &state.active {
            if let Some((block, from, to)) = self.rest(arena, self.slot(*index as usize)) {
                arena.block(block).blacken(from, to);
            }
        }
    }

    /// Takes the rest of every run back and condemns the blocks; the world is stopped.
    pub(super) fn retire(&self, arena: &Arena, registry: &Registry, state: &mut State) {
        for index in std::mem::take(&mut state.active) {
            let slot = self.slot(index as usize);
            let Some((block, from, to)) = self.rest(arena, slot) else { continue };
            arena.block(block).take_back(from, to);
            state.allocated = state.allocated.wrapping_sub((to - from) * arena.block(block).cell_size());
            registry.space(DescriptorId(index / CLASSES as u32), index as usize % CLASSES).lock().unswept.push(block);
            // The owner is stopped, and sees this when it is started again.
            slot.cursor.store(0, Relaxed);
            slot.end.store(0, Relaxed);
            slot.block.store(0, Relaxed);
        }
    }
}

impl State {
    /// What was handed out since the last call. Wraps when more was taken back than handed out meanwhile.
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

/// Allocates for one thread. A machine owns one; only code that the collector can stop may use it, that is a thread that
/// runs a goroutine and is not in a foreign call.
pub struct Allocator {
    heap: Arc<MarkSweep>,
    local: Arc<Local>,
    /// One thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl std::fmt::Debug for Allocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allocator").field("slots", &self.local.slots.start).finish_non_exhaustive()
    }
}

impl Allocator {
    pub(super) fn new(heap: Arc<MarkSweep>, local: Arc<Local>) -> Allocator {
        Allocator { heap, local, not_sync: PhantomData }
    }

    /// A new object of `bytes` bytes, all zero, aligned to 8 (to 16 when its size is a multiple of 16).
    ///
    /// No collection happens here. When the heap has grown to its trigger, the collector is told, and the next poll
    /// of managed code lets it begin.
    ///
    /// # Errors
    /// When the heap's limit, the address space or the system's memory is used up.
    #[inline]
    pub fn allocate(&self, descriptor: DescriptorId, bytes: usize) -> Result<NonNull<u8>, AllocationError> {
        if bytes > MAX_SMALL || descriptor.0 as usize >= MAX_DESCRIPTORS {
            return self.heap.allocate_large(&self.local, descriptor, bytes);
        }
        let class = class_of(bytes);
        let index = descriptor.0 as usize * CLASSES + class;
        match self.bump(index, SIZES[class] as usize) {
            Some(object) => Ok(object),
            None => self.refill(descriptor, class, index),
        }
    }

    /// Where the slots of this allocator begin: a constant for the thread. See [`slot_offset`](Allocator::slot_offset).
    pub fn slots_address(&self) -> usize {
        self.local.slots.start
    }

    /// The offset of the [`AllocationSlot`] for objects of `bytes` bytes and the size of their cells, or `None` when
    /// they are too large for one.
    pub fn slot_offset(descriptor: DescriptorId, bytes: usize) -> Option<(usize, usize)> {
        let class = (bytes <= MAX_SMALL).then(|| class_of(bytes))?;
        Some(((descriptor.0 as usize * CLASSES + class) * AllocationSlot::STRIDE, SIZES[class] as usize))
    }

    #[inline]
    fn bump(&self, index: usize, size: usize) -> Option<NonNull<u8>> {
        let slot = self.local.slot(index);
        // Relaxed: the thread's own words. The collector reads them when this thread has passed a safepoint, or writes
        // them while it is stopped; both order these accesses.
        let object = slot.cursor.load(Relaxed);
        let next = object + size;
        if next > slot.end.load(Relaxed) {
            return None;
        }
        slot.cursor.store(next, Relaxed);
        NonNull::new(object as *mut u8)
    }

    #[cold]
    fn refill(&self, descriptor: DescriptorId, class: usize, index: usize) -> Result<NonNull<u8>, AllocationError> {
        if self.heap.registry.record(descriptor).is_none() {
            return Err(AllocationError::UnknownDescriptor { descriptor });
        }
        let untold = match self.next_run(descriptor, class, index) {
            Ok(untold) => untold,
            Err(first) => {
                // There may be memory that the last cycle freed and nobody has swept.
                self.heap.sweep_everything();
                self.next_run(descriptor, class, index).map_err(|_| first)?
            }
        };
        self.heap.tell_growth(untold);
        Ok(self.bump(index, SIZES[class] as usize).expect("a run has at least one cell"))
    }

    /// Puts the slot on its next run of free cells; tells how many bytes [`Growth::handed_out`] is to be told of.
    ///
    /// [`Growth::handed_out`]: crate::heap::Growth::handed_out
    fn next_run(&self, descriptor: DescriptorId, class: usize, index: usize) -> Result<usize, AllocationError> {
        let heap = &*self.heap;
        let arena = &heap.arena;
        let slot = self.local.slot(index);
        let mut state = self.local.state.lock();
        loop {
            if let Some(block_number) = slot.block.load(Relaxed).checked_sub(1) {
                let number = block_number as usize;
                let block = arena.block(number);
                let (start, size) = (arena.address_of(number), block.cell_size());
                let from = slot.end.load(Relaxed).saturating_sub(start) / size;
                if let Some((first, end)) = block.next_free_run(from) {
                    // A block fresh from the system is zero; its first run is all of it.
                    if block.dirty.swap(true, Relaxed) {
                        arena.zero(start + first * size, (end - first) * size);
                    }
                    // Read under the lock that `begin_cycle` takes after it has set the flag: either this sees it, or
                    // `begin_cycle` sees the run.
                    if heap.is_marking() {
                        block.blacken(first, end);
                    }
                    block.hand_out(first, end);
                    slot.cursor.store(start + first * size, Relaxed);
                    slot.end.store(start + end * size, Relaxed);
                    let bytes = (end - first) * size;
                    state.allocated = state.allocated.wrapping_add(bytes);
                    return Ok(state.take_untold(bytes, heap.is_marking()));
                }
                heap.registry.space(descriptor, class).lock().full.push(number);
                slot.block.store(0, Relaxed);
                slot.cursor.store(0, Relaxed);
                slot.end.store(0, Relaxed);
                state.active.retain(|active| *active as usize != index);
            }
            heap.count_allocated(state.take_allocated());
            let number = heap.acquire_block(descriptor, class)?;
            slot.block.store(number as u32 + 1, Relaxed);
            slot.cursor.store(0, Relaxed);
            slot.end.store(0, Relaxed);
            state.active.push(index as u32);
        }
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        let mut state = self.local.state.lock();
        // The blocks go back to their spaces. What is left of the runs stays handed out (zero, black if marking is on) until
        // the next sweep, so that a marker that looks there now sees nothing strange.
        for index in std::mem::take(&mut state.active) {
            let slot = self.local.slot(index as usize);
            let (descriptor, class) = (DescriptorId(index / CLASSES as u32), index as usize % CLASSES);
            if let Some(block) = slot.block.load(Relaxed).checked_sub(1) {
                self.heap.registry.space(descriptor, class).lock().available.push(block as usize);
                slot.block.store(0, Relaxed);
            }
        }
        self.heap.count_allocated(state.take_allocated());
        drop(state);
        self.heap.forget_allocator(&self.local);
    }
}
