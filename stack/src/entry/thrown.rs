//! Exceptions that have left native code, where they do not cross from one stack to the other: they
//! go on beyond the managed frames.

use super::life::goroutine_uncaught;
use crate::machine::Caller;
use stackmark_asm::layout::GoroutineHeader;
use std::ffi::c_void;

/// An exception has left the native function that managed code has called. Either frames are being
/// left by it. Or it goes on in the native code that has called back the youngest managed frame, or
/// nothing catches it: managed frames have no handlers.
///
/// # Safety
/// Called by `call_system` alone.
pub(crate) unsafe extern "C-unwind" fn on_thrown(
    exception: *mut c_void,
    goroutine: *mut GoroutineHeader,
) {
    // SAFETY: not used after the frames here have been left. The exception is in flight, and
    // `call_system` alone has caught it.
    unsafe {
        Caller::current().goes_on_by(exception);
        Caller::current().throw_beyond_managed(exception);
        goroutine_uncaught(exception, goroutine as usize);
    }
}
