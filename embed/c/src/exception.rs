//! Exceptions of native code that are caught at a call out.

use std::ffi::{c_char, c_int, c_void};

use stackmark::stack::{Caller, NativeException};

use crate::abi::{EXCEPTION, Failure, NOT_ATTACHED, Out, code, given, put_text};
use crate::object::{Owned, Ref, kind};

/// `stackmark_exception`.
#[derive(Debug)]
pub(crate) struct ExceptionBox(NativeException);

kind!(ExceptionBox = "stackmark_exception");

#[unsafe(no_mangle)]
extern "C-unwind" fn stackmark_catch_native(
    f: Option<extern "C-unwind" fn(*mut c_void) -> usize>,
    user: *mut c_void,
    result: Out<'_, usize>,
    exception: Out<'_, Owned<ExceptionBox>>,
) -> c_int {
    code((|| {
        let (f, result) = (given(f, "f")?, result.given("result")?);
        let exception = exception.given("exception")?;
        // SAFETY: used within this native function.
        let caller = unsafe { Caller::try_current() };
        let text = "this thread runs no goroutine";
        let caller = caller.ok_or_else(|| Failure::new(NOT_ATTACHED, text))?;
        // Forced unwinding passes: nothing here owns anything meanwhile.
        match caller.catch_native(|| f(user)) {
            Ok(value) => {
                result.write(value);
                Ok(())
            }
            Err(caught) => {
                let failure = Failure::new(EXCEPTION, &caught);
                exception.write(Owned::new(ExceptionBox(caught)));
                Err(failure)
            }
        }
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_exception_class(exception: Ref<ExceptionBox>) -> u64 {
    match exception.get("stackmark_exception_class: exception") {
        Some(ExceptionBox(NativeException::Foreign(exception))) => exception.class(),
        _ => 0,
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_exception_text(
    exception: Ref<ExceptionBox>,
    buffer: *mut c_char,
    capacity: usize,
) -> usize {
    let exception = exception.get("stackmark_exception_text: exception");
    let text = exception.map(|exception| exception.0.to_string()).unwrap_or_default();
    // SAFETY: the header asks for such a buffer.
    unsafe { put_text(&text, buffer, capacity) }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn stackmark_exception_resume(exception: Owned<ExceptionBox>) {
    if let Some(ExceptionBox(exception)) = exception.take("stackmark_exception_resume: exception") {
        exception.resume()
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_exception_free(exception: Owned<ExceptionBox>) {
    drop(exception.take("stackmark_exception_free: exception"));
}
