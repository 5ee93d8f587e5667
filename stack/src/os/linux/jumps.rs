//! `longjmp` of glibc.

use std::ffi::{CStr, c_int, c_void};

/// A function of the `longjmp` family.
pub(crate) type LongJump = unsafe extern "C-unwind" fn(*mut c_void, c_int) -> !;

/// The C library's function of this name, where this program has one of its own.
pub(crate) fn next_longjmp(name: &CStr) -> LongJump {
    // SAFETY: a plain look-up; a function of this name has this type.
    unsafe {
        let found = libc::dlsym(libc::RTLD_NEXT, name.as_ptr());
        assert!(!found.is_null(), "the C library has no {name:?}");
        std::mem::transmute::<*mut c_void, LongJump>(found)
    }
}
