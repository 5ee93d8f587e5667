//! Managed code of images: registered while goroutines run, and forgotten after its last frame.

use crate::goroutine::Goroutine;
use crate::memory::MAX_FRAME;
use crate::protocol::Status;
use crate::runtime::{Runtime, assert_no_lock};
use crate::scan::{FrameAt, ScanError, frames};
use stackmark_unwind::{CodeError, FrameKind, ManagedImage, RegisterImageError};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

/// Why an image is not unregistered. It stays registered then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnregisterError {
    /// A goroutine has a frame of the image, or begins with a function of it.
    #[error("goroutine {goroutine} has a frame of {function} in {image}, at {pc:#x}")]
    Running {
        /// The goroutine's number.
        goroutine: u64,
        /// The function's name.
        function: String,
        /// The image's name.
        image: String,
        /// The frame's return address, or the start of the function with which the goroutine
        /// begins.
        pc: usize,
    },
    /// A stack cannot be walked.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The image is not registered any more.
    #[error(transparent)]
    Code(#[from] CodeError),
}

impl Runtime {
    /// Registers the managed code of the image that holds `address`. No frame may be larger than
    /// [`MAX_FRAME`]. See [`Code::register_image`](stackmark_unwind::Code::register_image).
    ///
    /// # Errors
    /// [`RegisterImageError`].
    pub fn register_image(&self, address: usize) -> Result<ManagedImage, RegisterImageError> {
        self.code.register_image(address, Some(MAX_FRAME as u32))
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
        assert_no_lock("Runtime::unregister_image");
        self.stop_world(|_| {
            for goroutine in self.goroutines() {
                self.refuse_frames(&goroutine, image)?;
            }
            Ok(self.code.unregister_image(image)?)
        })
    }

    /// # Errors
    /// The goroutine has a frame of the image, or cannot be walked.
    fn refuse_frames(
        &self,
        goroutine: &Goroutine,
        image: &ManagedImage,
    ) -> Result<(), UnregisterError> {
        let _scan = goroutine.scan_lock();
        let status = goroutine.status();
        if status == Status::Dead {
            return Ok(());
        }
        let mut found = None;
        let mut youngest = true;
        let visit = |FrameAt { kind, pc, .. }: FrameAt| {
            let begins = std::mem::take(&mut youngest)
                && kind == FrameKind::Entry
                && status == Status::Runnable;
            let entry = goroutine.header.entry.load(Ordering::Relaxed);
            if begins && image.holds(entry) {
                found = Some((entry, entry));
            } else if image.holds(pc.wrapping_sub(1)) {
                found = Some((pc, pc - 1));
            }
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        // SAFETY: the world is stopped, so the goroutine stands still, and the lock is ours.
        unsafe { frames(self, goroutine, visit)? };
        let Some((pc, within)) = found else { return Ok(()) };
        let snapshot = self.code.snapshot();
        let function = snapshot.function(within);
        Err(UnregisterError::Running {
            goroutine: goroutine.id(),
            function: function.map_or_else(String::new, |function| function.name.to_owned()),
            image: image.name().to_owned(),
            pc,
        })
    }
}
