//! The collector.

mod collector;
mod crew;
mod cycle;
mod global;
pub mod handle;
pub mod heap;
mod mark;
pub mod mark_sweep;
mod pace;
mod request;
pub mod stats;
pub mod verify;
pub mod write_barrier;

pub use collector::{Collector, CycleError, Options, StartError};
pub use heap::Heap;
pub use request::{Outcome, Ticket};
pub use stackmark_stack as stack;
pub use stackmark_unwind as unwind;
