//! Catching exceptions of native code at a call out.

use super::caller::Caller;
use super::leaving::is_of_leaving;
use crate::runtime::{NativeException, throw};
use stackmark_asm as asm;
use std::ffi::c_void;

impl Caller<'_> {
    /// Calls `f`, typically a foreign call, and catches an exception that leaves it, for example a
    /// Rust panic or a C++ exception. A host turns it into a panic of its own language. The
    /// goroutine is then as it was before the call: barriers of managed frames that the exception
    /// has crossed are settled, and guards like that of [`Caller::foreign`] have run. Forced
    /// unwinding is not caught: that of [`Caller::unwind_to`], and that of a thread that ends.
    ///
    /// # Errors
    /// The exception.
    pub fn catch_native<R>(self, f: impl FnOnce() -> R) -> Result<R, NativeException> {
        struct Call<F, R> {
            f: Option<F>,
            result: Option<R>,
        }
        unsafe extern "C-unwind" fn call<F: FnOnce() -> R, R>(argument: *mut c_void) {
            // SAFETY: `catch_native` passes its own `Call`, which outlives this function's frame.
            let call = unsafe { &mut *(argument as *mut Call<F, R>) };
            let f = call.f.take().expect("called once");
            call.result = Some(f());
        }
        fn of<F: FnOnce() -> R, R>(_: &Call<F, R>) -> asm::CaughtFn {
            call::<F, R>
        }
        let mut call = Call { f: Some(f), result: None };
        // SAFETY: the function fits its argument.
        let exception = unsafe { asm::catch(of(&call), (&raw mut call).cast()) };
        match call.result {
            Some(result) => Ok(result),
            // SAFETY: the exception has left `f`, and `asm::catch` alone has caught it.
            None => unsafe {
                if is_of_leaving(exception) {
                    throw(exception)
                }
                Err(NativeException::new(exception))
            },
        }
    }
}
