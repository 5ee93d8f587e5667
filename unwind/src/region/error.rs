//! Errors about regions.

use crate::cfi::CfiError;
use crate::image::ImageError;
use crate::rule::Unsupported;
use crate::stack_map::map::StackMapError;
use crate::unwind_info::UnwindInfoError;

/// What is wrong with a region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The region is empty, wraps around, or is 4 GiB and more.
    #[error("{len:#x} bytes at {start:#x} are no region")]
    Range {
        /// The region's start.
        start: usize,
        /// Its length.
        len: usize,
    },
    /// The region's CFI is malformed.
    #[error("its CFI: {0}")]
    Cfi(#[from] CfiError),
    /// The CFI of the image that holds the region was not found or is malformed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A function is empty or does not lie in the region.
    #[error("function {function} at {start:#x} does not lie in it")]
    FunctionOutside {
        /// The function's name.
        function: String,
        /// The function's start.
        start: usize,
    },
    /// Two functions overlap.
    #[error("functions {first} and {second} overlap")]
    FunctionsOverlap {
        /// The name of the lower function.
        first: String,
        /// The name of the higher function.
        second: String,
    },
    /// A return address does not lie in any function of the region.
    #[error("safepoint {return_address:#x} lies in none of its functions")]
    SafepointOutside {
        /// The return address.
        return_address: usize,
    },
    /// Two safepoints with one return address.
    #[error("function {function}: two safepoints at {return_address:#x}")]
    SafepointTwice {
        /// The function.
        function: String,
        /// The return address.
        return_address: usize,
    },
    /// No CFI covers the safepoint's call, so that no unwinder could find its caller.
    #[error("function {function}: no CFI at safepoint {return_address:#x}")]
    SafepointWithoutCfi {
        /// The function.
        function: String,
        /// The return address.
        return_address: usize,
    },
    /// The CFI at the safepoint is of a kind that managed code may not have.
    #[error(
        "function {function}: the frame at safepoint {return_address:#x} cannot be walked: {why}"
    )]
    SafepointUnsupported {
        /// The function.
        function: String,
        /// The return address.
        return_address: usize,
        /// What is wrong with its CFI.
        why: Unsupported,
    },
    /// The safepoint's frame and its CFI differ, or the frame cannot be written down.
    #[error(
        "function {function}: safepoint {return_address:#x} has its CFA {} bytes up, \
         its CFI says {cfi}",
        cfa_offset.map_or("unknown".into(), |bytes| bytes.to_string())
    )]
    SafepointLayout {
        /// The function.
        function: String,
        /// The return address.
        return_address: usize,
        /// The safepoint's frame, if it says how large it is.
        cfa_offset: Option<u32>,
        /// The rule that its CFI has.
        cfi: String,
    },
    /// A slot is not aligned, or not in the frame.
    #[error("function {function}: safepoint {return_address:#x} has an impossible slot at {slot}")]
    Slot {
        /// The function.
        function: String,
        /// The return address.
        return_address: usize,
        /// The slot's offset from the stack pointer.
        slot: i64,
    },
    /// A root is in a register: walks of a region do not recover those.
    #[error("function {function}: safepoint {return_address:#x} has a root in a register")]
    RegisterRoot {
        /// The function.
        function: String,
        /// The return address.
        return_address: usize,
    },
    /// A function that moves its return address signs it (arm64 PAC). A move of the stack signs it
    /// again for the frame's CFA, and a function that moves it may have signed it for another word:
    /// Cranelift's tail calls sign for 0.
    #[error(
        "function {function}: its return address is signed at safepoint {return_address:#x}, and \
         the function moves it"
    )]
    SignedAndMoved {
        /// The function.
        function: String,
        /// The return address.
        return_address: usize,
    },
    /// The UNWIND_INFO of a function is wrong.
    #[error("the unwind information of the function at {start:#x}: {source}")]
    UnwindInfo {
        /// Where the function begins.
        start: usize,
        /// What is wrong. Offsets count from the information itself.
        source: UnwindInfoError,
    },
    /// UNWIND_INFO is that of no code, of code outside of the region, or of some that has another.
    #[error("unwind information for {len} bytes at {start:#x}, outside of the region or twice")]
    UnwindInfoRange {
        /// Where the function begins.
        start: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// The stack maps cannot be written down.
    #[error(transparent)]
    StackMap(#[from] StackMapError),
    /// A frame is larger than the region allows.
    #[error(
        "function {function} has a frame of {frame} bytes; \
         {limit} are allowed without a check of its own"
    )]
    FrameTooLarge {
        /// The function.
        function: String,
        /// The size of its frame.
        frame: u32,
        /// The region's limit.
        limit: u32,
    },
    /// A frame's size is not known, and the region has a limit for it.
    #[error(
        "function {function}: the frame at safepoint {return_address:#x} has no known size; \
         {limit} bytes are allowed without a check of its own"
    )]
    FrameSizeUnknown {
        /// The function.
        function: String,
        /// The return address.
        return_address: usize,
        /// The region's limit.
        limit: u32,
    },
}
