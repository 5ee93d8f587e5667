//! Errors of registration.

use crate::image::ImageError;
use crate::region::RegionError;

/// A registered region of managed code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(pub(super) u64);

/// Why code was not registered or unregistered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// The range overlaps one that is registered already.
    #[error("{name} at {start:#x}..{end:#x} overlaps {with}")]
    Overlap {
        /// What was to be registered.
        name: String,
        /// Its start.
        start: usize,
        /// Its end.
        end: usize,
        /// What it overlaps.
        with: String,
    },
    /// The region contradicts itself.
    #[error("region {region}: {source}")]
    Region {
        /// The region's name.
        region: String,
        /// What is wrong with it.
        source: RegionError,
    },
    /// The native range is empty or wraps around.
    #[error("native code at {start:#x}..{end:#x} is no range")]
    NoRange {
        /// Its start.
        start: usize,
        /// Its end.
        end: usize,
    },
    /// The fixed rule's offset is 0, no multiple of a word, or 256 MiB and more.
    #[error(
        "native code at {start:#x}: \
         a CFA at {cfa_offset} bytes from the stack pointer is impossible"
    )]
    FixedRule {
        /// The range's start.
        start: usize,
        /// The offset.
        cfa_offset: u32,
    },
    /// The image's CFI for a native range was not found or is malformed.
    #[error("native code at {start:#x}: {source}")]
    Image {
        /// The range's start.
        start: usize,
        /// What is wrong.
        source: ImageError,
    },
    /// The image's CFI covers nothing of the native range.
    #[error("no CFI covers any of the native code at {start:#x}..{end:#x}")]
    NotCovered {
        /// The range's start.
        start: usize,
        /// The range's end.
        end: usize,
    },
    /// No such region is registered (any more).
    #[error("no region {0:?} is registered")]
    Unknown(RegionId),
}
