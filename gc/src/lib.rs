//! The collector.

mod collector;
mod crew;
mod global;
pub mod handle;
pub mod heap;
mod mark;
pub mod mark_sweep;
mod pace;
pub mod stats;
pub mod verify;
pub mod write_barrier;

pub use collector::{Collector, Config};
pub use stackmark_stack as stack;
pub use stackmark_unwind as unwind;
