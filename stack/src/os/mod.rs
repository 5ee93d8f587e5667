//! What the system provides: pages, fences, ends of threads, signal stacks and signals. Each system
//! has one file.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(not(target_os = "linux"))]
compile_error!("stackmark-stack supports these systems: Linux");
