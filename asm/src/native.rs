//! The primitives of native stacks: managed code on the thread's own stack, native frames between.
//! They switch no stack.

use crate::arch;
use crate::layout::{GoroutineHeader, ManagedFn, NativeFn};
use core::ffi::c_void;

/// Calls managed code `f(argument)` from native code, on the same stack. Its frame keeps the anchor
/// that `goroutine.sched` is, as an [`EntryRecord`](crate::layout::EntryRecord), and restores it
/// when `f` returns or is left by an exception.
///
/// # Safety
/// `goroutine` is what the calling thread's [`current`](crate::current) machine runs. Its managed
/// frames lie on this stack alone, below `stack_hi`. `f` keeps contract C1, and calls native code
/// by [`call_native`]. Native code that leaves the frame by `longjmp` first sets `sched` and
/// `entered` to what the record keeps.
#[inline]
pub unsafe fn enter_managed(
    goroutine: *mut GoroutineHeader,
    f: ManagedFn,
    argument: usize,
) -> usize {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { arch::stackmark_enter_managed(goroutine, f, argument) }
}

/// Calls `f(a, b)` from managed code, on the same stack. Meanwhile `sched` says where the managed
/// caller stands. On the way back, by a return or an exception, the machine's `on_watched` is
/// called first if the goroutine's `watch` lies below the caller's stack pointer. Generated code
/// calls [`call_native_address`] itself.
///
/// # Safety
/// The caller is managed code under [`enter_managed`] on this thread. If `watch` is not
/// `usize::MAX`, the machine has an `on_watched`.
#[inline]
pub unsafe fn call_native(f: NativeFn, a: *mut c_void, b: usize) -> usize {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { arch::stackmark_call_native(f, a, b) }
}

/// [`call_native`] with all callee-saved registers in its frame, for code whose stack maps have
/// register locations.
///
/// # Safety
/// As for [`call_native`].
#[inline]
pub unsafe fn call_native_all(f: NativeFn, a: *mut c_void, b: usize) -> usize {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { arch::stackmark_call_native_all(f, a, b) }
}

/// The address that managed code calls, with the platform's C convention, for `call_native(f, a, b)
/// -> word`.
pub fn call_native_address() -> usize {
    arch::stackmark_call_native as *const () as usize
}

/// The same for [`call_native_all`].
pub fn call_native_all_address() -> usize {
    arch::stackmark_call_native_all as *const () as usize
}
