//! The registers with which a managed frame goes on.

use core::ffi::c_int;
use core::mem::offset_of;

/// The DWARF register in which the unwinder hands the exception to a landing pad: x0.
pub(crate) const LANDING_REGISTER: c_int = 0;

/// Bytes of the header that a C++ exception has before its `_Unwind_Exception`: libstdc++'s
/// `__cxa_exception`, whose first word is the type.
pub const CXX_HEADER_BYTES: usize = 80;

/// Where a managed frame goes on, and with which registers: for
/// [`continue_at`](crate::continue_at).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Continuation {
    pc: usize,
    sp: usize,
    fp: usize,
    /// x0 and x1.
    values: [usize; 2],
    /// From x19 on.
    general: [usize; 10],
    /// The lower halves, from v8 on.
    vectors: [usize; 8],
}

impl Continuation {
    /// A frame that goes on at `pc` with the stack pointer `sp`. `values` are the two words that
    /// its landing pad gets, in the registers in which exceptions come. `callee_saved` gives the
    /// word of each callee-saved register, by its DWARF number. `None` if it does not know one.
    pub fn new(
        pc: usize,
        sp: usize,
        values: [usize; 2],
        mut callee_saved: impl FnMut(u16) -> Option<usize>,
    ) -> Option<Continuation> {
        let mut at = Continuation {
            pc,
            sp,
            fp: callee_saved(29)?,
            values,
            general: [0; 10],
            vectors: [0; 8],
        };
        for (word, number) in at.general.iter_mut().zip(19..) {
            *word = callee_saved(number)?;
        }
        for (word, number) in at.vectors.iter_mut().zip(72..) {
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
    C_X19 = general;
    C_D8 = vectors;
}

/// The CFI of `continue.s` holds these offsets in one byte, a LEB128, and all others in two.
const _: () = assert!(C_PC < 64 && C_SP < 64 && C_FP < 64 && size_of::<Continuation>() < 1 << 13);
