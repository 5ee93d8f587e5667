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
}
#[cfg(not(target_arch = "arm"))]
unsafe extern "C" {
    fn _Unwind_GetIP(context: *mut Opaque) -> usize;
    fn _Unwind_GetCFA(context: *mut Opaque) -> usize;
    fn _Unwind_GetGR(context: *mut Opaque, register: i32) -> usize;
}

/// What headers define on armv7, by the function of the exception-handling ABI.
#[cfg(target_arch = "arm")]
#[allow(non_snake_case, reason = "they are named so elsewhere")]
mod by_header {
    use super::{Opaque, c_void};

    unsafe extern "C" {
        fn _Unwind_VRS_Get(
            context: *mut Opaque,
            class: i32,
            register: u32,
            representation: i32,
            word: *mut c_void,
        ) -> i32;
    }

    /// # Safety
    /// The context is the unwinder's.
    pub(super) unsafe fn _Unwind_GetGR(context: *mut Opaque, register: i32) -> usize {
        let mut word = 0_usize;
        // SAFETY: our contract; class 0 is that of the core's registers, as words.
        unsafe {
            _Unwind_VRS_Get(context, 0, register as u32, 0, (&raw mut word).cast());
        }
        word
    }

    /// # Safety
    /// The context is the unwinder's.
    pub(super) unsafe fn _Unwind_GetIP(context: *mut Opaque) -> usize {
        // SAFETY: our contract.
        unsafe { _Unwind_GetGR(context, 15) & !1 }
    }

    /// # Safety
    /// The context is the unwinder's.
    pub(super) unsafe fn _Unwind_GetCFA(context: *mut Opaque) -> usize {
        // SAFETY: our contract.
        unsafe { _Unwind_GetGR(context, 13) }
    }
}
#[cfg(target_arch = "arm")]
use by_header::{_Unwind_GetCFA, _Unwind_GetGR, _Unwind_GetIP};

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

/// The numbers of the callee-saved registers that are integer ones.
#[cfg(target_arch = "x86_64")]
const CALLEE_SAVED: [u16; 6] = [3, 6, 12, 13, 14, 15];
#[cfg(target_arch = "x86")]
const CALLEE_SAVED: [u16; 4] = [3, 5, 6, 7];
#[cfg(target_arch = "aarch64")]
const CALLEE_SAVED: [u16; 11] = [19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29];
#[cfg(target_arch = "arm")]
const CALLEE_SAVED: [u16; 8] = [4, 5, 6, 7, 8, 9, 10, 11];

/// A frame as the system's unwinder sees it.
pub(crate) struct SystemFrame {
    pub(crate) pc: usize,
    /// Numbers and values of the callee-saved registers.
    pub(crate) registers: [(u16, usize); CALLEE_SAVED.len()],
}

extern "C" fn visit_registers(context: *mut Opaque, data: *mut c_void) -> i32 {
    // SAFETY: `system_registers` passes a vector, and the unwinder a valid context, which has all
    // callee-saved registers.
    unsafe {
        let registers = CALLEE_SAVED.map(|number| (number, _Unwind_GetGR(context, number.into())));
        let pc = _Unwind_GetIP(context);
        (*data.cast::<Vec<SystemFrame>>()).push(SystemFrame { pc, registers });
    }
    0
}

/// Every frame from the caller of this function on, by the system's unwinder.
#[inline(never)]
pub(crate) fn system_registers() -> Vec<SystemFrame> {
    let mut frames: Vec<SystemFrame> = Vec::new();
    // SAFETY: `visit_registers` is such a callback, and expects a vector.
    unsafe { _Unwind_Backtrace(visit_registers, (&raw mut frames).cast()) };
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
