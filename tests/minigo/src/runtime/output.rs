//! Standard output and standard error. Both are written at once, as Go does: whatever ends the
//! process, nothing that was printed is lost, and a forked child prints nothing again.

use std::io::{Error, ErrorKind};

/// Writes all of it. Where the reader of a pipe is slow, waits. Other errors are ignored: Go's
/// print functions return them, and programs ignore them.
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

/// Writes to standard output.
pub(crate) fn write(bytes: &[u8]) {
    write_all(1, bytes);
}

/// Writes to standard error.
pub(crate) fn error(bytes: &[u8]) {
    write_all(2, bytes);
}
