//! Linux.

mod faults;
mod libraries;
pub(crate) mod profile;

pub(crate) use faults::handle_faults;
pub(crate) use libraries::{address_in, load_from_memory, load_library};

use super::Missing;
use std::ffi::c_void;
use std::io::{Error, ErrorKind};

/// Whether the system has it.
///
/// # Errors
/// None: it has all.
pub(crate) fn has(_what: Missing) -> Result<(), Missing> {
    Ok(())
}

/// Writes all of it. Where the reader of a pipe is slow, waits. Other errors are ignored.
fn write_all(fd: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the bytes are readable.
        let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(n) {
            Ok(n) => bytes = &bytes[n..],
            Err(_) => match Error::last_os_error().kind() {
                ErrorKind::Interrupted => {}
                // The program's surroundings have made the descriptor non-blocking.
                ErrorKind::WouldBlock => {
                    let mut wanted = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
                    // SAFETY: one descriptor. If this fails, the write is tried again.
                    unsafe { libc::poll(&raw mut wanted, 1, -1) };
                }
                _ => return,
            },
        }
    }
}

/// Writes to standard output, without a buffer.
pub(crate) fn write_output(bytes: &[u8]) {
    write_all(1, bytes);
}

/// Writes to standard error, without a lock or a buffer. Signal-safe.
pub(crate) fn write_error(bytes: &[u8]) {
    write_all(2, bytes);
}

/// Ends the process. No destructors run, because other threads still run. Signal-safe.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

/// The address of the loaded image with this address in it.
fn image_of(at: usize) -> Option<usize> {
    // SAFETY: plain data, filled in by the call; any address may be asked for.
    let (found, info) = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        (libc::dladdr(at as *const c_void, &raw mut info), info)
    };
    (found != 0).then_some(info.dli_fbase as usize)
}

/// Whether an address is in this program's own code, not in a library.
pub(crate) fn in_own_image(at: usize) -> bool {
    image_of(at).is_some_and(|base| image_of(in_own_image as *const () as usize) == Some(base))
}

/// Calls `f`, which compiles and runs a program, where the stack has room for deep sources.
pub(crate) fn on_large_stack<R>(f: impl FnOnce() -> R) -> R {
    f()
}
