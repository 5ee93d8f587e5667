//! Windows, also as wine has it.

mod faults;

pub(crate) use faults::handle_faults;

use super::Missing;
use std::ffi::c_void;
use std::ptr;
use windows_sys::Win32::Foundation::HMODULE;
use windows_sys::Win32::Storage::FileSystem::WriteFile;
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE, STD_OUTPUT_HANDLE,
};
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
    GetModuleHandleExW,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, TerminateProcess};

/// Whether the system has it.
///
/// # Errors
/// What it lacks, which is all of [`Missing`].
pub(crate) fn has(what: Missing) -> Result<(), Missing> {
    Err(what)
}

/// Writes all of it, as it is: a line ends as the program has ended it. Ignores errors.
fn write_all(stream: STD_HANDLE, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (mut written, bytes) = (0, u32::try_from(rest.len()).unwrap_or(u32::MAX));
        // SAFETY: the bytes are ours, and the system writes one word.
        let done = unsafe {
            let stream = GetStdHandle(stream);
            WriteFile(stream, rest.as_ptr(), bytes, &raw mut written, ptr::null_mut())
        };
        if done == 0 || written == 0 {
            return;
        }
        rest = &rest[written as usize..];
    }
}

/// Writes to standard output, without a buffer.
pub(crate) fn write_output(bytes: &[u8]) {
    write_all(STD_OUTPUT_HANDLE, bytes);
}

/// Writes to standard error, without a lock or a buffer.
pub(crate) fn write_error(bytes: &[u8]) {
    write_all(STD_ERROR_HANDLE, bytes);
}

/// Ends the process. No destructors run, because other threads still run.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { TerminateProcess(GetCurrentProcess(), status as u32) };
    std::process::abort()
}

/// The loaded image with this address in it.
fn image_of(at: usize) -> Option<HMODULE> {
    let mut image = ptr::null_mut();
    let flags =
        GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    // SAFETY: any address may be asked for, and the system writes one word.
    let found = unsafe { GetModuleHandleExW(flags, at as *const u16, &raw mut image) };
    (found != 0).then_some(image)
}

/// Whether an address is in this program's own code, not in a library.
pub(crate) fn in_own_image(at: usize) -> bool {
    image_of(at).is_some_and(|image| image_of(in_own_image as *const () as usize) == Some(image))
}

/// Bytes that the first thread of a process has on Linux. Here it has an eighth.
const LARGE_STACK: usize = 8 << 20;

/// Calls `f`, which compiles and runs a program, where the stack has room for deep sources.
///
/// # Panics
/// As `f` does; and if the system gives no thread.
pub(crate) fn on_large_stack<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(LARGE_STACK).spawn_scoped(scope, f);
        let thread = thread.unwrap_or_else(|error| panic!("no thread for the compiler: {error}"));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Loads no library: C code has none here.
///
/// # Errors
/// Always.
pub(crate) fn load_library(_path: &str) -> Result<*mut c_void, String> {
    Err(Missing::C.to_string())
}

/// As [`load_library`].
///
/// # Errors
/// Always.
pub(crate) fn load_from_memory(_bytes: &[u8]) -> Result<*mut c_void, String> {
    Err(Missing::C.to_string())
}

/// As [`load_library`].
pub(crate) fn address_in(_library: *mut c_void, _name: &str) -> Option<usize> {
    None
}

/// The profiler of other systems interrupts threads by signals.
pub(crate) mod profile {
    use super::Missing;
    use stackmark::unwind::Code;
    use std::path::Path;
    use std::sync::Arc;

    /// Begins no profile.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn start(_code: &Arc<Code>) -> Result<(), Box<dyn std::error::Error>> {
        Err(Missing::Profiles.into())
    }

    /// Writes nothing.
    pub(crate) fn write(_file: &Path) -> std::io::Result<()> {
        Ok(())
    }
}
