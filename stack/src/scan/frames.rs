//! The frames of a stack, as the embedder sees them.

use super::live::{ScanError, walker};
use crate::goroutine::Goroutine;
use crate::runtime::Runtime;
use stackmark_unwind::{Frame, FrameKind};
use std::ops::ControlFlow;

/// One frame of a goroutine's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameAt {
    /// The kind of the frame.
    pub kind: FrameKind,
    /// The return address in the frame's function: its function is that of the byte before.
    pub pc: usize,
    /// The depth of the frame's stack pointer: its distance from the high end of the stack, in
    /// bytes. [`Caller::unwind_to`](crate::Caller::unwind_to) takes it. A move of the stack does
    /// not change it.
    pub depth: usize,
    /// The depth of the frame's CFA, which is the stack pointer of its calling frame. It names the
    /// frame from its prologue to its return.
    pub cfa_depth: usize,
}

impl FrameAt {
    /// A frame of the stack with this high end.
    fn of(frame: &Frame<'_>, hi: usize) -> FrameAt {
        FrameAt { kind: frame.kind, pc: frame.pc, depth: hi - frame.sp, cfa_depth: hi - frame.cfa }
    }
}

/// Calls `visit` for each frame, youngest first, until it breaks.
///
/// # Errors
/// [`ScanError`]: the walk ends early.
///
/// # Safety
/// The goroutine stands still during the call.
pub(crate) unsafe fn frames(
    runtime: &Runtime,
    goroutine: &Goroutine,
    mut visit: impl FnMut(FrameAt) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let snapshot = runtime.code.snapshot();
    let hi = goroutine.bounds().end;
    // SAFETY: by our contract.
    let mut walk = unsafe { walker(&snapshot, goroutine) };
    let fail = |error| ScanError { goroutine: goroutine.id(), error };
    while let Some(frame) = walk.next_frame().map_err(fail)? {
        if visit(FrameAt::of(&frame, hi)).is_break() {
            break;
        }
    }
    Ok(())
}

/// The youngest frame that has this word in a slot of its safepoint.
///
/// # Errors
/// [`ScanError`]: the walk ends early.
///
/// # Safety
/// The goroutine stands still during the call.
pub(crate) unsafe fn frame_with(
    runtime: &Runtime,
    goroutine: &Goroutine,
    word: usize,
) -> Result<Option<FrameAt>, ScanError> {
    let snapshot = runtime.code.snapshot();
    let hi = goroutine.bounds().end;
    // SAFETY: by our contract.
    let mut walk = unsafe { walker(&snapshot, goroutine) };
    let fail = |error| ScanError { goroutine: goroutine.id(), error };
    while let Some(frame) = walk.next_frame().map_err(fail)? {
        // SAFETY: the walker has checked that the frame lies within the stack, and registration
        // that the slots of a safepoint lie within its frame.
        let has = frame.slots().any(|slot| unsafe { *(slot as *const usize) } == word);
        if has {
            return Ok(Some(FrameAt::of(&frame, hi)));
        }
    }
    Ok(None)
}
