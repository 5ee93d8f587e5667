//! The frames of the current goroutine and of its thread.

use super::world::fatal;
use crate::code::Role;
use crate::runtime::traceback;
use stackmark::stack::Caller;
use stackmark::unwind::FrameKind;
use std::ops::ControlFlow;

/// Where a managed frame stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// How far its stack pointer lies below the top of the stack.
    pub(crate) depth: usize,
    /// Where its call returns to.
    pub(crate) pc: usize,
}

/// Calls `visit` for each managed frame of the current goroutine, youngest first, until it returns
/// false.
pub(crate) fn each_frame(mut visit: impl FnMut(Place, Role) -> bool) {
    // SAFETY: used here alone.
    let caller = unsafe { Caller::current() };
    let walked = caller.frames(|frame| {
        let go_on = frame.kind != FrameKind::Managed
            || visit(Place { depth: frame.depth, pc: frame.pc }, traceback::role(frame.pc - 1));
        if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if let Err(error) = walked {
        fatal(&error)
    }
}

/// The managed frame that has called the running native.
pub(crate) fn calling_frame() -> Place {
    let mut found = None;
    each_frame(|frame, _| {
        found = Some(frame);
        false
    });
    found.expect("natives are called by managed code")
}

/// The frame of the function with which the current goroutine has started; none if native code
/// began it.
pub(crate) fn starting_frame() -> Option<Place> {
    let mut last = None;
    // SAFETY: used here alone.
    let caller = unsafe { Caller::current() };
    // The frames may be many, and the world does not wait for a foreign call.
    caller.foreign(|| {
        each_frame(|frame, role| {
            last = (role == Role::Start).then_some(frame);
            true
        });
    });
    last
}

/// Leaves the frames younger than the one at `depth`, whose call returns `value` at `pc`.
///
/// # Safety
/// As for [`Caller::unwind_to`].
pub(crate) unsafe fn unwind_to(depth: usize, pc: usize, value: usize) -> ! {
    // SAFETY: the caller's promise.
    let error = unsafe { Caller::current().unwind_to(depth, pc, [value, 0]) };
    fatal(&error)
}

/// Calls `visit` for each frame of this thread, on all its stacks, with an address in the
/// instruction that it stands at.
pub(crate) fn full_backtrace(visit: impl FnMut(usize) -> ControlFlow<()>) {
    stackmark::stack::full_backtrace(visit);
}
