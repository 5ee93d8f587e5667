//! Threads: their stacks, numbers, times and ends.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::SystemServices::DLL_THREAD_DETACH;
use windows_sys::Win32::System::Threading::{
    GetCurrentThread, GetCurrentThreadId, GetCurrentThreadStackLimits, GetThreadTimes,
    TLS_OUT_OF_INDEXES, TlsAlloc, TlsGetValue, TlsSetValue,
};

/// The addresses of the calling thread's stack.
pub(crate) fn thread_stack() -> Range<usize> {
    let (mut low, mut high) = (0, 0);
    // SAFETY: the system writes the two words.
    unsafe { GetCurrentThreadStackLimits(&raw mut low, &raw mut high) };
    low..high
}

/// Bytes of a new thread's stack. They are reserved only.
pub(crate) fn default_thread_stack() -> usize {
    8 << 20
}

/// How long the calling thread has run on a processor, in nanoseconds; `None` where the system does
/// not say.
pub(crate) fn thread_time() -> Option<u64> {
    let mut times = [FILETIME::default(); 4];
    let [created, ended, kernel, user] = &mut times;
    // SAFETY: the system writes the four times.
    let got = unsafe { GetThreadTimes(GetCurrentThread(), created, ended, kernel, user) };
    let ticks =
        |time: &FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    (got != 0).then(|| (ticks(kernel) + ticks(user)) * 100)
}

/// The system's number of the calling thread.
pub(crate) fn this_thread() -> i32 {
    // SAFETY: the call only asks.
    unsafe { GetCurrentThreadId() as i32 }
}

/// A destructor that is called at the end of a thread with the value of [`set_thread_end`].
pub(crate) type ThreadEnd = unsafe extern "C" fn(*mut c_void);

/// The index of the values, and the destructor.
static THREAD_END: OnceLock<(u32, ThreadEnd)> = OnceLock::new();

fn set_value(index: u32, value: *const c_void) {
    // SAFETY: the index has been made.
    let set = unsafe { TlsSetValue(index, value) };
    assert_ne!(set, 0, "TlsSetValue: {}", io::Error::last_os_error());
}

/// Arranges for `destructor(value)` at the end of this thread, also by `ExitThread`. It runs after
/// the destructors of thread-locals, because code that runs after those may call in. All calls in a
/// process pass the same destructor.
pub(crate) fn set_thread_end(value: *const c_void, destructor: ThreadEnd) {
    let (index, _) = *THREAD_END.get_or_init(|| {
        // SAFETY: the call asks for nothing.
        let index = unsafe { TlsAlloc() };
        assert_ne!(index, TLS_OUT_OF_INDEXES, "TlsAlloc: {}", io::Error::last_os_error());
        (index, destructor)
    });
    set_value(index, value);
}

/// Undoes [`set_thread_end`] for this thread.
pub(crate) fn clear_thread_end() {
    if let Some((index, _)) = THREAD_END.get() {
        set_value(*index, ptr::null());
    }
}

/// The system calls what is in these sections, in the order of their names: thread-locals of Rust
/// have `.CRT$XLB`, those of C++ `.CRT$XLD`. The callbacks of FlsAlloc would come before both.
#[used]
#[unsafe(link_section = ".CRT$XLY")]
static AT_THREAD_END: unsafe extern "system" fn(*mut c_void, u32, *mut c_void) = at_thread_end;

unsafe extern "system" fn at_thread_end(_image: *mut c_void, why: u32, _: *mut c_void) {
    if why != DLL_THREAD_DETACH {
        return;
    }
    let Some((index, destructor)) = THREAD_END.get() else { return };
    loop {
        // SAFETY: the index has been made.
        let value = unsafe { TlsGetValue(*index) };
        if value.is_null() {
            return;
        }
        set_value(*index, ptr::null());
        // SAFETY: a value of `set_thread_end`, with its destructor, which may set another one.
        unsafe { destructor(value) };
    }
}
