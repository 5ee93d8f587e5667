//! The frames of another goroutine, while it stands still.

use crate::goroutine::Goroutine;
use crate::machine::{Caller, write_lines};
use crate::protocol::Status;
use crate::runtime::{Runtime, assert_no_lock};
use crate::scan::{self, FrameAt, ScanError};
use stackmark_unwind::FrameKind;
use std::fmt::Write;
use std::ops::ControlFlow;

impl Runtime {
    /// The frames of a goroutine that stands still, youngest first, at most `limit` of them. `None`
    /// if the goroutine runs on another thread, has ended, or belongs to another runtime.
    ///
    /// # Errors
    /// [`ScanError`]: the stack cannot be walked.
    ///
    /// # Panics
    /// As [`Runtime::scan_frozen`].
    pub fn frames(
        &self,
        goroutine: &Goroutine,
        limit: usize,
    ) -> Result<Option<Vec<FrameAt>>, ScanError> {
        assert_no_lock("Runtime::frames");
        if !self.owns(goroutine) {
            return Ok(None);
        }
        let mut frames = Vec::new();
        let visit = |frame| {
            if frames.len() < limit {
                frames.push(frame);
            }
            if frames.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        // SAFETY: used within this function alone.
        if let Some(caller) = unsafe { Caller::try_current() }
            && std::ptr::eq(caller.goroutine(), goroutine)
        {
            // The goroutine stands in its call out on this thread, and need not be held.
            caller.frames(visit)?;
            return Ok(Some(frames));
        }
        let Ok(held) = goroutine.hold() else { return Ok(None) };
        // SAFETY: the goroutine is held.
        unsafe { scan::frames(self, goroutine, visit)? };
        drop(held);
        Ok(Some(frames))
    }

    /// `goroutine N [STATUS]:` and the functions of its managed frames, innermost first, in the
    /// form of [`traceback`](crate::traceback), which is for the calling thread and has native
    /// frames, too. Of a goroutine that runs on another thread there are no frames, and the text
    /// says so. The status is one of `runnable`, `running`, `parked`, `foreign` and `dead`.
    ///
    /// The goroutine does not run on while its stack is walked.
    ///
    /// # Errors
    /// [`ScanError`]: the stack cannot be walked.
    ///
    /// # Panics
    /// If the goroutine belongs to another runtime, and as [`Runtime::frames`].
    pub fn traceback_of(&self, goroutine: &Goroutine) -> Result<String, ScanError> {
        self.assert_own(goroutine);
        let status = match goroutine.status() {
            Status::Runnable => "runnable",
            Status::Running => "running",
            Status::Parked => "parked",
            Status::Foreign => "foreign",
            Status::Dead => "dead",
        };
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(text, "goroutine {} [{status}]:", goroutine.id());
        let Some(frames) = self.frames(goroutine, usize::MAX)? else {
            text.push_str("\t(its frames are not known while it runs on another thread)\n");
            return Ok(text);
        };
        let managed = frames.iter().filter(|frame| frame.kind == FrameKind::Managed);
        let pcs: Vec<usize> = managed.map(|frame| frame.pc.wrapping_sub(1)).collect();
        write_lines(self, &pcs, &mut text);
        Ok(text)
    }
}
