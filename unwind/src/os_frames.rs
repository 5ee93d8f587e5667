//! What the system's unwinder knows of managed code, so that panics and backtraces cross managed
//! frames.

#[cfg(target_arch = "arm")]
mod by_index;
#[cfg(not(any(target_arch = "arm", windows)))]
mod by_section;
#[cfg(windows)]
mod by_table;

#[cfg(target_arch = "arm")]
pub(crate) use by_index::SystemFrames;
#[cfg(not(any(target_arch = "arm", windows)))]
pub(crate) use by_section::SystemFrames;
#[cfg(windows)]
pub(crate) use by_table::SystemFrames;
