//! What differs from system to system, each in a file of its own. This file is the door, and alone
//! says which one it is.

#[cfg(not(any(target_os = "linux", windows)))]
compile_error!("stackmark-unwind has no file in src/os for this system");

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(windows)]
pub(crate) use windows::*;
