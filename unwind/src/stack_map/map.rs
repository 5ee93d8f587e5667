//! One stack map: the roots of a safepoint and their locations.

use gimli::Register;

/// Where a value stands at a safepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// In the word this many bytes above the stack pointer.
    Stack(i32),
    /// In the word this many bytes above the frame pointer.
    Frame(i32),
    /// In a callee-saved register, and so in the slot where a younger frame saved it.
    Register(Register),
}

impl Location {
    /// The address of the word, for a frame with this stack and frame pointer. `register_slot` says
    /// where a register was saved, as [`Unwinder::register_slot`](crate::Unwinder::register_slot)
    /// does. `None` if the value is still in the register.
    pub fn address(
        self,
        sp: usize,
        fp: usize,
        register_slot: impl FnOnce(Register) -> Option<usize>,
    ) -> Option<usize> {
        match self {
            Location::Stack(offset) => Some(sp.wrapping_add_signed(offset as isize)),
            Location::Frame(offset) => Some(fp.wrapping_add_signed(offset as isize)),
            Location::Register(register) => register_slot(register),
        }
    }
}

/// A live reference, and a pointer derived from it if there is one. When the object moves, the
/// derived pointer keeps its distance from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// The reference to the object.
    pub base: Location,
    /// The pointer into it; the base itself for a plain reference.
    pub derived: Location,
}

impl Root {
    /// A reference from which nothing is derived.
    pub fn plain(base: Location) -> Root {
        Root { base, derived: base }
    }
}

/// The live references at one safepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackMap {
    /// The address of the instruction behind the call.
    pub return_address: usize,
    /// The frame's CFA minus its stack pointer there, in bytes. `None` if the compiler does not
    /// say: the CFI does then, from either pointer.
    pub cfa_offset: Option<u32>,
    /// What is live.
    pub roots: Vec<Root>,
}

/// Why stack maps cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StackMapError {
    /// Two maps for one return address.
    #[error("two stack maps for {return_address:#x}")]
    Twice {
        /// The return address.
        return_address: usize,
    },
    /// A location that is not aligned to a word.
    #[error("the stack map for {return_address:#x} has an unaligned location")]
    Unaligned {
        /// The return address.
        return_address: usize,
    },
    /// The distinct lists of roots take 4 GiB and more.
    #[error("no room for the stack map for {return_address:#x}: there are too many")]
    TooMany {
        /// The return address.
        return_address: usize,
    },
}
