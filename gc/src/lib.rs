//! The collector.

pub mod heap;
pub mod mark_sweep;
