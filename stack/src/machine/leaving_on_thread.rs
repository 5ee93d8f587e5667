//! Leaving frames of a native stack for an older managed frame.
//!
//! `_Unwind_ForcedUnwind` unwinds native and managed frames alike. The landing pads of the
//! assembly's frames do what returns would do, barriers that are passed are settled, and
//! destructors run. It stops at the frame to continue in, with the registers of that frame.

use super::caller::Caller;
use super::leaving::{
    _Unwind_ForcedUnwind, Exception, Forced, UA_END_OF_STACK, URC_NO_REASON, UnwindToError,
};
use crate::protocol::Status;
use crate::scan;
use stackmark_asm::unwinding::{ClassArgument, FORCES_ALL, context_pc, context_sp, is_end};
use stackmark_asm::{self as asm, Continuation, barrier};
use stackmark_unwind::Registers;
use std::ffi::{c_int, c_void};

/// Told to `_Unwind_Backtrace` when the frame is found: `_URC_NORMAL_STOP`.
const URC_NORMAL_STOP: c_int = 4;

unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        visit: unsafe extern "C-unwind" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
}

/// The system's unwinder has not come to a frame that it has come to before.
#[derive(Debug, thiserror::Error)]
#[error("frames are being left for the one at depth {depth:#x}, and the unwinder has ended")]
struct Ended {
    depth: usize,
}

impl Caller<'_> {
    /// Checks that there is a managed frame at `depth`, and that the system's unwinder comes to it.
    ///
    /// # Errors
    /// [`UnwindToError`].
    pub(super) fn check_way_on_thread(&self, depth: usize) -> Result<(), UnwindToError> {
        let goroutine = self.goroutine().id();
        if !self.has_managed_frame(depth)? {
            return Err(UnwindToError::NoFrame { goroutine, depth });
        }
        if !FORCES_ALL || !comes_to(self.goroutine().bounds().end - depth) {
            return Err(UnwindToError::NoUnwindTables { goroutine, depth });
        }
        Ok(())
    }

    /// Unwinds to the frame that `forced` names, of which [`Caller::check_way_on_thread`] knows.
    ///
    /// # Safety
    /// As for [`Caller::unwind_to`]. `forced` is from `Box::into_raw`.
    pub(super) unsafe fn unwind_on_thread(self, forced: *mut Forced) -> ! {
        // SAFETY: our contract. The exception is the box's first field.
        let depth = unsafe {
            _Unwind_ForcedUnwind(forced.cast(), stop, forced.cast());
            (*forced).depth
        };
        self.runtime().fatal(&Ended { depth })
    }
}

/// Whether the frame of the context is the one with this stack pointer. A barrier's stub has the
/// same one as the frame behind it.
///
/// # Safety
/// `context` is the unwinder's.
unsafe fn is_at(context: *mut c_void, target: usize) -> bool {
    // SAFETY: our contract.
    let (pc, sp) = unsafe { (context_pc(context), context_sp(context)) };
    sp == target && !barrier::pool().contains(&(pc - 1))
}

/// Whether the system's unwinder comes to the frame with this stack pointer.
fn comes_to(target: usize) -> bool {
    /// # Safety
    /// Called by the unwinder with a pointer to the stack pointer, which is 0 afterwards.
    unsafe extern "C-unwind" fn each(context: *mut c_void, target: *mut c_void) -> c_int {
        let target = target.cast::<usize>();
        // SAFETY: our contract.
        unsafe {
            if !is_at(context, *target) {
                return URC_NO_REASON;
            }
            *target = 0;
        }
        URC_NORMAL_STOP
    }
    let mut target = target;
    // SAFETY: the word outlives the call.
    unsafe { _Unwind_Backtrace(each, (&raw mut target).cast()) };
    target == 0
}

/// The stack pointer of the thread's oldest frame. `None` if the system's unwinder does not come to
/// it from here.
pub(super) fn oldest_frame() -> Option<usize> {
    #[derive(Default)]
    struct Seen {
        sp: usize,
        /// The unwinder has come to the end, where there is no pc.
        all: bool,
    }
    /// # Safety
    /// Called by the unwinder with a pointer to a [`Seen`].
    unsafe extern "C-unwind" fn each(context: *mut c_void, seen: *mut c_void) -> c_int {
        // SAFETY: our contract.
        unsafe {
            let seen = &mut *seen.cast::<Seen>();
            seen.sp = seen.sp.max(context_sp(context));
            seen.all = is_end(context);
        }
        URC_NO_REASON
    }
    let mut seen = Seen::default();
    // SAFETY: the value outlives the call.
    unsafe { _Unwind_Backtrace(each, (&raw mut seen).cast()) };
    seen.all.then_some(seen.sp)
}

/// Called for each frame before the frame is cleaned up.
///
/// # Safety
/// Called by the unwinder, with a [`Forced`] as the last argument.
unsafe extern "C-unwind" fn stop(
    _version: c_int,
    actions: c_int,
    _class: ClassArgument,
    _exception: *mut Exception,
    context: *mut c_void,
    forced: *mut c_void,
) -> c_int {
    let forced = forced.cast::<Forced>();
    // SAFETY: forced unwinding happens on threads that run a goroutine. Not used beyond this
    // function.
    let (caller, depth) = unsafe { (Caller::current(), (*forced).depth) };
    let (runtime, goroutine) = (caller.runtime(), caller.goroutine());
    // SAFETY: the unwinder's context.
    let pc = unsafe { context_pc(context) };
    if goroutine.status.is_foreign() && asm::call_native_range().contains(&(pc - 1)) {
        // Native code has begun a foreign call that no destructor ends.
        caller.record.foreign_calls.remove();
        caller.record.back_inside(goroutine, Status::Foreign);
    }
    // SAFETY: as above.
    if !unsafe { is_at(context, goroutine.bounds().end - depth) } {
        if actions & UA_END_OF_STACK != 0 {
            runtime.fatal(&Ended { depth });
        }
        // SAFETY: the box of the unwinding under way, which nothing else uses meanwhile.
        unsafe { (*forced).kept.pass() };
        return URC_NO_REASON;
    }
    // SAFETY: the box is not used any more. The unwinder knows all registers that a function keeps.
    let continuation = unsafe {
        let Forced { pc: pad, values, kept, .. } = *Box::from_raw(forced);
        let register = |number| Some(kept.word(context, number));
        Continuation::new(pad, context_sp(context), values, register)
    };
    let continuation = continuation.expect("every register is known");
    caller.let_go();
    let registers = Registers { pc, sp: continuation.sp(), fp: continuation.fp() };
    scan::leave_frames(runtime, goroutine, registers);
    // SAFETY: the frame is managed and stands at the call that returns to `pc`. Every younger frame
    // has been cleaned up, but for those of the unwinder, which own nothing.
    unsafe { asm::continue_at(&continuation) }
}
