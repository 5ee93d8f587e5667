//! The personalities of the frames that must do something when an exception passes, by the Itanium
//! C++ ABI, level I.
//!
//! Phase 1 looks for a handler and changes nothing. In phase 2 a personality installs a landing
//! pad, which is assembly: it leaves goroutine and machine in the state that a return would have
//! left, and goes on unwinding. `call_system` has no personality: Rust's own cleanup and that of
//! `callback` undo what a call out changes.

use crate::arch::{
    LANDING_REGISTER, LANDS_AT, leapfrogged_slot, stackmark_call_native_all_returned,
    stackmark_call_native_returned, stackmark_enter_returned,
};
use crate::layout::{BarrierFn, GoroutineHeader};
use crate::{barrier, machine};
use core::ffi::{c_int, c_void};
use core::sync::atomic::Ordering::Relaxed;

const URC_HANDLER_FOUND: c_int = 6;
const URC_INSTALL_CONTEXT: c_int = 7;
const URC_CONTINUE_UNWIND: c_int = 8;
const UA_SEARCH_PHASE: c_int = 1;
const UA_HANDLER_FRAME: c_int = 4;
const UA_FORCE_UNWIND: c_int = 8;

unsafe extern "C" {
    fn _Unwind_SetIP(context: *mut c_void, ip: usize);
    fn _Unwind_SetGR(context: *mut c_void, register: c_int, value: usize);
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

unsafe extern "C-unwind" {
    fn _Unwind_Resume(exception: *mut c_void) -> !;

    // Landing pads, entered with the exception in LANDING_REGISTER.
    fn stackmark_enter_landing();
    fn stackmark_call_native_landing();
    fn stackmark_call_native_all_landing();
    fn stackmark_callback_landing();
    fn stackmark_entry_landing();
    fn stackmark_catch_landing();
}

/// Enters a landing pad with the exception.
///
/// # Safety
/// `context` is the one that the unwinder gave to a personality in phase 2.
unsafe fn land(
    context: *mut c_void,
    exception: *mut c_void,
    pad: unsafe extern "C-unwind" fn(),
) -> c_int {
    // SAFETY: by the caller's contract; the frames of the assembly let the register be set.
    unsafe {
        _Unwind_SetGR(context, LANDING_REGISTER, exception as usize);
        _Unwind_SetIP(context, pad as *const () as usize);
    }
    URC_INSTALL_CONTEXT
}

/// The pool's: goes on in the stub, as a return does, with the exception in the machine.
/// `_URC_CONTINUE_UNWIND` in phase 2 aborts when the catching frame is directly behind the barrier:
/// the stub and that frame have the same CFA, and libgcc takes the one for the other.
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
        // Relaxed: the stub takes it on this thread.
        (*machine::current()).passing.store(exception as usize, Relaxed);
        _Unwind_SetIP(context, barrier::stub(index) + LANDS_AT);
    }
    URC_INSTALL_CONTEXT
}

/// `callback`'s: enters the landing pad, which puts the goroutine back to its call out and the
/// machine's system stack back to where it began before.
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
    unsafe { land(context, exception, stackmark_callback_landing) }
}

/// `enter_managed`'s: enters the landing pad, which restores the anchor of before. Only where
/// managed code has been called: elsewhere, as when a thread is cancelled asynchronously, the frame
/// is not what the pad takes it for.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_enter_personality(
    _version: c_int,
    actions: c_int,
    _class: u64,
    exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    let pads: [(Label, Label); 1] = [(stackmark_enter_returned, stackmark_enter_landing)];
    // SAFETY: the unwinder's context.
    unsafe { land_where_called(actions, context, exception, &pads) }
}

/// That of both forms of `call_native`: enters the landing pad, which clears the anchor and calls
/// `on_watched` where a return would. Only where native code has been called.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_native_personality(
    _version: c_int,
    actions: c_int,
    _class: u64,
    exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    let pads: [(Label, Label); 2] = [
        (stackmark_call_native_returned, stackmark_call_native_landing),
        (stackmark_call_native_all_returned, stackmark_call_native_all_landing),
    ];
    // SAFETY: the unwinder's context.
    unsafe { land_where_called(actions, context, exception, &pads) }
}

/// A label of the assembly.
type Label = unsafe extern "C-unwind" fn();

/// Enters, in phase 2, the landing pad of the call whose return address is the frame's; goes on
/// where there is none. `pads` has both of each call.
///
/// # Safety
/// `context` is the unwinder's.
unsafe fn land_where_called(
    actions: c_int,
    context: *mut c_void,
    exception: *mut c_void,
    pads: &[(Label, Label)],
) -> c_int {
    // SAFETY: the unwinder's context; a landing pad in phase 2 alone.
    unsafe {
        let ip = _Unwind_GetIP(context);
        match pads.iter().find(|(returned, _)| *returned as *const () as usize == ip) {
            Some((_, pad)) if actions & UA_SEARCH_PHASE == 0 => land(context, exception, *pad),
            _ => URC_CONTINUE_UNWIND,
        }
    }
}

/// `goroutine_entry`'s: catches uncaught exceptions. (Without a handler `panic!` dies of "failed to
/// initiate panic".)
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
    let goroutine = unsafe {
        let machine = machine::current();
        &*((*machine).goroutine.load(Relaxed) as *const GoroutineHeader)
    };
    let wanted = goroutine.on_uncaught.load(Relaxed) != 0;
    if !wanted || actions & UA_FORCE_UNWIND != 0 {
        // A thread that ends detaches its machine, and with it ends the goroutine.
        return URC_CONTINUE_UNWIND;
    }
    if actions & UA_SEARCH_PHASE != 0 {
        // Relaxed: read on this thread, and by holders of the goroutine, which it stops for.
        goroutine.exception_crosses.store(1, Relaxed);
        return URC_HANDLER_FOUND;
    }
    debug_assert_ne!(actions & UA_HANDLER_FRAME, 0);
    // SAFETY: the unwinder's context, in phase 2.
    unsafe { land(context, exception, stackmark_entry_landing) }
}

/// `catch`'s: catches every exception, but lets forced unwinding pass (a thread that ends, frames
/// that a recover leaves).
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
    unsafe { land(context, exception, stackmark_catch_landing) }
}

/// A stub that an exception passes calls out to it: tells the host and goes on unwinding, on the
/// stack of native code.
///
/// # Safety
/// Called by `barrier_common` alone.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn stackmark_barrier_resume(
    exception: *mut c_void,
    index: usize,
) -> usize {
    // SAFETY: `barrier_common` has called out, so the machine runs a goroutine. The host has stored
    // the hook as a BarrierFn.
    unsafe {
        let machine = machine::current();
        let goroutine = (*machine).goroutine.load(Relaxed) as *const GoroutineHeader;
        let slot = leapfrogged_slot(&*goroutine);
        let hook = (*machine).on_leapfrog.load(Relaxed);
        if hook != 0 {
            let hook: BarrierFn = core::mem::transmute::<usize, BarrierFn>(hook);
            hook(machine, slot, index);
        }
        _Unwind_Resume(exception)
    }
}
