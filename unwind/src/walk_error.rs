//! Why a walk cannot go on.

use crate::cfi::CfiError;
use crate::rule::ExpressionError;
use crate::unwind_info::UnwindInfoError;

/// Why a walk cannot go on. The walk then stands still: another step gives the same error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// Nothing registered says how the caller of the frame at `pc` is found.
    #[error("no rule for pc {pc:#x}")]
    NoRule {
        /// The frame's pc.
        pc: usize,
    },
    /// A frame of managed code does not stand at a safepoint, so its roots are not known: its
    /// region has been registered without one for a call. Walks that look for roots fail so; others
    /// pass.
    #[error("managed code stands at pc {pc:#x}, which is no safepoint")]
    NoSafepoint {
        /// The frame's pc.
        pc: usize,
    },
    /// The rule cannot be evaluated: it needs an unknown register, or its expression is wrong.
    #[error("the rule for pc {pc:#x} cannot be evaluated: {source}")]
    Expression {
        /// The frame's pc.
        pc: usize,
        /// What is wrong.
        source: ExpressionError,
    },
    /// The image that holds the pc has CFI that cannot be read.
    #[error("the CFI for pc {pc:#x} is malformed: {source}")]
    Cfi {
        /// The frame's pc.
        pc: usize,
        /// What is wrong.
        source: CfiError,
    },
    /// The image that holds the pc has UNWIND_INFO that cannot be used.
    #[error("for pc {pc:#x}: {source}")]
    UnwindInfo {
        /// The frame's pc.
        pc: usize,
        /// What is wrong.
        source: UnwindInfoError,
    },
    /// The CFI of the image that holds the pc cannot be used, or has not been read yet.
    #[error("the image that holds pc {pc:#x} has no readable CFI")]
    Image {
        /// The frame's pc.
        pc: usize,
    },
    /// The rule does not say where in the stack the return address is.
    #[error("the rule for pc {pc:#x} does not say where in the stack the return address is")]
    ReturnAddress {
        /// The frame's pc.
        pc: usize,
    },
    /// The managed frames that the frame at `pc` was called from, by native code, cannot be found:
    /// they called that native code otherwise than by the function that notes where they stand.
    /// Their roots are not known.
    #[error(
        "the frame at pc {pc:#x} was entered from native code that older managed code has called \
         without saying where it stands"
    )]
    NoAnchor {
        /// The frame's pc.
        pc: usize,
    },
    /// The walk has gone back and forth between stacks too often.
    #[error("the walk goes in circles at pc {pc:#x}")]
    Circles {
        /// The frame's pc.
        pc: usize,
    },
    /// The stack pointer is not aligned to a word or lies outside of the bounds.
    #[error("the stack pointer {sp:#x} at pc {pc:#x} is outside of the stack or unaligned")]
    StackPointer {
        /// The frame's pc.
        pc: usize,
        /// Its stack pointer.
        sp: usize,
    },
    /// The rule yields a CFA that is not above the stack pointer.
    #[error("the frame at pc {pc:#x} has its CFA {cfa:#x} at or below its stack pointer {sp:#x}")]
    NotIncreasing {
        /// The frame's pc.
        pc: usize,
        /// Its stack pointer.
        sp: usize,
        /// Its CFA.
        cfa: usize,
    },
    /// The rule yields a CFA above the bounds.
    #[error("the frame at pc {pc:#x} has its CFA {cfa:#x} outside of the stack")]
    OutOfBounds {
        /// The frame's pc.
        pc: usize,
        /// Its CFA.
        cfa: usize,
    },
    /// The rule yields a CFA that is not aligned to a word.
    #[error("the frame at pc {pc:#x} has an unaligned CFA {cfa:#x}")]
    Misaligned {
        /// The frame's pc.
        pc: usize,
        /// Its CFA.
        cfa: usize,
    },
    /// A slot that the rule names lies outside of the bounds, or the memory does not hold it.
    #[error("the frame at pc {pc:#x} needs the word at {address:#x}, which cannot be read")]
    Unreadable {
        /// The frame's pc.
        pc: usize,
        /// The slot.
        address: usize,
    },
    /// The safepoint table and the CFI yield different CFAs: the map is wrong, or the frame pointer
    /// with which the walk began.
    #[error(
        "the frame at pc {pc:#x} has its CFA at {by_table:#x} by its safepoint, \
         at {by_cfi:#x} by its CFI"
    )]
    Disagreement {
        /// The frame's pc.
        pc: usize,
        /// The CFA computed from the stack pointer.
        by_table: usize,
        /// The CFA computed from the frame pointer.
        by_cfi: usize,
    },
}
