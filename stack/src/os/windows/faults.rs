//! Exceptions of the processor, where other systems have signals. Their handlers run on the stack
//! that is in use: there are no others.

use super::threads::thread_stack;
use std::ffi::c_void;
use std::io;
use std::sync::OnceLock;
use windows_sys::Win32::Foundation::{
    EXCEPTION_ACCESS_VIOLATION, EXCEPTION_IN_PAGE_ERROR, EXCEPTION_STACK_OVERFLOW,
};
pub(crate) use windows_sys::Win32::System::Diagnostics::Debug::CONTEXT as InterruptedContext;
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS,
};

/// An alternate stack for handlers: no thread has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AlternateStack {
    pub(crate) at: usize,
    pub(crate) bytes: usize,
}

impl AlternateStack {
    /// Whether handlers run on such stacks.
    pub(crate) const ARE_USED: bool = false;

    /// An alternate stack in this memory.
    pub(crate) fn new(at: usize, bytes: usize) -> AlternateStack {
        AlternateStack { at, bytes }
    }

    /// The alternate stack of the calling thread.
    pub(crate) fn current() -> AlternateStack {
        AlternateStack { at: 0, bytes: 0 }
    }

    /// Whether a handler runs on it now: that is not to be known.
    pub(crate) fn is_in_use(&self) -> bool {
        false
    }

    /// Whether the thread has one.
    pub(crate) fn is_enabled(&self) -> bool {
        false
    }

    /// Makes it the alternate stack of the calling thread.
    ///
    /// # Errors
    /// Always.
    ///
    /// # Safety
    /// Every call is safe.
    pub(crate) unsafe fn install(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The bytes that the system needs for a signal frame: there is none.
    pub(crate) fn signal_frame_bytes() -> usize {
        0
    }
}

/// The signals whose handlers run on the stack that they interrupt: there are no signals.
pub(crate) fn handlers_without_alternate_stack() -> impl Iterator<Item = i32> {
    std::iter::empty()
}

/// A handler as signals have it elsewhere.
pub(crate) type Handler = unsafe extern "C" fn(i32, *mut c_void, *mut c_void);

/// The interrupted context, to which a handler's last argument points.
pub(crate) fn interrupted(context: *mut c_void) -> *const InterruptedContext {
    context.cast()
}

/// Interrupts the thread with this number: a thread can be stopped here, but runs no handler.
///
/// # Errors
/// Always.
///
/// # Safety
/// Every call is safe.
pub(crate) unsafe fn interrupt(
    _thread: i32,
    _handler: Handler,
    _done: impl Fn() -> bool,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What [`handle_faults`] calls, in the handler: with the address that the fault is about.
pub(crate) type OnFault = fn(address: usize);

static ON_FAULT: OnceLock<OnFault> = OnceLock::new();

/// Calls `on_fault` for each fault of memory in the process, before other handlers of today. A
/// stack that overflows is a fault of its lowest address. If `on_fault` returns, the other handlers
/// go on. A second call does nothing.
///
/// # Errors
/// The system's error.
pub(crate) fn handle_faults(on_fault: OnFault) -> io::Result<()> {
    if ON_FAULT.set(on_fault).is_err() {
        return Ok(());
    }
    // SAFETY: the handler runs on any thread, and does no more than `on_fault`.
    let added = unsafe { AddVectoredExceptionHandler(1, Some(on_exception)) };
    if added.is_null() { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The handler of faults.
unsafe extern "system" fn on_exception(exception: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system's record of the exception.
    let record = unsafe { &*(*exception).ExceptionRecord };
    let address = match record.ExceptionCode {
        EXCEPTION_ACCESS_VIOLATION | EXCEPTION_IN_PAGE_ERROR => record.ExceptionInformation[1],
        EXCEPTION_STACK_OVERFLOW => thread_stack().start,
        _ => return EXCEPTION_CONTINUE_SEARCH,
    };
    if let Some(on_fault) = ON_FAULT.get() {
        on_fault(address);
    }
    EXCEPTION_CONTINUE_SEARCH
}
