//! Standard output, buffered; and standard error.

use parking_lot::Mutex;
use std::io::Write;

const BUFFER: usize = 64 << 10;

static OUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn write_all(fd: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the bytes are readable.
        let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        if n <= 0 {
            if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted {
                continue;
            }
            return;
        }
        bytes = &bytes[n as usize..];
    }
}

/// Writes to standard output, through the buffer.
pub(crate) fn write(bytes: &[u8]) {
    let mut out = OUT.lock();
    out.extend_from_slice(bytes);
    if out.len() >= BUFFER {
        write_all(1, &out);
        out.clear();
    }
}

/// Writes the buffer out.
pub(crate) fn flush() {
    let mut out = OUT.lock();
    write_all(1, &out);
    out.clear();
    let _ = std::io::stdout().flush();
}

/// Writes to standard error, at once.
pub(crate) fn error(bytes: &[u8]) {
    write_all(2, bytes);
}
