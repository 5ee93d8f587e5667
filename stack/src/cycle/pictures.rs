//! Pictures of stacks, for the embedder.

use super::stopped::WorldStopped;
use crate::goroutine::Goroutine;
use crate::machine::Caller;
use crate::picture::Picture;
use crate::protocol::Status;
use crate::runtime::{Runtime, assert_no_lock};
use crate::scan::{self, ScanError};

impl Runtime {
    /// A picture of the stack of a goroutine that stands still, or that has called the calling
    /// native function. `None` if the goroutine runs on another thread, has ended, or belongs to
    /// another runtime. It takes time and memory in proportion to the frames.
    ///
    /// # Errors
    /// [`ScanError`]: the stack cannot be walked.
    ///
    /// # Panics
    /// As [`Runtime::scan_frozen`].
    pub fn picture(&self, goroutine: &Goroutine) -> Result<Option<Picture>, ScanError> {
        assert_no_lock("Runtime::picture");
        if !self.owns(goroutine) {
            return Ok(None);
        }
        // SAFETY: used within this function alone.
        if let Some(caller) = unsafe { Caller::try_current() }
            && std::ptr::eq(caller.goroutine(), goroutine)
        {
            let scan = goroutine.scan_lock();
            // SAFETY: the goroutine stands in its call out on this thread, and the lock is ours.
            return unsafe { scan::picture(self, goroutine, &scan) }.map(Some);
        }
        let Ok(held) = goroutine.hold() else { return Ok(None) };
        // SAFETY: the goroutine is held.
        unsafe { scan::picture(self, goroutine, &held.state) }.map(Some)
    }
}

impl WorldStopped<'_> {
    /// A picture of a goroutine's stack. `None` if the goroutine has ended or belongs to another
    /// runtime.
    ///
    /// # Errors
    /// [`ScanError`]: the stack cannot be walked.
    ///
    /// # Panics
    /// As [`Runtime::scan_frozen`].
    pub fn picture(&self, goroutine: &Goroutine) -> Result<Option<Picture>, ScanError> {
        assert_no_lock("WorldStopped::picture");
        let runtime = self.runtime();
        let scan = goroutine.scan_lock();
        if !runtime.owns(goroutine) || goroutine.status() == Status::Dead {
            return Ok(None);
        }
        // SAFETY: the world is stopped, so the goroutine stands still, and the lock is ours.
        unsafe { scan::picture(runtime, goroutine, &scan) }.map(Some)
    }
}
