//! Errors about UNWIND_INFO.

/// What is wrong with the UNWIND_INFO of a function. Addresses in it are relative to the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnwindInfoError {
    /// It does not lie in what can be read, or not all of it.
    #[error("the unwind information at {at:#x} is cut off or not in the image")]
    CutOff {
        /// Where it begins.
        at: u32,
    },
    /// It is of a version that is not known.
    #[error("the unwind information at {at:#x} has version {version}; 1 and 2 are known")]
    Version {
        /// Where it begins.
        at: u32,
        /// Its version.
        version: u8,
    },
    /// It has a code that means nothing.
    #[error("the unwind information at {at:#x} has the unknown code {code}")]
    Code {
        /// Where it begins.
        at: u32,
        /// The code's number.
        code: u8,
    },
    /// It refers to a frame register that it does not name, that is never set, or that is not the
    /// one of the information that it is chained to.
    #[error("the unwind information at {at:#x} contradicts itself about the frame register")]
    FrameRegister {
        /// Where it begins.
        at: u32,
    },
    /// It saves the stack pointer like another register, or does anything before the machine's
    /// frame is pushed.
    #[error("the unwind information at {at:#x} saves the stack pointer at an impossible place")]
    StackPointer {
        /// Where it begins.
        at: u32,
    },
    /// It names a handler or another information, or has bytes behind it, where none may be.
    #[error("the unwind information at {at:#x} does not stand alone")]
    NotAlone {
        /// Where it begins.
        at: u32,
    },
    /// It is chained to itself, or over too many others.
    #[error("the unwind information at {at:#x} is chained without an end")]
    Endless {
        /// Where the first one begins.
        at: u32,
    },
}
