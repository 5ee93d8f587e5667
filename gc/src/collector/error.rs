//! Why a collector does not start.

use std::io;

use stackmark_stack::AlreadyDriven;

use crate::heap::NotClaimed;

/// Why a collector does not start. Nothing is left of what was started, and heap and runtime are as
/// they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option of the configuration is out of range.
    #[error("{option} is {value}, and must be between {least} and {most}")]
    Option {
        /// Its name in [`Config`](crate::Config).
        option: &'static str,
        /// The value that was given.
        value: usize,
        /// The least value.
        least: usize,
        /// The largest value.
        most: usize,
    },
    /// The heap has no generations, which the configuration asks for.
    #[error("the configuration asks for generations, and the heap has none")]
    NoGenerations,
    /// The heap has had another collector, or belongs to another runtime.
    #[error(transparent)]
    Heap(#[from] NotClaimed),
    /// The runtime has had another collector.
    #[error(transparent)]
    Runtime(#[from] AlreadyDriven),
    /// The system gives no thread.
    #[error(transparent)]
    Thread(#[from] io::Error),
}
