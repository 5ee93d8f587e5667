//! Frames that no rule describes: code of a JIT without CFI, assembler without directives.

use std::fmt;

use crate::arch::{FRAME_POINTER, FRAME_RECORD, PC, STACK_POINTER, WORD};
use crate::memory::Memory;
use crate::registers::RegisterSet;

/// Finds the callers of frames whose pc nothing describes: see
/// [`Unwinder::undescribed`](crate::Unwinder::undescribed).
pub trait UndescribedFrames {
    /// The registers of the caller of a frame, as far as they are known: the pc and the stack
    /// pointer at least. The pc is a return address; 0 for the oldest frame. `None` if the caller
    /// cannot be found. `frame` has what is known of the frame's own registers.
    ///
    /// A walk in a signal handler calls this there.
    fn caller(&self, frame: &RegisterSet, memory: &dyn Memory) -> Option<RegisterSet>;
}

impl<F: Fn(&RegisterSet, &dyn Memory) -> Option<RegisterSet>> UndescribedFrames for F {
    fn caller(&self, frame: &RegisterSet, memory: &dyn Memory) -> Option<RegisterSet> {
        self(frame, memory)
    }
}

/// Takes it that such a frame keeps a frame record, as the code of many JIT compilers does: the
/// frame pointer points to the caller's, and the return address lies above that. The record must
/// lie in the walked memory, not below the stack pointer.
///
/// A frame that has not set up its record yet, or has none, is skipped together with its caller, or
/// ends the walk.
#[derive(Clone, Copy, Debug, Default)]
pub struct FramePointers;

impl UndescribedFrames for FramePointers {
    fn caller(&self, frame: &RegisterSet, memory: &dyn Memory) -> Option<RegisterSet> {
        let record = frame.get(FRAME_POINTER)?;
        if record < frame.sp() || !record.is_multiple_of(WORD) {
            return None;
        }
        let [fp, return_address] = memory.read_two(record)?;
        let mut caller = RegisterSet::unknown();
        caller.set(PC, return_address);
        caller.set(STACK_POINTER, record.checked_add(FRAME_RECORD)?);
        caller.set(FRAME_POINTER, fp);
        Some(caller)
    }
}

/// What an unwinder asks, if anything.
#[derive(Clone, Copy)]
pub(crate) struct Hook<'t>(pub(crate) Option<&'t dyn UndescribedFrames>);

impl fmt::Debug for Hook<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a hook" } else { "no hook" })
    }
}
