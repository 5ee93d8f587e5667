//! Why the heap refuses.

use super::descriptor::DescriptorId;
use crate::heap::NotAdmitted;

/// Why there is no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// The limit, the address space or the system's memory is used up.
    #[error("out of memory: {requested} bytes wanted, {used} of {limit} in use")]
    OutOfMemory {
        /// Bytes that were wanted, in whole blocks.
        requested: usize,
        /// Bytes in use.
        used: usize,
        /// The heap's limit in bytes.
        limit: usize,
    },
    /// The descriptor is not one of this heap's.
    #[error("descriptor {} is not registered with this heap", descriptor.index())]
    UnknownDescriptor {
        /// The id that was given.
        descriptor: DescriptorId,
    },
    /// The thread may not allocate here, or not now.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
}

/// Why a heap, or an allocator of it, could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// [`Options::limit`](super::Options::limit) is out of range.
    #[error("limit is {value}, and must be between {least} and {most} bytes")]
    Limit {
        /// The value that was given.
        value: usize,
        /// See [`Options::LEAST_LIMIT`](super::Options::LEAST_LIMIT).
        least: usize,
        /// See [`Options::LARGEST_LIMIT`](super::Options::LARGEST_LIMIT).
        most: usize,
    },
    /// The system refused address space.
    #[error("cannot reserve address space for the {what}")]
    Reserve {
        /// What it was for.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
