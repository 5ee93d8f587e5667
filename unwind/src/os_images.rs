//! The images of the running process. How their loader keeps them, and where in memory they say
//! how their frames are walked, differs from system to system.

#[cfg(target_os = "linux")]
mod elf;
#[cfg(windows)]
mod pe;

#[cfg(target_os = "linux")]
pub(crate) use elf::*;
#[cfg(windows)]
pub(crate) use pe::*;
