//! What the system's unwinder knows of managed code, so that panics and backtraces cross managed
//! frames.

#[cfg(target_arch = "arm")]
mod by_index;
#[cfg(not(target_arch = "arm"))]
mod by_section;

#[cfg(target_arch = "arm")]
pub(crate) use by_index::SystemFrames;
#[cfg(not(target_arch = "arm"))]
pub(crate) use by_section::SystemFrames;
