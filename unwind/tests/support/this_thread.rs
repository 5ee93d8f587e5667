//! The calling thread, as the system sees it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::ffi::c_void;

use stackmark_unwind::LiveMemory;

#[repr(C)]
struct Opaque(c_void);

unsafe extern "C" {
    fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut Opaque, *mut c_void) -> i32,
        data: *mut c_void,
    ) -> i32;
    fn _Unwind_GetIP(context: *mut Opaque) -> usize;
    fn _Unwind_GetCFA(context: *mut Opaque) -> usize;
}

extern "C" fn visit(context: *mut Opaque, data: *mut c_void) -> i32 {
    // SAFETY: `system_frames` passes a vector, and the unwinder a valid context.
    unsafe {
        (*data.cast::<Vec<(usize, usize)>>())
            .push((_Unwind_GetIP(context), _Unwind_GetCFA(context)))
    };
    0
}

/// Pc and stack pointer of every frame from the caller of this function on, by the system's
/// unwinder.
#[inline(never)]
pub(crate) fn system_frames() -> Vec<(usize, usize)> {
    let mut frames: Vec<(usize, usize)> = Vec::new();
    // SAFETY: `visit` is such a callback, and expects a vector.
    unsafe { _Unwind_Backtrace(visit, (&raw mut frames).cast()) };
    frames.remove(0);
    frames
}

/// The memory of the calling thread's stack, from the caller of this function on.
pub(crate) fn stack() -> LiveMemory {
    // SAFETY: the first call initialises the attributes, and they are destroyed once. The range is
    // the part of this thread's stack above the current frame, which is mapped.
    unsafe {
        let mut attributes = std::mem::zeroed();
        assert_eq!(libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes), 0);
        let (mut start, mut size) = (std::ptr::null_mut(), 0);
        assert_eq!(
            libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut size),
            0
        );
        libc::pthread_attr_destroy(&raw mut attributes);
        let end = start as usize + size;
        LiveMemory::new((&raw const end as usize).max(start as usize)..end)
    }
}
