//! Announces the switches of stacks to AddressSanitizer, under `--cfg stackmark_asan`.
//!
//! AddressSanitizer keeps, for each thread, where its stack lies and the *fake stack* on which the
//! locals of instrumented frames live, so that uses after a return are found. When frames are left
//! other than by a return it clears what lies between the stack pointer and the top of that stack,
//! and frees the fake frames of the frames that are gone, by comparing addresses. Managed code is
//! not instrumented, and native code runs on the system stack; but native code on goroutine stacks
//! (stacks that do not move, tests that stand in for managed code) is, and would be taken for
//! frames of the system stack.
//!
//! `run` and the assembly call the two functions here on the system stack, right before they switch
//! or right after. Both do nothing if that stack is announced already: the system's unwinder goes
//! from frames of one stack to those of the other by itself. If an exception from the system stack
//! lands in an instrumented frame on a goroutine stack, that frame counts as the system's until its
//! next switch.
//!
//! Managed code on a native stack switches nothing.
//!
//! What is *not* needed: `leave`, `leave_callback_by` and `continue_at` drop native frames whose
//! redzones are poisoned, but they are functions that do not return, before which the compiler has
//! the sanitizer clear the stack (`__asan_handle_no_return`).

use crate::layout::GoroutineHeader;
use core::cell::Cell;
use core::ffi::c_void;
use core::ptr::{null, null_mut};
use core::sync::atomic::Ordering::Relaxed;

// <sanitizer/common_interface_defs.h>
unsafe extern "C" {
    fn __sanitizer_start_switch_fiber(
        fake_stack_save: *mut *mut c_void,
        bottom: *const c_void,
        size: usize,
    );
    fn __sanitizer_finish_switch_fiber(
        fake_stack_save: *mut c_void,
        bottom_old: *mut *const c_void,
        size_old: *mut usize,
    );
}

/// What the sanitizer knows a thread's system stack by while a goroutine's is announced.
struct System {
    on_goroutine: Cell<bool>,
    fake_stack: Cell<*mut c_void>,
    bottom: Cell<*const c_void>,
    size: Cell<usize>,
}

std::thread_local! {
    static SYSTEM: System = const {
        System {
            on_goroutine: Cell::new(false),
            fake_stack: Cell::new(null_mut()),
            bottom: Cell::new(null()),
            size: Cell::new(0),
        }
    };
}

/// A stack whose lower end is not known is taken to have this size.
const UNKNOWN_BYTES: usize = 64 << 10;

/// Announces the goroutine's stack.
///
/// # Safety
/// This thread is about to go on with the goroutine.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn stackmark_asan_to_goroutine(goroutine: *const GoroutineHeader) {
    // SAFETY: by the caller's contract the header is alive. The words that the sanitizer writes are
    // this thread's own.
    SYSTEM.with(|system| unsafe {
        let is_native = (*goroutine).entered.load(Relaxed) != 0;
        if is_native || system.on_goroutine.replace(true) {
            return;
        }
        let hi = (*goroutine).stack_hi.load(Relaxed);
        let lo = match (*goroutine).stack_lo.load(Relaxed) {
            0 => hi - UNKNOWN_BYTES,
            lo => lo,
        };
        __sanitizer_start_switch_fiber(system.fake_stack.as_ptr(), lo as *const c_void, hi - lo);
        let fake_stack = (*goroutine).fake_stack.load(Relaxed) as *mut c_void;
        __sanitizer_finish_switch_fiber(fake_stack, system.bottom.as_ptr(), system.size.as_ptr());
    });
}

/// Announces the system stack.
///
/// # Safety
/// This thread has left the goroutine's stack.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn stackmark_asan_to_system(goroutine: *const GoroutineHeader) {
    // SAFETY: as above. The sanitizer writes one word through the first pointer.
    SYSTEM.with(|system| unsafe {
        let is_native = (*goroutine).entered.load(Relaxed) != 0;
        if is_native || !system.on_goroutine.replace(false) {
            return;
        }
        let save = (*goroutine).fake_stack.as_ptr() as *mut *mut c_void;
        __sanitizer_start_switch_fiber(save, system.bottom.get(), system.size.get());
        __sanitizer_finish_switch_fiber(system.fake_stack.get(), null_mut(), null_mut());
    });
}

impl Drop for GoroutineHeader {
    /// Frees the fake stack: the sanitizer does so when a stack is left with no place to save it
    /// to.
    fn drop(&mut self) {
        let fake_stack = *self.fake_stack.get_mut() as *mut c_void;
        if fake_stack.is_null() {
            return;
        }
        let (mut own, mut bottom, mut size) = (null_mut(), null(), 0);
        // SAFETY: no frame of the goroutine is left. Between the calls this thread counts as being
        // on a stack of no size, and runs nothing instrumented.
        unsafe {
            __sanitizer_start_switch_fiber(&mut own, null(), 0);
            __sanitizer_finish_switch_fiber(fake_stack, &mut bottom, &mut size);
            __sanitizer_start_switch_fiber(null_mut(), bottom, size);
            __sanitizer_finish_switch_fiber(own, null_mut(), null_mut());
        }
    }
}
