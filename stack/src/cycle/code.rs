//! Managed code that is forgotten while goroutines run: after its last frame.

use crate::goroutine::Goroutine;
use crate::protocol::Status;
use crate::runtime::{Runtime, assert_no_lock};
use crate::scan::{FrameAt, ScanError, frames};
use stackmark_unwind::{CodeError, FrameKind, ManagedImage, RegionId, RegisterImageError};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

/// Why code is not unregistered. All of it stays registered then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnregisterError {
    /// A goroutine has a frame of the code, or begins with a function of it.
    #[error("goroutine {goroutine} has a frame of {function} in {image}, at {pc:#x}")]
    Running {
        /// The goroutine's number.
        goroutine: u64,
        /// The function's name.
        function: String,
        /// The name of the image, or of the region.
        image: String,
        /// The frame's return address, or the start of the function with which the goroutine
        /// begins.
        pc: usize,
    },
    /// A stack cannot be walked.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The code is not registered any more.
    #[error(transparent)]
    Code(#[from] CodeError),
}

impl Runtime {
    /// Registers the managed code of the image that holds `address`. No frame may be larger than
    /// [`Config::max_frame`](crate::Config::max_frame). See
    /// [`Code::register_image`](stackmark_unwind::Code::register_image).
    ///
    /// # Errors
    /// [`RegisterImageError`].
    pub fn register_image(&self, address: usize) -> Result<ManagedImage, RegisterImageError> {
        self.code.register_image(address, Some(self.config.max_frame as u32))
    }

    /// Forgets the managed code of an image, once no goroutine has a frame of it. Stops the world
    /// to see that. Afterwards the image may be unloaded. The caller sees to it that nothing calls
    /// the image's code any more: frames of it cannot be walked, and a scan that meets one ends the
    /// process with an error.
    ///
    /// # Errors
    /// [`UnregisterError`].
    ///
    /// # Panics
    /// On a thread that counts as running in this runtime. Where the library calls the embedder
    /// under a lock.
    pub fn unregister_image(&self, image: &ManagedImage) -> Result<(), UnregisterError> {
        self.unregister_unless(&|pc| image.holds(pc), || self.code.unregister_image(image))
    }

    /// Forgets regions of managed code, once no goroutine has a frame of any: a JIT's, whose memory
    /// is to be used again. Otherwise as [`Runtime::unregister_image`]. It stops the world once for
    /// all of them.
    ///
    /// # Errors
    /// [`UnregisterError`].
    ///
    /// # Panics
    /// As [`Runtime::unregister_image`].
    pub fn unregister(&self, regions: &[RegionId]) -> Result<(), UnregisterError> {
        let range = |id: &RegionId| self.code.range_of(*id).ok_or(CodeError::Unknown(*id));
        let mut ranges = regions.iter().map(range).collect::<Result<Vec<_>, _>>()?;
        ranges.sort_by_key(|range| range.start);
        let holds = |pc: usize| {
            let behind = ranges.partition_point(|range| range.start <= pc);
            behind.checked_sub(1).is_some_and(|last| ranges[last].contains(&pc))
        };
        self.unregister_unless(&holds, || self.code.unregister_all(regions))
    }

    /// Calls `unregister` in a stopped world, unless a goroutine has a frame that `holds` the pc
    /// of.
    fn unregister_unless(
        &self,
        holds: &dyn Fn(usize) -> bool,
        unregister: impl FnOnce() -> Result<(), CodeError>,
    ) -> Result<(), UnregisterError> {
        assert_no_lock("Runtime::unregister");
        self.stop_world(|_| {
            for goroutine in self.goroutines() {
                self.refuse_frames(&goroutine, holds)?;
            }
            Ok(unregister()?)
        })
    }

    /// # Errors
    /// The goroutine has such a frame or cannot be walked.
    fn refuse_frames(
        &self,
        goroutine: &Goroutine,
        holds: &dyn Fn(usize) -> bool,
    ) -> Result<(), UnregisterError> {
        let _scan = goroutine.scan_lock();
        let status = goroutine.status();
        if status == Status::Dead {
            return Ok(());
        }
        let mut found = None;
        let mut begun = false;
        let visit = |FrameAt { kind, pc, .. }: FrameAt| {
            begun |= kind == FrameKind::Managed;
            if holds(pc.wrapping_sub(1)) {
                found = Some((pc, pc - 1));
            }
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        // SAFETY: the world is stopped, so the goroutine stands still, and the lock is ours.
        unsafe { frames(self, goroutine, visit)? };
        // Of one that has not begun there are no frames yet.
        let entry = goroutine.header.entry.load(Ordering::Relaxed);
        if !begun && status == Status::Runnable && holds(entry) {
            found = Some((entry, entry));
        }
        let Some((pc, within)) = found else { return Ok(()) };
        let snapshot = self.code.snapshot();
        let names = snapshot.function(within).map(|f| (f.name.to_owned(), f.region.to_owned()));
        let (function, image) = names.unwrap_or_default();
        Err(UnregisterError::Running { goroutine: goroutine.id(), function, image, pc })
    }
}
