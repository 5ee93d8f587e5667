//! What each OS thread has of its own: memory to allocate from, and a buffer of the write barrier.
//!
//! Not thread-local variables with destructors: those are gone while the destructors of pthread
//! keys run, and C code may call in from there. What the thread has stays as long as the thread is
//! a machine. If it is made again after that, the key's next round frees it.

use stackmark::mark_sweep::Allocator;
use stackmark::write_barrier::BarrierBuffer;
use std::cell::{Cell, OnceCell};
use std::ffi::c_void;
use std::sync::OnceLock;

/// A thread's own.
#[derive(Default)]
pub(crate) struct Local {
    pub(crate) allocator: OnceCell<Allocator>,
    pub(crate) stores: OnceCell<BarrierBuffer>,
}

thread_local! {
    /// Owned by the thread, freed by the key's destructor. Without a destructor of its own, so
    /// always there.
    static LOCAL: Cell<*mut Local> = const { Cell::new(std::ptr::null_mut()) };
}

/// Calls `f` with what the calling thread has.
pub(crate) fn with<R>(f: impl FnOnce(&Local) -> R) -> R {
    let mut local = LOCAL.get();
    if local.is_null() {
        local = Box::into_raw(Box::default());
        LOCAL.set(local);
        // SAFETY: the key's destructor takes the box.
        let set = unsafe { libc::pthread_setspecific(key(), local.cast()) };
        assert_eq!(set, 0, "pthread_setspecific: {}", std::io::Error::from_raw_os_error(set));
    }
    // SAFETY: the box lives until the thread ends; it is only ever shared.
    f(unsafe { &*local })
}

fn key() -> libc::pthread_key_t {
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    unsafe extern "C" fn thread_ends(local: *mut c_void) {
        if !stackmark_asm::current().is_null() {
            // Still a machine: its goroutine's code allocates from here. Another key's destructor
            // detaches the machine, so this one asks for one more round. After the last round the
            // box stays, which is rare and harmless.
            // SAFETY: as in `with`.
            unsafe { libc::pthread_setspecific(key(), local) };
            return;
        }
        LOCAL.set(std::ptr::null_mut());
        // SAFETY: the value is this thread's box, and the thread has no other reference to it.
        drop(unsafe { Box::from_raw(local.cast::<Local>()) });
    }
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the destructor is called with values that `with` has set.
        let made = unsafe { libc::pthread_key_create(&mut key, Some(thread_ends)) };
        assert_eq!(made, 0, "pthread_key_create: {}", std::io::Error::from_raw_os_error(made));
        key
    })
}
