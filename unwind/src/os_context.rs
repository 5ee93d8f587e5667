//! What the handler of a signal is given, or that of an exception: the registers of the interrupted
//! function.

#[cfg(target_os = "linux")]
pub(crate) use libc::ucontext_t as InterruptedContext;
#[cfg(windows)]
pub(crate) use windows_sys::Win32::System::Diagnostics::Debug::CONTEXT as InterruptedContext;
