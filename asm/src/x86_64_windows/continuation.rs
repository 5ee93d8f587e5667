//! The registers with which a managed frame goes on.

use core::ffi::c_int;
use core::mem::offset_of;

/// The DWARF register in which the unwinder hands the exception to a landing pad: rax.
pub(crate) const LANDING_REGISTER: c_int = 0;

/// Bytes of the header that a C++ exception has before its `_Unwind_Exception`: libstdc++'s
/// `__cxa_exception`, whose first word is the type.
pub const CXX_HEADER_BYTES: usize = 80;

/// The number of the lower word of xmm6. DWARF has none for the words of a vector register.
pub(super) const WORDS_OF_XMM6: u16 = 256;

/// Where a managed frame goes on, and with which registers: for
/// [`continue_at`](crate::continue_at).
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct Continuation {
    pc: usize,
    rbp: usize,
    rbx: usize,
    /// As far from `pc` as in the frame of an interrupt.
    sp: usize,
    rdi: usize,
    rsi: usize,
    r12: usize,
    r13: usize,
    r14: usize,
    r15: usize,
    rax: usize,
    rdx: usize,
    /// The words of xmm6 up to xmm15.
    vectors: [usize; 20],
}

impl Continuation {
    /// A frame that goes on at `pc` with the stack pointer `sp`. `values` are the two words that
    /// its landing pad gets, in the registers in which exceptions come. `callee_saved` gives the
    /// word of each callee-saved register, by its DWARF number; those of xmm6 up to xmm15, the
    /// lower one first, have numbers from 256 on. `None` if it does not know one.
    pub fn new(
        pc: usize,
        sp: usize,
        values: [usize; 2],
        mut callee_saved: impl FnMut(u16) -> Option<usize>,
    ) -> Option<Continuation> {
        let mut at = Continuation {
            pc,
            rbp: callee_saved(6)?,
            rbx: callee_saved(3)?,
            sp,
            rdi: callee_saved(5)?,
            rsi: callee_saved(4)?,
            r12: callee_saved(12)?,
            r13: callee_saved(13)?,
            r14: callee_saved(14)?,
            r15: callee_saved(15)?,
            rax: values[0],
            rdx: values[1],
            vectors: [0; 20],
        };
        for (word, number) in at.vectors.iter_mut().zip(WORDS_OF_XMM6..) {
            *word = callee_saved(number)?;
        }
        Some(at)
    }

    /// The frame pointer with which the frame goes on.
    pub fn fp(&self) -> usize {
        self.rbp
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
    C_RBP = rbp;
    C_RBX = rbx;
    C_RDI = rdi;
    C_RSI = rsi;
    C_R12 = r12;
    C_R13 = r13;
    C_R14 = r14;
    C_R15 = r15;
    C_RAX = rax;
    C_RDX = rdx;
    C_VECTORS = vectors;
}

/// Unwinders read them so.
const _: () = assert!(C_PC == 0 && C_SP == 0x18 && C_VECTORS.is_multiple_of(16));
