//! Memory for objects, and the write barrier.

use super::world::{fatal, world};
use crate::options::BarrierKind;
use crate::runtime::thread;
use stackmark::handle::Handle;
use stackmark::mark_sweep::{
    AllocationError, Allocator, Descriptor, DescriptorError, DescriptorId,
};
use stackmark::stack::Caller;
use stackmark::write_barrier::BarrierBuffer;

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

pub(super) fn with_allocator<T>(f: impl FnOnce(&Allocator) -> T) -> T {
    thread::with(|local| {
        f(local.allocator.get_or_init(|| world().heap.allocator().unwrap_or_else(|e| fatal(&e))))
    })
}

/// Zeroed memory, or the reason why there is none.
pub(crate) fn try_allocate(descriptor: usize, bytes: usize) -> Result<usize, AllocationError> {
    // SAFETY: natives run on behalf of a goroutine; used here alone.
    let inside = unsafe { Caller::current() }.inside().expect("natives allocate when they run");
    let descriptor = DescriptorId::from_index(descriptor as u32);
    let allocated = with_allocator(|a| a.allocate(&inside, descriptor, bytes));
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
    let allocated = with_allocator(|a| collector.allocate(caller, a, descriptor, bytes));
    allocated.map(|object| object.address())
}

/// The offset of the allocator's fields for such objects, from the address in the machine word, and
/// the size of their cells. None: the objects are too large.
pub(crate) fn allocation_slot(descriptor: usize, bytes: usize) -> Option<(usize, usize)> {
    Allocator::slot_offset(DescriptorId::from_index(descriptor as u32), bytes)
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

/// The byte that is not zero while stores of references must be reported.
pub(crate) fn write_barrier_flag() -> *const u8 {
    world().collector.write_barrier().flag_address() as *const u8
}

/// Whether stores of references must be reported.
pub(crate) fn reports_stores() -> bool {
    world().collector.write_barrier().is_on()
}

/// Whether overwritten references are reported, too.
pub(crate) fn shades_lost() -> bool {
    world().options.write_barrier == BarrierKind::Hybrid
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
        thread::with(|local| {
            f(local.stores.get_or_init(|| world().collector.write_barrier().buffer()))
        });
    }
}
