//! The collector's cycle over all stacks: handshakes, rounds of scans, the stopped world.

mod code;
mod driver;
mod frames;
mod pictures;
mod rounds;
mod slots;
mod stopped;
mod straggler;

pub use code::UnregisterError;
pub use driver::{AlreadyDriven, CycleDriver};
pub use rounds::ScanScope;
pub use stopped::{CycleStopped, NextCycle, RootAt, WorldStopped};
pub use straggler::Straggler;
