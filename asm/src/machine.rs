//! The machine of an OS thread.

use crate::arch;
use crate::layout::{GoroutineHeader, MachineHeader};
use core::sync::atomic::Ordering::Relaxed;

/// The stack pointer. Not the address of a local: under a sanitizer that may lie anywhere.
#[inline(always)]
pub fn stack_pointer() -> usize {
    arch::stack_pointer()
}

/// The machine of this OS thread, or null.
#[inline]
pub fn current() -> *mut MachineHeader {
    arch::current()
}

/// Attaches `machine` to this OS thread; null detaches.
///
/// # Safety
/// The header stays valid and in place until the thread is detached. No managed frame is on this
/// thread.
pub unsafe fn set_current(machine: *mut MachineHeader) {
    arch::initialise();
    // SAFETY: the assembly stores one word of thread-local storage.
    unsafe { arch::stackmark_set_current(machine) }
}

/// One past the highest address of the current goroutine's stack, for C wrappers that write results
/// into it.
///
/// # Safety
/// The calling thread's machine runs a goroutine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stackmark_stack_top() -> usize {
    // SAFETY: the machine runs a goroutine, whose header is alive.
    unsafe {
        let goroutine = (*current()).goroutine.load(Relaxed) as *const GoroutineHeader;
        (*goroutine).stack_hi.load(Relaxed)
    }
}
