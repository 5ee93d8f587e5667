//! Functions of loaded libraries.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
    GetModuleHandleA, GetModuleHandleExA, GetProcAddress,
};

/// The function `name` of the loaded library that has the code at `inside`, if it exports it.
pub(crate) fn function_of_library(inside: *const c_void, name: &CStr) -> Option<*mut c_void> {
    let flags =
        GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    let mut library = ptr::null_mut();
    // SAFETY: the system looks the address up, and writes one word. The code at `inside` keeps the
    // library loaded.
    unsafe {
        if inside.is_null() || GetModuleHandleExA(flags, inside.cast(), &raw mut library) == 0 {
            return None;
        }
        GetProcAddress(library, name.as_ptr().cast()).map(|found| found as *mut c_void)
    }
}

/// A function of the `longjmp` family.
pub(crate) type LongJump = unsafe extern "C-unwind" fn(*mut c_void, c_int) -> !;

/// The C library's function of this name, where this program has one of its own.
pub(crate) fn next_longjmp(name: &CStr) -> LongJump {
    // SAFETY: a plain look-up; a function of this name has this type.
    unsafe {
        let library = GetModuleHandleA(c"msvcrt.dll".as_ptr().cast());
        let found = GetProcAddress(library, name.as_ptr().cast());
        let found = found.unwrap_or_else(|| panic!("the C library has no {name:?}"));
        std::mem::transmute::<unsafe extern "system" fn() -> isize, LongJump>(found)
    }
}
