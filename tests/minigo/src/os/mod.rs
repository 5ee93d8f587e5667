//! What minigo asks of the system itself: output, the end of the process, faults, C's libraries.
//! Each system has one file.

#[cfg(not(windows))]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(not(windows))]
pub(crate) use linux::*;
#[cfg(windows)]
pub(crate) use windows::*;

/// What a system may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(windows), allow(dead_code, reason = "this system lacks nothing"))]
pub(crate) enum Missing {
    #[error("C code is not supported on Windows")]
    C,
    #[error("executables are not built on Windows")]
    Executables,
    #[error("profiles are not supported on Windows")]
    Profiles,
}
