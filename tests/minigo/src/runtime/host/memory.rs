//! Memory for objects, and the write barrier.

use super::world::{fatal, world};
use stackmark::handle::Handle;
use stackmark::mark_sweep::{AllocationError, Descriptor, DescriptorError, DescriptorId};
use stackmark::stack::Caller;
use stackmark::write_barrier::BarrierBuffer;
use stackmark_cranelift::Barrier;
use stackmark_cranelift::machine::{self, MachineData};

/// The heap's number for objects that repeat a pattern of words.
pub(crate) fn descriptor(words: usize, refs: &[bool]) -> usize {
    let references = refs.iter().enumerate().filter(|(_, r)| **r).map(|(i, _)| i);
    let pattern = match Descriptor::pattern(words.max(1), references) {
        // Each word may be a reference then.
        Err(DescriptorError::TooLong { .. }) => Ok(Descriptor::references()),
        pattern => pattern,
    };
    match pattern.and_then(|d| world().heap.register(d)) {
        Ok(id) => id.index() as usize,
        Err(e) => fatal(&e),
    }
}

/// Makes what the calling thread has of its own. Returns the address of its allocator's cells.
pub(super) fn machine_attached() -> usize {
    let w = world();
    let allocator = w.heap.allocator().unwrap_or_else(|error| fatal(&error));
    let stores = w.collector.write_barrier().buffer();
    machine::set(MachineData { allocator, stores, word: 0 })
}

pub(super) fn machine_detached() {
    // SAFETY: the machine is detached: it runs no managed code any more.
    drop(unsafe { machine::take() });
}

/// Zeroed memory, or the reason why there is none.
pub(crate) fn try_allocate(descriptor: usize, bytes: usize) -> Result<usize, AllocationError> {
    // SAFETY: natives run on behalf of a goroutine; used here alone.
    let inside = unsafe { Caller::current() }.inside().expect("natives allocate when they run");
    let descriptor = DescriptorId::from_index(descriptor as u32);
    let allocated = machine::with(|own| own.allocator.allocate(&inside, descriptor, bytes));
    allocated.map(|object| object.address())
}

/// As [`try_allocate`], after a collection if the heap is full. The native holds no reference.
pub(crate) fn allocate_or_collect(
    descriptor: usize,
    bytes: usize,
) -> Result<usize, AllocationError> {
    // SAFETY: natives run on behalf of a goroutine; used here alone.
    let caller = unsafe { Caller::current() };
    let descriptor = DescriptorId::from_index(descriptor as u32);
    let collector = &world().collector;
    let allocated =
        machine::with(|own| collector.allocate(caller, &own.allocator, descriptor, bytes));
    allocated.map(|object| object.address())
}

/// A root that native code has: an object that it reads after managed code has run.
pub(crate) struct Held {
    _handle: Option<Handle>,
}

/// Keeps the object alive that `word` refers to, if it does. The caller's goroutine is Running, or
/// something else keeps the object alive.
pub(crate) fn hold(word: usize) -> Held {
    Held { _handle: (word != 0).then(|| world().collector.handles().create(word)) }
}

/// The write barrier, for compiled code.
pub(crate) fn barrier() -> Barrier {
    Barrier::of(world().collector.write_barrier())
}

/// Whether stores of references must be reported.
pub(crate) fn reports_stores() -> bool {
    world().collector.write_barrier().is_on()
}

/// Reports a reference that is overwritten or dropped, if it has to be.
pub(crate) fn shade_lost(word: usize) {
    with_buffer(|buffer| buffer.shade_overwritten(word));
}

/// Reports a reference that is stored.
pub(crate) fn shade(word: usize) {
    with_buffer(|buffer| buffer.shade(word));
}

/// Reports a reference that is stored at the address `to`.
pub(crate) fn store(word: usize, to: usize) {
    with_buffer(|buffer| buffer.store(word, to));
}

fn with_buffer(f: impl FnOnce(&BarrierBuffer)) {
    if !world().options.break_write_barrier {
        machine::with(|own| f(&own.stores));
    }
}
