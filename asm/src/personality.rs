//! The personalities of the frames that must do something when an exception passes (Itanium C++
//! ABI, level I).
//!
//! Phase 1 looks for a handler and changes nothing. In phase 2 a personality installs a landing
//! pad, which is assembly: it makes the state of goroutine and machine what a return would have
//! left, and goes on unwinding. `call_system` has no personality: what a call out changes is undone
//! by Rust's own cleanup and by `callback`'s.

use crate::barrier;
use core::ffi::{c_int, c_void};
use core::sync::atomic::Ordering::Relaxed;

const URC_HANDLER_FOUND: c_int = 6;
const URC_INSTALL_CONTEXT: c_int = 7;
const URC_CONTINUE_UNWIND: c_int = 8;
const UA_SEARCH_PHASE: c_int = 1;
const UA_HANDLER_FRAME: c_int = 4;
const UA_FORCE_UNWIND: c_int = 8;
/// The DWARF registers in which libgcc hands two words to a landing pad: rax and rdx.
const EH_RETURN: (c_int, c_int) = (0, 1);

unsafe extern "C" {
    fn _Unwind_SetIP(context: *mut c_void, ip: usize);
    fn _Unwind_SetGR(context: *mut c_void, register: c_int, value: usize);
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn stackmark_barrier_landing();
    fn stackmark_callback_landing();
    fn stackmark_entry_landing();
    fn stackmark_catch_landing();
}

/// Enters a landing pad with the exception and a second word.
///
/// # Safety
/// `context` is the one that the unwinder gave to a personality in phase 2.
unsafe fn land(
    context: *mut c_void,
    exception: *mut c_void,
    word: usize,
    pad: unsafe extern "C" fn(),
) -> c_int {
    // SAFETY: by our contract; the frames of the assembly let these registers be set.
    unsafe {
        _Unwind_SetGR(context, EH_RETURN.0, exception as usize);
        _Unwind_SetGR(context, EH_RETURN.1, word);
        _Unwind_SetIP(context, pad as *const () as usize);
    }
    URC_INSTALL_CONTEXT
}

/// The pool's. `_URC_CONTINUE_UNWIND` in phase 2 aborts when the catching frame is directly behind
/// the barrier: the stub and that frame have the same CFA, and libgcc takes the one for the other.
/// So the landing pad is entered.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_barrier_personality(
    _version: c_int,
    actions: c_int,
    _class: u64,
    exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    if actions & UA_SEARCH_PHASE != 0 {
        return URC_CONTINUE_UNWIND;
    }
    // SAFETY: the unwinder's context, in phase 2.
    unsafe {
        let index = barrier::index_of(_Unwind_GetIP(context))
            .expect("the personality of the pool runs for its stubs");
        land(context, exception, index, stackmark_barrier_landing)
    }
}

/// `callback`'s: the goroutine is where its call out was, the machine's system stack begins above
/// the native caller.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_callback_personality(
    _version: c_int,
    actions: c_int,
    _class: u64,
    exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    if actions & UA_SEARCH_PHASE != 0 {
        return URC_CONTINUE_UNWIND;
    }
    // SAFETY: the unwinder's context, in phase 2.
    unsafe { land(context, exception, 0, stackmark_callback_landing) }
}

/// `goroutine_entry`'s: catches what nobody has caught. (Without a handler `panic!` dies of "failed
/// to initiate panic".)
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_entry_personality(
    _version: c_int,
    actions: c_int,
    _class: u64,
    exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    // SAFETY: exceptions reach goroutine_entry on the thread of the machine that runs the
    // goroutine.
    let wanted = unsafe {
        let machine = crate::current();
        let goroutine = (*machine).goroutine.load(Relaxed) as *const crate::layout::GoroutineHeader;
        (*goroutine).on_uncaught.load(Relaxed) != 0
    };
    if !wanted || actions & UA_FORCE_UNWIND != 0 {
        // A thread that ends: its machine ends the goroutine when it is detached.
        return URC_CONTINUE_UNWIND;
    }
    if actions & UA_SEARCH_PHASE != 0 {
        return URC_HANDLER_FOUND;
    }
    debug_assert_ne!(actions & UA_HANDLER_FRAME, 0);
    // SAFETY: the unwinder's context, in phase 2.
    unsafe { land(context, exception, 0, stackmark_entry_landing) }
}

/// `catch`'s: catches every exception, but lets forced unwinding pass (a thread that ends, frames
/// that are left for a recover).
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_catch_personality(
    _version: c_int,
    actions: c_int,
    _class: u64,
    exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    if actions & UA_SEARCH_PHASE != 0 {
        return URC_HANDLER_FOUND;
    }
    if actions & UA_HANDLER_FRAME == 0 {
        return URC_CONTINUE_UNWIND;
    }
    // SAFETY: the unwinder's context, in phase 2.
    unsafe { land(context, exception, 0, stackmark_catch_landing) }
}
