//! The native functions that managed code of this crate calls.

use stackmark::mark_sweep::DescriptorId;
use stackmark::stack::asm::layout::{G_RESULTS, RESULT_WORDS};
use stackmark::stack::{Caller, FrameAt, UnwindToError};
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::host::EngineHost;
use crate::machine;

/// Arguments of a foreign call.
pub(crate) const FOREIGN_ARGUMENTS: usize = 6;

/// A result word of the goroutine whose header is at `goroutine`.
///
/// # Safety
/// `goroutine` is the address of the header of the goroutine that called out to this native code.
unsafe fn word<'w>(goroutine: *mut c_void, word: usize) -> &'w AtomicUsize {
    debug_assert!(word < RESULT_WORDS);
    // SAFETY: by our contract; the words are aligned atomics of the header.
    unsafe { &*goroutine.cast::<u8>().add(G_RESULTS + 8 * word).cast::<AtomicUsize>() }
}

/// `allocate(goroutine, descriptor, bytes)`: a new object. Waits for a collection if the heap is
/// full.
///
/// # Safety
/// Called by managed code of this crate through `call_system`.
pub(crate) unsafe extern "C-unwind" fn allocate(
    goroutine: *mut c_void,
    descriptor: usize,
) -> usize {
    // SAFETY: by our contract; used within this function.
    let (bytes, caller) = unsafe { (word(goroutine, 1).load(Relaxed), Caller::current()) };
    let host = EngineHost::of(&caller);
    let descriptor = DescriptorId::from_index(descriptor as u32);
    let allocated =
        machine::with(|data| host.collector().allocate(caller, &data.allocator, descriptor, bytes));
    match allocated {
        Ok(object) => object.address(),
        Err(error) => caller.runtime().fatal(&error),
    }
}

/// `store(goroutine, value, to)`: reports that `value` is about to be stored at the address `to`.
///
/// # Safety
/// As for [`allocate`].
pub(crate) unsafe extern "C-unwind" fn store(goroutine: *mut c_void, value: usize) -> usize {
    // SAFETY: by our contract.
    let to = unsafe { word(goroutine, 1) }.load(Relaxed);
    machine::with(|data| data.stores.store(value, to));
    0
}

/// As [`store`], and reports what is overwritten.
///
/// # Safety
/// As for [`allocate`].
pub(crate) unsafe extern "C-unwind" fn store_hybrid(goroutine: *mut c_void, value: usize) -> usize {
    // SAFETY: by our contract; `to` is the address of a word of an object, which other threads may
    // store to at the same time.
    let (to, overwritten) = unsafe {
        let to = word(goroutine, 1).load(Relaxed);
        (to, (*(to as *const AtomicUsize)).load(Relaxed))
    };
    machine::with(|data| {
        data.stores.store(value, to);
        data.stores.shade_overwritten(overwritten);
    });
    0
}

/// `foreign(goroutine, function, count, arguments...)`: calls a C function as a foreign call.
/// Leaves errno, on Windows the last error, in the first result word.
///
/// # Safety
/// As for [`allocate`]; the C function takes such arguments.
pub(crate) unsafe extern "C-unwind" fn foreign(goroutine: *mut c_void, function: usize) -> usize {
    // SAFETY: by our contract.
    let word = |at| unsafe { word(goroutine, at) };
    let count = word(1).load(Relaxed);
    let mut arguments = [0; FOREIGN_ARGUMENTS];
    for (at, argument) in arguments[..count].iter_mut().enumerate() {
        *argument = word(2 + at).load(Relaxed);
    }
    // SAFETY: by our contract; used within this function.
    let call = unsafe { Caller::current().lib_call(function, &arguments[..count]) };
    word(0).store(call.error as usize, Relaxed);
    call.result
}

/// `yield_thread(goroutine, 0)`: lets other threads run. A goroutine on its thread's own stack
/// keeps its thread.
///
/// # Safety
/// As for [`allocate`].
pub(crate) unsafe extern "C-unwind" fn yield_thread(_goroutine: *mut c_void, _: usize) -> usize {
    // SAFETY: by our contract; used within this function.
    unsafe { Caller::current() }.foreign(std::thread::yield_now);
    0
}

/// Why nothing catches what was raised.
#[derive(Debug, thiserror::Error)]
#[error("managed code has raised ({word:#x}, {reference:#x}), and no frame has a landing pad")]
struct Uncaught {
    word: usize,
    reference: usize,
}

/// `raise(goroutine, word, reference)`: leaves frames for the youngest landing pad.
///
/// # Safety
/// As for [`allocate`]. The frames of managed code own nothing.
pub(crate) unsafe extern "C-unwind" fn raise(goroutine: *mut c_void, first: usize) -> usize {
    // SAFETY: by our contract; used within this function.
    let (reference, caller) = unsafe { (word(goroutine, 1).load(Relaxed), Caller::current()) };
    let host = EngineHost::of(&caller);
    // SAFETY: the pad belongs to the call at which that frame stands, and takes two words. Natives
    // of this crate own nothing here.
    let error = unsafe {
        caller.unwind_to_landing_pad([first, reference], |FrameAt { pc, .. }| host.landing_pad(pc))
    };
    if let UnwindToError::NoLandingPad { .. } = error {
        caller.runtime().fatal(&Uncaught { word: first, reference });
    }
    caller.runtime().fatal(&error)
}
