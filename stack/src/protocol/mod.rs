//! The protocols between goroutines, machines and the collector. They are plain Rust over locks
//! and atomics, without raw memory. Each concurrent protocol has its loom models beside it.

mod barrier;
mod dirty;
mod frontier;
mod request;
mod spare;
mod status;
pub mod sync;
mod world;

pub use barrier::{REFUSALS, Refusal};
pub(crate) use barrier::{Settled, Slots, StubPool, Table};
pub(crate) use dirty::Dirty;
pub(crate) use frontier::StackScan;
pub(crate) use frontier::access::{
    Budget, FramePointer, Frames, Position, ScanCounts, Spacing, StackAccess,
};
pub(crate) use frontier::young::YoungBound;
pub use request::Request;
pub(crate) use request::{Requests, Signal, ask_all};
pub(crate) use spare::{Node, SpareList};
pub use status::Status;
pub(crate) use status::{Held, StatusWord};
#[cfg(stackmark_loom)]
pub use world::one_machine::OneMachine;
pub(crate) use world::{Gate, Waiter, World};
