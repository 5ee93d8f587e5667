//! The registers with which a managed frame goes on.

use core::ffi::c_int;
use core::mem::offset_of;

/// The DWARF register in which the unwinder hands the exception to a landing pad: eax.
pub(crate) const LANDING_REGISTER: c_int = 0;

/// Bytes of the header that a C++ exception has before its `_Unwind_Exception`: libstdc++'s
/// `__cxa_exception`, whose first word is the type.
pub const CXX_HEADER_BYTES: usize = 48;

/// Where a managed frame goes on, and with which registers: for
/// [`continue_at`](crate::continue_at).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Continuation {
    pc: usize,
    sp: usize,
    ebp: usize,
    ebx: usize,
    esi: usize,
    edi: usize,
    eax: usize,
    edx: usize,
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
        Some(Continuation {
            pc,
            sp,
            ebp: callee_saved(5)?,
            ebx: callee_saved(3)?,
            esi: callee_saved(6)?,
            edi: callee_saved(7)?,
            eax: values[0],
            edx: values[1],
        })
    }

    /// The frame pointer with which the frame goes on.
    pub fn fp(&self) -> usize {
        self.ebp
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
    C_EBP = ebp;
    C_EBX = ebx;
    C_ESI = esi;
    C_EDI = edi;
    C_EAX = eax;
    C_EDX = edx;
}

/// The CFI of `continue.s` holds each of its offsets in one byte, a LEB128.
const _: () = assert!(C_EDI < 64);
