//! What each machine has of its own: memory to allocate from, a buffer of the write barrier, and
//! the embedder's.
//!
//! An [`Engine`](crate::Engine) keeps it by itself. An embedder with a runtime of its own calls
//! [`set`] in [`Host::machine_attached`](stackmark::stack::Host::machine_attached) and [`take`] in
//! [`Host::machine_detached`](stackmark::stack::Host::machine_detached).

use stackmark::mark_sweep::Allocator;
use stackmark::write_barrier::BarrierBuffer;
use std::cell::Cell;
use std::ptr;

/// A machine's own. It is made when its thread is attached, and dropped when it is detached.
#[derive(Debug)]
pub struct MachineData {
    /// What its goroutines allocate from.
    pub allocator: Allocator,
    /// What its goroutines report stores to.
    pub stores: BarrierBuffer,
    /// The embedder's own.
    pub word: usize,
}

thread_local! {
    /// The calling thread's, if it is a machine of an engine. Without a destructor, so that code
    /// that runs at the end of the thread finds it.
    static MACHINE: Cell<*const MachineData> = const { Cell::new(ptr::null()) };
    /// How many calls of [`with`] have not returned.
    static USES: Cell<usize> = const { Cell::new(0) };
}

/// Makes `data` the calling thread's. Returns what inline allocation finds its allocator by: the
/// word that the host returns for the machine.
///
/// # Panics
/// If the thread has some already.
pub fn set(data: MachineData) -> usize {
    assert!(MACHINE.get().is_null(), "a thread is attached once");
    let data = Box::new(data);
    let slots = data.allocator.slots_address();
    MACHINE.set(Box::into_raw(data));
    slots
}

/// Takes what the calling thread has, if it has something.
///
/// # Panics
/// Within [`with`].
///
/// # Safety
/// The thread runs no managed code any more that allocates or stores by what is taken: it calls
/// this in [`Host::machine_detached`](stackmark::stack::Host::machine_detached), or is no machine.
pub unsafe fn take() -> Option<Box<MachineData>> {
    assert_eq!(USES.get(), 0, "a machine's data is in use on this thread");
    let data = MACHINE.replace(ptr::null());
    // SAFETY: made by `set` on this thread, and taken once. References to it are those of `with`,
    // of which none runs.
    (!data.is_null()).then(|| unsafe { Box::from_raw(data.cast_mut()) })
}

/// Calls `f` with what the calling thread has.
///
/// # Panics
/// If the thread has nothing.
pub fn with<R>(f: impl FnOnce(&MachineData) -> R) -> R {
    struct Use;
    impl Drop for Use {
        fn drop(&mut self) {
            USES.set(USES.get() - 1);
        }
    }
    USES.set(USES.get() + 1);
    let _use = Use;
    // SAFETY: null, or made by `set` on this thread; it is freed by `take` on this thread alone,
    // which refuses to while `USES` counts this call.
    f(unsafe { MACHINE.get().as_ref() }.expect("this thread is a machine with data of its own"))
}
