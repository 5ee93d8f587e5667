//! Linux: functions of these names in the program are called instead of the C library's.

use crate::{ATTEMPTS, MAPPED, MEMORY, THREADS};
use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// What a thread that is refused is an error of.
pub(crate) const NO_THREAD: std::io::ErrorKind = std::io::ErrorKind::WouldBlock;

/// They are called from the beginning.
pub(crate) fn stand_in_front() {}

/// How many threads the process has.
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("of Linux").count()
}

/// The C library's function that ours stands in front of.
fn real(name: &std::ffi::CStr) -> *mut c_void {
    // SAFETY: looks a name up.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast::<c_char>()) };
    assert!(!found.is_null(), "{name:?}");
    found
}

type Start = extern "C" fn(*mut c_void) -> *mut c_void;
type Create = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    Start,
    *mut c_void,
) -> c_int;

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    ATTEMPTS.fetch_add(1, SeqCst);
    if THREADS.refuses() {
        return libc::EAGAIN;
    }
    // SAFETY: the function of that name, with its arguments.
    unsafe {
        std::mem::transmute::<*mut c_void, Create>(real(c"pthread_create"))(
            thread, attributes, start, argument,
        )
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    address: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    if MEMORY.refuses() {
        // SAFETY: this thread's own word.
        unsafe { *libc::__errno_location() = libc::ENOMEM };
        return libc::MAP_FAILED;
    }
    // SAFETY: the same function.
    unsafe { map(address, len, protection, flags, file, offset) }
}

/// The standard library's name for it: what a new thread needs is not refused.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap64(
    address: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: i64,
) -> *mut c_void {
    // SAFETY: the same function.
    unsafe { map(address, len, protection, flags, file, offset) }
}

/// # Safety
/// As the C library's `mmap`.
unsafe fn map(
    address: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: impl Into<i64>,
) -> *mut c_void {
    #[cfg(target_pointer_width = "64")]
    let (number, offset) = (libc::SYS_mmap, offset.into());
    // The system takes an offset in units of 4096 bytes there.
    #[cfg(target_pointer_width = "32")]
    let (number, offset) = (libc::SYS_mmap2, (offset.into() >> 12) as libc::c_long);
    // SAFETY: the system call that the C library's function is.
    let at = unsafe { libc::syscall(number, address, len, protection, flags, file, offset) };
    if at != -1 {
        MAPPED.fetch_add(len as i64, Relaxed);
    }
    at as *mut c_void
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(address: *mut c_void, len: usize) -> c_int {
    // SAFETY: the system call that the C library's function is.
    let unmapped = unsafe { libc::syscall(libc::SYS_munmap, address, len) };
    if unmapped == 0 {
        MAPPED.fetch_sub(len as i64, Relaxed);
    }
    unmapped as c_int
}
