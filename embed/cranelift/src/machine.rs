//! What each machine has of its own: memory to allocate from, a buffer of the write barrier, and
//! the embedder's.

use stackmark::mark_sweep::Allocator;
use stackmark::write_barrier::BarrierBuffer;
use std::cell::Cell;
use std::ptr;

/// A machine's own. It is made when its thread is attached, and dropped when it is detached.
pub(crate) struct MachineData {
    pub(crate) allocator: Allocator,
    pub(crate) stores: BarrierBuffer,
    /// The word of the embedder's own host.
    pub(crate) word: usize,
}

thread_local! {
    /// The calling thread's, if it is a machine of an engine. Without a destructor, so that code
    /// that runs at the end of the thread finds it.
    static MACHINE: Cell<*const MachineData> = const { Cell::new(ptr::null()) };
}

/// Makes `data` the calling thread's.
pub(crate) fn set(data: Box<MachineData>) {
    debug_assert!(MACHINE.get().is_null(), "a thread is attached once");
    MACHINE.set(Box::into_raw(data));
}

/// Takes what the calling thread has, if it has something.
pub(crate) fn take() -> Option<Box<MachineData>> {
    let data = MACHINE.replace(ptr::null());
    // SAFETY: made by `set` on this thread, and taken once.
    (!data.is_null()).then(|| unsafe { Box::from_raw(data.cast_mut()) })
}

/// Calls `f` with what the calling thread has.
///
/// # Panics
/// If the thread is not a machine of an engine.
pub(crate) fn with<R>(f: impl FnOnce(&MachineData) -> R) -> R {
    // SAFETY: null, or made by `set` on this thread; it is taken by `take` on this thread alone,
    // which nothing calls within `f`: the thread is not detached there.
    f(unsafe { MACHINE.get().as_ref() }.expect("this thread is a machine of an engine"))
}
