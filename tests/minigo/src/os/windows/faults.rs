//! Exceptions of the processor, which end the process: Go's line for them on Windows, and status 2.
//! Managed code checks what it does; they come of native code and of wild pointers.

use super::{exit_now, write_error};
use stackmark::stack::ending;
use std::io;
use windows_sys::Win32::Foundation::{
    EXCEPTION_ACCESS_VIOLATION, EXCEPTION_DATATYPE_MISALIGNMENT, EXCEPTION_FLT_DIVIDE_BY_ZERO,
    EXCEPTION_ILLEGAL_INSTRUCTION, EXCEPTION_IN_PAGE_ERROR, EXCEPTION_INT_DIVIDE_BY_ZERO,
    EXCEPTION_INT_OVERFLOW, EXCEPTION_PRIV_INSTRUCTION,
};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS,
};

/// Installs the handler, behind those that are there: they name the thread that has overflowed its
/// stack.
///
/// # Errors
/// The system's error.
pub(crate) fn handle_faults() -> io::Result<()> {
    // SAFETY: the handler runs on any thread, and ends the process or does nothing.
    let added = unsafe { AddVectoredExceptionHandler(0, Some(on_exception)) };
    if added.is_null() { Err(io::Error::last_os_error()) } else { Ok(()) }
}

unsafe extern "system" fn on_exception(exception: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system's record of the exception.
    let record = unsafe { &*(*exception).ExceptionRecord };
    match record.ExceptionCode {
        EXCEPTION_ACCESS_VIOLATION
        | EXCEPTION_DATATYPE_MISALIGNMENT
        | EXCEPTION_FLT_DIVIDE_BY_ZERO
        | EXCEPTION_ILLEGAL_INSTRUCTION
        | EXCEPTION_IN_PAGE_ERROR
        | EXCEPTION_INT_DIVIDE_BY_ZERO
        | EXCEPTION_INT_OVERFLOW
        | EXCEPTION_PRIV_INSTRUCTION => {}
        // Languages throw by others.
        _ => return EXCEPTION_CONTINUE_SEARCH,
    }
    ending::claim();
    let [about, address, ..] = record.ExceptionInformation;
    let (code, pc) = (record.ExceptionCode as u32, record.ExceptionAddress as usize);
    write_error(
        format!("Exception {code:#x} {about:#x} {address:#x} {pc:#x}\nPC={pc:#x}\n").as_bytes(),
    );
    exit_now(2)
}
