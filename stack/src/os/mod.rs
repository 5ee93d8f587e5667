//! What the system provides: pages, fences, ends of threads, signal stacks and signals. Each system
//! has one file.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(windows)]
pub(crate) use windows::*;

#[cfg(not(any(target_os = "linux", windows)))]
compile_error!("stackmark-stack supports these systems: Linux, Windows");
