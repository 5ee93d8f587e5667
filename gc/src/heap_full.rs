//! What a thread does when the heap is full: it waits for a collection and allocates again.

use stackmark_stack::Caller;

use crate::collector::Collector;
use crate::heap::{Fresh, Heap, NotAdmitted};
use crate::mark_sweep::{AllocationError, Allocator, DescriptorId, MarkSweep};

/// How many collections in a row may make no room for any thread. The first may have left what died
/// while it ran.
const VAIN_COLLECTIONS: usize = 2;

/// How many collections a thread waits for while others take what they free.
const COLLECTIONS: usize = 64;

impl Collector<MarkSweep> {
    /// As [`Allocator::allocate`], in native code of a goroutine. If the heap is full, waits for a
    /// collection in a [foreign call](Caller::foreign), and allocates again. The native function
    /// keeps no reference in a plain word meanwhile: a collection sees managed frames and handles.
    ///
    /// # Errors
    /// As for [`Allocator::allocate`]. [`AllocationError::OutOfMemory`] means that collections have
    /// made no room.
    #[inline]
    pub fn allocate<'m>(
        &self,
        caller: Caller<'m>,
        allocator: &Allocator,
        descriptor: DescriptorId,
        bytes: usize,
    ) -> Result<Fresh<'m>, AllocationError> {
        let allocate = || {
            let inside = caller.inside().ok_or(NotAdmitted::Outside)?;
            allocator.allocate(&inside, descriptor, bytes)
        };
        match allocate() {
            Err(full @ AllocationError::OutOfMemory { .. }) => {
                self.allocate_again(full, allocate, || caller.foreign(|| self.collect()))
            }
            other => other,
        }
    }

    /// Calls `allocate`, which allocates on this thread, for example within
    /// [`Machine::inside`](stackmark_stack::Machine::inside). If it finds the heap full, waits for
    /// a collection, and calls it again.
    ///
    /// # Errors
    /// That of the last call.
    ///
    /// # Panics
    /// As [`Collector::collect`], if the heap is full.
    pub fn retry_when_full<T>(
        &self,
        mut allocate: impl FnMut() -> Result<T, AllocationError>,
    ) -> Result<T, AllocationError> {
        match allocate() {
            Err(full @ AllocationError::OutOfMemory { .. }) => {
                self.allocate_again(full, allocate, || self.collect())
            }
            other => other,
        }
    }

    #[cold]
    fn allocate_again<T>(
        &self,
        mut full: AllocationError,
        mut allocate: impl FnMut() -> Result<T, AllocationError>,
        collect: impl Fn(),
    ) -> Result<T, AllocationError> {
        let allocated = || self.heap().counts().allocated_bytes;
        let (mut before, mut vain) = (allocated(), 0);
        for _ in 0..COLLECTIONS {
            let AllocationError::OutOfMemory { requested, limit, .. } = full else { break };
            // No collection makes room for more than the limit.
            if vain == VAIN_COLLECTIONS || requested > limit {
                break;
            }
            collect();
            match allocate() {
                Err(error @ AllocationError::OutOfMemory { .. }) => full = error,
                other => return other,
            }
            vain = if allocated() == before { vain + 1 } else { 0 };
            before = allocated();
        }
        Err(full)
    }
}
