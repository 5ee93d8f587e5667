//! The primitives that change the stack.

use crate::arch::{self, Continuation};
#[cfg(stackmark_asan)]
use crate::asan;
use crate::layout::{CaughtFn, ContinueFn, GoroutineHeader, MachineHeader, ManagedFn, NativeFn};
use crate::pcs;
use core::ffi::c_void;
use core::sync::atomic::Ordering::Relaxed;

/// Builds the frames of a goroutine that has not run yet at `stack_hi` and sets `sched` to them.
///
/// # Safety
/// `stack_hi` is 16-aligned. The caller owns the [`PREPARED_BYTES`](crate::PREPARED_BYTES) below
/// it, which are writable, and the goroutine, which no machine runs.
pub unsafe fn prepare(goroutine: &GoroutineHeader) {
    // SAFETY: the caller's contract is the same.
    let sp = unsafe { arch::write_first_frames(goroutine) };
    goroutine.sched.pc.store(pcs::resume_pc(), Relaxed);
    goroutine.sched.sp.store(sp, Relaxed);
    goroutine.sched.fp.store(0, Relaxed);
}

/// Runs a goroutine from where its `sched` stands until it [`leave`]s or [switches
/// out](switch_out_address); returns the value given there.
///
/// Inlined, and best called from the scheduler's loop itself: then the processor predicts every
/// return (the idea is corosensei's).
///
/// # Safety
/// `machine` is the calling thread's [`current`](crate::current) machine, and runs no goroutine.
/// `sched` describes a parked or [`prepare`]d goroutine whose stack lies at `stack_hi`. No other
/// machine runs it.
#[inline(always)]
pub unsafe fn run(machine: *mut MachineHeader, goroutine: *mut GoroutineHeader) -> usize {
    // SAFETY: the caller's contract is that of the assembly.
    #[cfg(not(stackmark_tsan))]
    unsafe {
        run_announced(machine, goroutine)
    }
    // SAFETY: as above, with one argument that the function does not take.
    #[cfg(stackmark_tsan)]
    unsafe {
        let f = run_out_of_line as *const ();
        arch::stackmark_rewound(f, machine as usize, goroutine as usize, 0)
    }
}

/// Runs a goroutine, and announces both switches of stacks to AddressSanitizer where that is on. A
/// goroutine that comes back by way of [`leave`] has announced the second one before; then the call
/// here does nothing.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn run_announced(machine: *mut MachineHeader, goroutine: *mut GoroutineHeader) -> usize {
    // SAFETY: this thread is about to go on with the goroutine.
    #[cfg(stackmark_asan)]
    unsafe {
        asan::stackmark_asan_to_goroutine(goroutine);
    }
    // SAFETY: the caller's contract is that of the assembly.
    let left = unsafe { arch::run(machine, goroutine) };
    // SAFETY: this thread has left the goroutine, which no other goes on with before the return.
    #[cfg(stackmark_asan)]
    unsafe {
        asan::stackmark_asan_to_system(goroutine);
    }
    left
}

/// [`run_announced`] as a function that can be called through its address.
///
/// # Safety
/// As for [`run`].
#[cfg(stackmark_tsan)]
unsafe extern "C-unwind" fn run_out_of_line(
    machine: *mut MachineHeader,
    goroutine: *mut GoroutineHeader,
) -> usize {
    // SAFETY: the caller's contract is the same.
    unsafe { run_announced(machine, goroutine) }
}

/// Leaves the goroutine that called out and goes back to the scheduler: [`run`] returns `value`.
///
/// The native frames between the call out and here are dropped without running destructors.
///
/// # Safety
/// `machine` is the calling thread's [`current`](crate::current) machine and runs a goroutine that
/// called out. No frame in between owns anything that must be released.
#[inline]
pub unsafe fn leave(machine: *mut MachineHeader, value: usize) -> ! {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { arch::stackmark_leave(machine, value) }
}

/// Calls `f(a, b)` on the system stack, from managed code. Generated code calls
/// [`call_system_address`] itself.
///
/// # Safety
/// The caller runs on the stack of the goroutine that the current machine runs.
#[inline]
pub unsafe fn call_system(f: NativeFn, a: *mut c_void, b: usize) -> usize {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { arch::stackmark_call_system(f, a, b) }
}

/// The address that managed code calls, with the platform's C convention, for `call_system(f, a, b)
/// -> word`.
pub fn call_system_address() -> usize {
    arch::stackmark_call_system as *const () as usize
}

/// The address that managed code calls for `switch_out(value) -> word`: it leaves its goroutine
/// without calling a native function. [`run`] returns `value`. When the goroutine goes on, the call
/// returns what is in `resume_value`; meanwhile the goroutine stands in a frame that counts as one
/// of `call_system`. In a callback, whose native caller keeps its thread, the call returns `value`
/// at once.
///
/// Argument and result travel as by the platform's C convention, but the call keeps only the stack
/// pointer, the frame pointer and, on architectures that Cranelift knows, the register that it
/// pins: the caller spills whatever else it needs. That is Cranelift's `CallConv::Winch` (with or
/// without a pinned register), or LLVM's `preserve_none` around a thunk that moves the argument.
/// The call is a safepoint.
pub fn switch_out_address() -> usize {
    arch::stackmark_switch_out as *const () as usize
}

/// Calls managed code `f(argument)` from native code, on the goroutine's stack below the frame that
/// called out.
///
/// # Safety
/// The calling thread's machine runs `goroutine`, which has called out to the caller; its stack has
/// [`CALLBACK_FRAME_BYTES`](crate::CALLBACK_FRAME_BYTES) below `sched.sp`. `f` keeps contract C1.
#[inline]
pub unsafe fn callback(goroutine: *mut GoroutineHeader, f: ManagedFn, argument: usize) -> usize {
    // SAFETY: the caller's contract is that of the assembly.
    #[cfg(not(stackmark_tsan))]
    unsafe {
        arch::stackmark_callback(goroutine, f, argument)
    }
    // SAFETY: as above.
    #[cfg(stackmark_tsan)]
    unsafe {
        let callback = arch::stackmark_callback as *const ();
        arch::stackmark_rewound(callback, goroutine as usize, f as usize, argument)
    }
}

/// Leaves the callback whose part on the goroutine's stack lies at `frame`, as a return from it
/// would, and calls `f(argument)` on the system stack as if the callback's native caller had called
/// it. Younger frames are dropped.
///
/// # Safety
/// The calling thread's machine runs a goroutine that has called out to the caller; `frame` is the
/// stack pointer of the youngest `callback` frame on its stack. No frame in between owns anything
/// that must be released.
pub unsafe fn leave_callback_by(f: ContinueFn, argument: *mut c_void, frame: usize) -> ! {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { arch::stackmark_leave_callback_by(f, argument, frame) }
}

/// Goes on in a managed frame of the goroutine that this thread's machine runs. Younger frames are
/// dropped.
///
/// # Safety
/// `at` is a place in the code of a managed frame, with the registers that the frame expects there.
/// No `callback` frame and nothing that must be released is younger.
pub unsafe fn continue_at(at: &Continuation) -> ! {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { arch::stackmark_continue(at) }
}

/// Calls `f(argument)`; returns null, or the `_Unwind_Exception` that has left it. Forced unwinding
/// passes.
///
/// # Safety
/// `f` may be called with `argument`, and may be left by exceptions.
pub unsafe fn catch(f: CaughtFn, argument: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { arch::stackmark_catch(f, argument) }
}
