//! From a pc to its caller and its live slots.
//!
//! Managed code is registered with its CFI and its safepoints in a [`Code`]; CFI is compiled once into packed rules,
//! and a [`Walker`] goes from frame to frame of a stack by them, within bounds, over live memory or a copy of it.
//! Every failure is a typed error that names the pc: nothing is guessed and nothing skipped.
#![warn(missing_debug_implementations)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("stackmark-unwind supports x86_64-unknown-linux-gnu only");

mod cfi;
mod code;
mod image;
mod jit_debug;
mod memory;
mod region;
mod rule;
mod safepoint;
pub mod stack_map;
mod system_unwinder;
mod table;
mod walk;

pub use cfi::CfiError;
pub use code::{Code, CodeError, FrameKind, FunctionRef, NativeRule, RegionId, Snapshot};
pub use image::ImageError;
pub use memory::{Memory, MemorySnapshot, StackMemory};
pub use region::{Function, Region, RegionError};
pub use rule::Unsupported;
pub use safepoint::{Safepoint, SafepointRef};
pub use walk::{BarrierRefusal, Frame, Registers, ReturnAddresses, WalkError, Walker};
