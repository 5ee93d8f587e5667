//! The collector's cycle over all stacks: handshakes, rounds of scans, the stopped world.

mod driver;
mod frames;
mod images;
mod rounds;
mod stopped;
mod straggler;

pub use driver::{AlreadyDriven, CycleDriver};
pub use images::UnregisterError;
pub use rounds::ScanScope;
pub use stopped::{CycleStopped, NextCycle, RootAt, WorldStopped};
pub use straggler::Straggler;
