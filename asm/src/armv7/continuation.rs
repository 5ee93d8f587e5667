//! The registers with which a managed frame goes on.

use core::mem::offset_of;

/// Bytes of the header that a C++ exception has before its `_Unwind_Exception`: libstdc++'s
/// `__cxa_exception`, whose first word is the type.
pub const CXX_HEADER_BYTES: usize = 32;

/// Where a managed frame goes on, and with which registers: for
/// [`continue_at`](crate::continue_at).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Continuation {
    pc: usize,
    sp: usize,
    fp: usize,
    /// r0 and r1.
    values: [usize; 2],
    /// From r4 on.
    general: [usize; 7],
    /// The words of d8 up to d15.
    vectors: [usize; 16],
}

impl Continuation {
    /// A frame that goes on at `pc` with the stack pointer `sp`; the lowest bit of `pc` says that
    /// it is Thumb code. `values` are the two words that its landing pad gets, in the registers in
    /// which exceptions come. `callee_saved` gives the word of each callee-saved register, by its
    /// DWARF number: the words of d8 up to d15 have the numbers of s16 up to s31. `None` if it does
    /// not know one.
    pub fn new(
        pc: usize,
        sp: usize,
        values: [usize; 2],
        mut callee_saved: impl FnMut(u16) -> Option<usize>,
    ) -> Option<Continuation> {
        let mut at = Continuation {
            pc,
            sp,
            fp: callee_saved(11)?,
            values,
            general: [0; 7],
            vectors: [0; 16],
        };
        for (word, number) in at.general.iter_mut().zip(4..) {
            *word = callee_saved(number)?;
        }
        for (word, number) in at.vectors.iter_mut().zip(80..) {
            *word = callee_saved(number)?;
        }
        Some(at)
    }

    /// The frame pointer with which the frame goes on.
    pub fn fp(&self) -> usize {
        self.fp
    }

    /// The stack pointer with which the frame goes on.
    pub fn sp(&self) -> usize {
        self.sp
    }
}

macro_rules! offsets {
    ($($name:ident = $field:ident;)*) => {$(
        pub(super) const $name: usize = offset_of!(Continuation, $field);
    )*};
}

offsets! {
    C_PC = pc;
    C_SP = sp;
    C_FP = fp;
    C_VALUES = values;
    C_R4 = general;
    C_D8 = vectors;
}

/// The CFI of `continue.s` holds these offsets in one byte, a LEB128, and those of doubles in two.
const _: () = assert!(C_PC < 64 && C_SP < 64 && C_FP < 64 && C_R4 + 6 * 4 < 64);
const _: () = assert!(size_of::<Continuation>() < 1 << 13);
