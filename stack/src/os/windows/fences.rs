//! The fence of all threads.

use std::io;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Threading::FlushProcessWriteBuffers;

/// False: the system has no such fence. In wine the call does nothing, at least up to version 8, so
/// that runs under wine show nothing of light fences.
pub(crate) fn prepare_fence_of_all_threads() -> bool {
    // SAFETY: look-ups by C strings.
    let wine = unsafe {
        let system = GetModuleHandleA(c"ntdll.dll".as_ptr().cast());
        GetProcAddress(system, c"wine_get_version".as_ptr().cast())
    };
    wine.is_none()
}

/// Makes every running thread of the process execute a full fence before this returns.
///
/// # Errors
/// None: the system refuses it to no process.
pub(crate) fn fence_all_threads() -> io::Result<()> {
    // SAFETY: the call touches no memory of ours.
    unsafe { FlushProcessWriteBuffers() };
    Ok(())
}

/// As [`fence_all_threads`], which is never refused.
///
/// # Errors
/// None.
pub(crate) fn visit_all_processors() -> io::Result<()> {
    fence_all_threads()
}
