//! Memory for objects, and the write barrier.

use super::heap::Heap;
use super::world::{Memory, fatal, world};
use parking_lot::Mutex;
use stackmark::handle::Handle;
use stackmark::mark_sweep::{Descriptor, DescriptorError, DescriptorId, MarkSweep};
use stackmark::stack::Caller;
use stackmark::write_barrier::BarrierBuffer;
use stackmark_cranelift::Barrier;
use stackmark_cranelift::machine::{self, MachineData};
use std::any::Any;
use std::error::Error;
use std::sync::atomic::{AtomicU8, Ordering};

/// The byte that compiled code looks at before it stores, where the heap is another. It is never
/// cleared: whatever that heap wants to hear of, it hears of all the time.
static REPORTS_STORES: AtomicU8 = AtomicU8::new(0);

/// The caller of the running native.
fn caller() -> Caller<'static> {
    // SAFETY: natives run on behalf of a goroutine; the functions here use it alone, until they
    // return.
    unsafe { Caller::current() }
}

/// The heap's number for objects that repeat a pattern of words.
pub(crate) fn descriptor(words: usize, refs: &[bool]) -> usize {
    match &world().memory {
        Memory::Own { heap, .. } => own_descriptor(heap, words, refs),
        Memory::Other(heap) => heap.descriptor(refs),
    }
}

fn own_descriptor(heap: &MarkSweep, words: usize, refs: &[bool]) -> usize {
    let references = refs.iter().enumerate().filter(|(_, r)| **r).map(|(i, _)| i);
    let pattern = match Descriptor::pattern(words.max(1), references) {
        // Each word may be a reference then.
        Err(DescriptorError::TooLong { .. }) => Ok(Descriptor::references()),
        pattern => pattern,
    };
    let number = match pattern.and_then(|d| heap.register(d)) {
        Ok(id) => id.index() as usize,
        Err(e) => fatal(&e),
    };
    let mut known = DESCRIPTORS.lock();
    if number == known.len() {
        known.push((words, refs.to_vec()));
    }
    number
}

/// What [`descriptor`] was asked for, by the numbers that it has given.
static DESCRIPTORS: Mutex<Vec<(usize, Vec<bool>)>> = Mutex::new(Vec::new());

/// What has to be registered in this order for the same numbers.
pub(crate) fn descriptors() -> Vec<(usize, Vec<bool>)> {
    DESCRIPTORS.lock().clone()
}

/// Makes what the calling thread has of its own. Returns the address of its allocator's cells, if
/// the heap has those.
pub(super) fn machine_attached() -> usize {
    let (heap, collector) = match &world().memory {
        Memory::Own { heap, collector } => (heap, collector),
        Memory::Other(heap) => return heap.machine_attached(),
    };
    let allocator = heap.allocator().unwrap_or_else(|error| fatal(&error));
    let stores = collector.write_barrier().buffer();
    machine::set(MachineData { allocator, stores, word: 0 })
}

pub(super) fn machine_detached(word: usize) {
    match &world().memory {
        // SAFETY: the machine is detached: it runs no managed code any more.
        Memory::Own { .. } => drop(unsafe { machine::take() }),
        Memory::Other(heap) => heap.machine_detached(word),
    }
}

/// Zeroed memory, or the reason why there is none.
pub(crate) fn try_allocate(descriptor: usize, bytes: usize) -> Result<usize, Box<dyn Error>> {
    let caller = caller();
    if let Memory::Other(heap) = &world().memory {
        return heap.allocate(&caller, descriptor, bytes, false);
    }
    let inside = caller.inside().expect("natives allocate when they run");
    let descriptor = DescriptorId::from_index(descriptor as u32);
    let allocated = machine::with(|own| own.allocator.allocate(&inside, descriptor, bytes));
    Ok(allocated?.address())
}

/// As [`try_allocate`], after a collection if the heap is full. The native holds no reference.
pub(crate) fn allocate_or_collect(
    descriptor: usize,
    bytes: usize,
) -> Result<usize, Box<dyn Error>> {
    let collector = match &world().memory {
        Memory::Own { collector, .. } => collector,
        Memory::Other(heap) => return heap.allocate(&caller(), descriptor, bytes, true),
    };
    let descriptor = DescriptorId::from_index(descriptor as u32);
    let allocated =
        machine::with(|own| collector.allocate(caller(), &own.allocator, descriptor, bytes));
    Ok(allocated?.address())
}

/// Whether compiled code may allocate by itself, from the cells of the machine's allocator.
pub(crate) fn allocates_inline() -> bool {
    world().collector().is_some()
}

/// A root that native code has: an object that it reads after managed code has run.
pub(crate) struct Held {
    _own: Option<Handle>,
    _other: Option<Box<dyn Any + Send>>,
}

/// Keeps the object alive that `word` refers to, if it does. The caller's goroutine is Running, or
/// something else keeps the object alive.
pub(crate) fn hold(word: usize) -> Held {
    match &world().memory {
        _ if word == 0 => Held { _own: None, _other: None },
        Memory::Own { collector, .. } => {
            Held { _own: Some(collector.handles().create(word)), _other: None }
        }
        Memory::Other(heap) => Held { _own: None, _other: Some(heap.hold(&caller(), word)) },
    }
}

/// Compiled code reports stores to another heap from now on.
pub(super) fn report_stores_to(heap: &dyn Heap) {
    // Relaxed: the threads that read it start later.
    REPORTS_STORES.store(heap.reports_stores().into(), Ordering::Relaxed);
}

/// The write barrier, for compiled code.
pub(crate) fn barrier() -> Barrier {
    match &world().memory {
        Memory::Own { collector, .. } => Barrier::of(collector.write_barrier()),
        Memory::Other(heap) => Barrier::by_flag(&REPORTS_STORES, heap.reports_stores()),
    }
}

/// Whether stores of references must be reported.
pub(crate) fn reports_stores() -> bool {
    match &world().memory {
        Memory::Own { collector, .. } => collector.write_barrier().is_on(),
        Memory::Other(heap) => heap.reports_stores(),
    }
}

/// Reports a reference that is overwritten or dropped, if it has to be.
pub(crate) fn shade_lost(word: usize) {
    report(word, |buffer| buffer.shade_overwritten(word));
}

/// Reports a reference that is stored.
pub(crate) fn shade(word: usize) {
    report(word, |buffer| buffer.shade(word));
}

/// Reports a reference that is stored at the address `to`.
pub(crate) fn store(word: usize, to: usize) {
    report(word, |buffer| buffer.store(word, to));
}

fn report(word: usize, own: impl FnOnce(&BarrierBuffer)) {
    match &world().memory {
        _ if world().options.break_write_barrier => {}
        Memory::Own { .. } => machine::with(|machine| own(&machine.stores)),
        Memory::Other(heap) => heap.shade(&caller(), word),
    }
}
