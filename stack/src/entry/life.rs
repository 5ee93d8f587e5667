//! The end of a goroutine.

use crate::machine::{Caller, EXITED, die_of_panic};
use crate::runtime::NativeException;
use std::ffi::c_void;

/// `goroutine_entry` calls it when the managed function has returned.
///
/// # Safety
/// Called by `goroutine_entry` alone.
pub(crate) unsafe extern "C-unwind" fn goroutine_exit(
    _header: *mut c_void,
    result: usize,
) -> usize {
    // SAFETY: not used after `end`, which does not return.
    unsafe {
        let caller = Caller::current();
        caller.assert_back_inside();
        caller.goroutine().will_not_return();
        caller.runtime().host.goroutine_exited(caller.goroutine(), result);
        caller.end(EXITED)
    }
}

/// `goroutine_entry` calls it with an exception that has left the managed function.
///
/// # Safety
/// Called by `goroutine_entry`, or where an exception is to go on there. Nothing else has the
/// exception.
pub(crate) unsafe extern "C-unwind" fn goroutine_uncaught(
    exception: *mut c_void,
    _header: usize,
) -> usize {
    // SAFETY: this function does not return; the rest is our contract.
    let (caller, exception) = unsafe { (Caller::current(), NativeException::new(exception)) };
    caller.goroutine().exception_is_gone();
    caller.goroutine().will_not_return();
    let exception = caller.runtime().host.uncaught(caller.goroutine(), exception);
    die_of_panic(caller.runtime(), &exception.to_string())
}
