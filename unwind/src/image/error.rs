//! Errors about images.

use std::path::PathBuf;

use crate::arch::NAME;
use crate::cfi::CfiError;
use crate::unwind_info::UnwindInfoError;

/// Why the CFI of an image was not found or cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No image that the loader knows has code at the address.
    #[error("no loaded image holds {address:#x}")]
    NoImage {
        /// The address.
        address: usize,
    },
    /// The image has no `.eh_frame_hdr`, or one without a search table.
    #[error("the image that holds {address:#x} has no table of its CFI")]
    NoCfi {
        /// The address.
        address: usize,
    },
    /// The image's `.eh_frame_hdr` cannot be read.
    #[error("the table of CFI of the image that holds {address:#x} is malformed: {source}")]
    Header {
        /// The address.
        address: usize,
        /// What the reader found.
        source: gimli::Error,
    },
    /// The image's CFI cannot be read.
    #[error("the CFI of the image that holds {address:#x}: {source}")]
    Cfi {
        /// The address.
        address: usize,
        /// What is wrong.
        source: CfiError,
    },
    /// The image's UNWIND_INFO, which takes the place of CFI, cannot be used.
    #[error("for the code at {address:#x}: {source}")]
    UnwindInfo {
        /// The address.
        address: usize,
        /// What is wrong.
        source: UnwindInfoError,
    },
    /// The CFI has not been read yet, and where it is asked for it cannot be.
    #[error("the CFI of image {image} has not been read yet")]
    NotRead {
        /// The image's name.
        image: String,
    },
    /// The file cannot be read.
    #[error("{path}: {kind}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        kind: std::io::ErrorKind,
    },
    /// The file is no image, or a malformed one.
    #[error("image {image}: {source}")]
    Elf {
        /// The image's name.
        image: String,
        /// What the reader found.
        source: object::Error,
    },
    /// The file is malformed: its headers say that something lies outside of it.
    #[error("image {image}: its {what} lies outside of it")]
    Outside {
        /// The image's name.
        image: String,
        /// What it is.
        what: &'static str,
    },
    /// A compressed section says that it is far larger than its contents can be.
    #[error("image {image} has a compressed section of an impossible size")]
    Compressed {
        /// The image's name.
        image: String,
    },
    /// An object file has a relocation in its CFI that is neither absolute nor relative, or one
    /// outside of the section.
    #[error("image {image} has an impossible relocation at offset {at:#x} of its CFI")]
    Relocation {
        /// The image's name.
        image: String,
        /// Where in the section.
        at: u64,
    },
    /// The image's file is not the one that was loaded, so it does not say what is in memory.
    #[error("image {image}: its file has changed since it was loaded")]
    Changed {
        /// The image's name.
        image: String,
    },
    /// A section of the file is not part of what the loader has mapped.
    #[error("image {image}: section {section} is not loaded, or lies outside of what is")]
    NotMapped {
        /// The image's name.
        image: String,
        /// The section's name.
        section: String,
    },
    /// The file is in Microsoft's format. Code of such an image is walked, but stack maps are read
    /// from ELF's alone: an embedder registers its managed code as a [`Region`](crate::Region).
    #[error("image {image} is in Microsoft's format, of which no stack maps are read")]
    MapsOfFormat {
        /// The image's name.
        image: String,
    },
    /// The file is for another machine.
    #[error("image {image} is not for {}", NAME)]
    Machine {
        /// The image's name.
        image: String,
    },
}
