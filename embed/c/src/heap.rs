//! The default heap, and allocation from it.

use std::ffi::c_int;
use std::sync::Arc;

use stackmark::heap::NotAdmitted;
use stackmark::mark_sweep::{
    AllocationError, Allocator, Descriptor, DescriptorError, DescriptorId, HeapError, MarkSweep,
    Options,
};

use crate::abi::{
    Failure, HEAP_FULL, INVALID, NO_MEMORY, OUTSIDE, Out, Versioned, make, read, slice,
};
use crate::machine::inside;
use crate::object::{Owned, Ref, kind};

/// `stackmark_heap`.
#[derive(Debug)]
pub(crate) struct HeapBox(pub(crate) Arc<MarkSweep>);

kind!(HeapBox = "stackmark_heap");

/// `stackmark_allocator`.
#[derive(Debug)]
pub(crate) struct AllocatorBox(pub(crate) Allocator);

kind!(AllocatorBox = "stackmark_allocator");

/// `stackmark_heap_options`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeapOptionsTable {
    pub(crate) size: usize,
    pub(crate) limit: usize,
    pub(crate) poison: u32,
    pub(crate) huge_pages: u32,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for HeapOptionsTable {}

impl From<HeapError> for Failure {
    fn from(error: HeapError) -> Failure {
        let code = if let HeapError::Limit { .. } = error { INVALID } else { NO_MEMORY };
        Failure::new(code, error)
    }
}

impl From<DescriptorError> for Failure {
    fn from(error: DescriptorError) -> Failure {
        Failure::invalid(error)
    }
}

impl From<NotAdmitted> for Failure {
    fn from(error: NotAdmitted) -> Failure {
        let code = if error == NotAdmitted::Outside { OUTSIDE } else { INVALID };
        Failure::new(code, error)
    }
}

impl From<AllocationError> for Failure {
    fn from(error: AllocationError) -> Failure {
        match error {
            AllocationError::NotAdmitted(error) => error.into(),
            AllocationError::OutOfMemory { .. } => Failure::new(HEAP_FULL, error),
            AllocationError::UnknownDescriptor { .. } => Failure::invalid(error),
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_heap_new(
    options: *const HeapOptionsTable,
    out: Out<'_, Owned<HeapBox>>,
) -> c_int {
    crate::abi::end_with_panics();
    make(out, "out", || {
        // SAFETY: the header asks for such a struct.
        let table = unsafe { read(options, "options")? };
        let mut options = Options {
            poison: table.poison != 0,
            huge_pages: table.huge_pages != 0,
            ..Options::default()
        };
        if table.limit != 0 {
            options.limit = table.limit;
        }
        Ok(Owned::new(HeapBox(MarkSweep::new(&options)?)))
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_heap_release(heap: Owned<HeapBox>) {
    drop(heap.take("stackmark_heap_release: heap"));
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_descriptor(
    heap: Ref<HeapBox>,
    words: usize,
    references: *const u32,
    count: usize,
    out: Out<'_, u32>,
) -> c_int {
    make(out, "out", || {
        let heap = heap.given("heap")?;
        // SAFETY: the header asks for such an array.
        let references = unsafe { slice(references, count, "references")? };
        let descriptor =
            Descriptor::pattern(words, references.iter().map(|index| *index as usize))?;
        Ok(heap.0.register(descriptor)?.index())
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_allocator_new(
    heap: Ref<HeapBox>,
    out: Out<'_, Owned<AllocatorBox>>,
) -> c_int {
    make(out, "out", || Ok(Owned::new(AllocatorBox(heap.given("heap")?.0.allocator()?))))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_allocator_free(allocator: Owned<AllocatorBox>) {
    drop(allocator.take("stackmark_allocator_free: allocator"));
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_allocator_slots(allocator: Ref<AllocatorBox>) -> usize {
    let allocator = allocator.get("stackmark_allocator_slots: allocator");
    allocator.map_or(0, |allocator| allocator.0.slots_address())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_slot_offset(
    descriptor: u32,
    bytes: usize,
    cell: Out<'_, usize>,
    offset: Out<'_, usize>,
) -> c_int {
    make(offset, "offset", || {
        let cell = cell.given("cell")?;
        let slot = Allocator::slot_offset(DescriptorId::from_index(descriptor), bytes);
        let (offset, size) = slot.ok_or_else(|| {
            Failure::invalid(format_args!("objects of {bytes} bytes are too large for a slot"))
        })?;
        cell.write(size);
        Ok(offset)
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_allocate_now(
    allocator: Ref<AllocatorBox>,
    descriptor: u32,
    bytes: usize,
    out: Out<'_, usize>,
) -> c_int {
    make(out, "out", || {
        let allocator = allocator.given("allocator")?;
        let descriptor = DescriptorId::from_index(descriptor);
        Ok(allocator.0.allocate(&inside()?, descriptor, bytes)?.address())
    })
}
