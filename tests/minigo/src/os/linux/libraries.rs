//! Shared objects of C code.

use std::ffi::{CStr, CString, c_void};
use std::io;

/// Loads a shared object from memory: nothing is left behind, and debuggers and tracebacks still
/// find its symbols.
///
/// # Errors
/// What the system says.
pub(crate) fn load_from_memory(bytes: &[u8]) -> Result<*mut c_void, String> {
    // SAFETY: a plain call; the descriptor stays open as long as the process lives.
    let fd = unsafe { libc::memfd_create(c"minigo".as_ptr(), 0) };
    if fd < 0 {
        return Err(format!("memfd_create: {}", io::Error::last_os_error()));
    }
    // Not of `self`: a debugger reads the file by this name, too.
    let path = format!("/proc/{}/fd/{fd}", std::process::id());
    std::fs::write(&path, bytes).map_err(|error| format!("{path}: {error}"))?;
    load_library(&path)
}

/// Loads a shared object, which stays loaded.
///
/// # Errors
/// What the system says.
pub(crate) fn load_library(path: &str) -> Result<*mut c_void, String> {
    let path = CString::new(path).expect("a path without zeroes");
    // SAFETY: its constructors are the program's own C code.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if library.is_null() {
        // SAFETY: dlopen has failed: the text is there.
        return Err(unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy().into_owned());
    }
    Ok(library)
}

/// The address of what has this name in a loaded library.
pub(crate) fn address_in(library: *mut c_void, name: &str) -> Option<usize> {
    let name = CString::new(name).expect("a name without zeroes");
    // SAFETY: libraries stay loaded.
    let at = unsafe { libc::dlsym(library, name.as_ptr()) } as usize;
    (at != 0).then_some(at)
}
