//! libgcc takes whole sections.

use std::ffi::c_void;

use crate::region::Region;

unsafe extern "C" {
    /// Makes the entries of an `.eh_frame` section known to libgcc, up to the zero word that closes
    /// it.
    fn __register_frame(begin: *const c_void);
    /// Undoes [`__register_frame`] for the same address. Aborts if there is nothing to undo.
    fn __deregister_frame(begin: *const c_void);
}

/// CFI that the system's unwinder knows for as long as this lives, so that panics and backtraces
/// cross managed frames.
#[derive(Debug)]
pub(crate) struct SystemFrames {
    /// The section, aligned, and closed by a zero word. Not touched while it is registered.
    section: Box<[u64]>,
}

impl SystemFrames {
    /// Registers a copy of the region's CFI, which has been read through without error. `None` if
    /// its pointers are not absolute, or if it has none.
    pub(crate) fn register(region: &Region) -> Option<SystemFrames> {
        let eh_frame = &region.eh_frame;
        if region.eh_frame_address != 0 || eh_frame.is_empty() {
            return None;
        }
        let mut section: Vec<u64> = Vec::with_capacity(eh_frame.len() / 8 + 2);
        section.extend(eh_frame.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        }));
        section.push(0);
        let section = section.into_boxed_slice();
        // SAFETY: `section` is a well-formed, closed section, and stays in place until `drop` has
        // deregistered it. It says nothing of code that an image's own CFI describes: such regions
        // are not registered here.
        unsafe { __register_frame(section.as_ptr().cast()) };
        Some(SystemFrames { section })
    }
}

impl Drop for SystemFrames {
    fn drop(&mut self) {
        // SAFETY: registered by `register`, and only once.
        unsafe { __deregister_frame(self.section.as_ptr().cast()) };
    }
}
