//! Calls of C code, and of Go functions from C.

use super::arguments::natives;
use super::fail::{self, RuntimeError};
use super::{host, panic, string};
use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

/// What C calls with the number of an exported function and its argument block.
///
/// # Safety
/// Called by the stubs that the compiler makes for exported functions.
pub(crate) unsafe extern "C-unwind" fn export(number: usize, block: *mut c_void) {
    let thunk = EXPORTS.get().expect("set before C code runs for the program")[number];
    host::call_in(thunk, block as usize);
}

static EXPORTS: OnceLock<Vec<usize>> = OnceLock::new();

/// The addresses of the managed functions by number.
pub(crate) fn set_exports(thunks: Vec<usize>) {
    let _ = EXPORTS.set(thunks);
}

fn copied_to_c(bytes: &[u8], terminated: bool) -> usize {
    // SAFETY: malloc's memory has room for the bytes and the zero.
    unsafe {
        let to = libc::malloc(bytes.len() + 1).cast::<u8>();
        if to.is_null() {
            fail::out_of_memory(&format!("malloc({})", bytes.len() + 1));
        }
        to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        if terminated {
            *to.add(bytes.len()) = 0;
        }
        to as usize
    }
}

/// # Safety
/// So many bytes lie there.
unsafe fn bytes_at<'b>(at: usize, len: usize) -> &'b [u8] {
    // SAFETY: the caller's promise.
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(at as *const u8, len) } }
}

/// errno's text as Go has it.
fn errno_text(error: i32) -> String {
    // SAFETY: strerror gives a C string for any number; it is copied at once.
    let text = unsafe { CStr::from_ptr(libc::strerror(error)) }.to_string_lossy().into_owned();
    if text.starts_with("Unknown error") {
        return format!("errno {error}");
    }
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_lowercase().chain(chars).collect())
}

natives! {
    /// (wrapper, argument block): calls C. Everything may move meanwhile: the block is the
    /// wrapper's business.
    fn foreign_call(a) {
        if let Err(exception) = host::foreign(a.get(0), a.get(1)) {
            panic::raise(RuntimeError::native(exception));
        }
        0
    }

    /// (errno) -> the words of an error, nil for 0, in the result words.
    fn errno_value(a) {
        let (ty, data) = match a.get(0) {
            0 => (0, 0),
            e => fail::error_value(&RuntimeError::errno(errno_text(e as i32))),
        };
        a.set(0, ty);
        a.set(1, data);
        0
    }

    /// `C.CString`.
    fn c_string(a) {
        copied_to_c(a.bytes(0), true)
    }

    /// `C.CBytes`.
    fn c_bytes(a) {
        copied_to_c(a.bytes(0), false)
    }

    /// `C.GoString`.
    fn go_string(a) {
        let bytes = match a.get(0) {
            0 => &[],
            // SAFETY: the program passes a C string.
            at => unsafe { CStr::from_ptr(at as *const c_char) }.to_bytes(),
        };
        string::return_string(&a, &[bytes])
    }

    /// `C.GoStringN`.
    fn go_string_n(a) {
        // SAFETY: the program says how many bytes there are.
        string::return_string(&a, &[unsafe { bytes_at(a.get(0), a.get(1)) }])
    }

    /// `C.GoBytes`.
    fn go_bytes(a) {
        // SAFETY: as above.
        let (at, len) = string::new_string(&[unsafe { bytes_at(a.get(0), a.get(1)) }]);
        a.set(0, at);
        a.set(1, len);
        a.set(2, len);
        0
    }
}
