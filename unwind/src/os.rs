//! What differs from system to system, each in a file of its own. This file is the door, and alone
//! says which one it is.

#[cfg(not(target_os = "linux"))]
compile_error!("stackmark-unwind has no file in src/os for this system");

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
