//! Exceptions of native code that are thrown again beyond managed frames.

use super::caller::Caller;
use crate::runtime::throw;
use crate::scan;
use stackmark_asm as asm;
use stackmark_unwind::FrameKind;
use std::ffi::c_void;
use std::ops::ControlFlow;

impl Caller<'_> {
    /// Throws an exception on, as if the managed frames had passed it that are younger than the
    /// youngest callback. Their barriers are settled. Returns if there is no callback: the
    /// goroutine runs no managed code again.
    ///
    /// # Safety
    /// The exception is in flight and caught. Native code that managed code has called is done
    /// with: its frames own nothing.
    pub(crate) unsafe fn throw_beyond_managed(self, exception: *mut c_void) {
        let (runtime, goroutine) = (self.runtime(), self.goroutine());
        let (mut callback, mut oldest) = (None, 0);
        let walked = self.frames(|frame| {
            oldest = frame.depth;
            if frame.kind != FrameKind::Callback {
                return ControlFlow::Continue(());
            }
            callback = Some(frame.depth);
            ControlFlow::Break(())
        });
        walked.unwrap_or_else(|error| runtime.fatal(&error));
        let Some(depth) = callback else {
            scan::leave_all(runtime, goroutine, oldest);
            return;
        };
        scan::leave_callback(runtime, goroutine, depth - asm::CALLBACK_FRAME_BYTES);
        let frame = goroutine.bounds().end - depth;
        // SAFETY: the youngest callback's frame, found by a walk; frames younger than it own
        // nothing. The exception is in flight.
        unsafe { asm::leave_callback_by(throw, exception, frame) }
    }
}
