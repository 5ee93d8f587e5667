//! What the system's unwinder says of a frame, by the exception-handling ABI of 32-bit Arm (EHABI).

use core::ffi::{c_int, c_void};

const UVRSC_CORE: c_int = 0;
const UVRSD_UINT32: c_int = 0;

/// The number of the stack pointer.
pub(crate) const SP: u32 = 13;
/// That of the register that has the return address.
pub(crate) const LR: u32 = 14;
/// That of the pc.
pub(crate) const PC: u32 = 15;
/// That of the frame pointer.
pub(crate) const FP: u32 = 11;

/// Words of d8 up to d15 have these numbers and those that follow.
const WORDS_OF_D8: u16 = 80;

unsafe extern "C" {
    fn _Unwind_VRS_Get(
        context: *mut c_void,
        class: c_int,
        register: u32,
        representation: c_int,
        value: *mut usize,
    ) -> c_int;
    fn _Unwind_VRS_Set(
        context: *mut c_void,
        class: c_int,
        register: u32,
        representation: c_int,
        value: *mut usize,
    ) -> c_int;
}

/// The type in which a function that stops a forced unwinding gets the class of the exception.
pub type ClassArgument = *const c_void;

/// Whether a forced unwinding comes to each frame, also behind one that it has cleaned up.
pub const FORCES_ALL: bool = true;

/// The words at the end of an `_Unwind_Exception` that belong to the unwinder.
pub const PRIVATE_WORDS: usize = 19;

/// The bytes with which an exception of a class begins.
pub fn class_bytes(class: u64) -> [u8; 8] {
    class.to_be_bytes()
}

/// The class of an exception that begins with these bytes.
pub fn class(bytes: [u8; 8]) -> u64 {
    u64::from_be_bytes(bytes)
}

/// The word of a general register.
///
/// # Safety
/// `context` is the unwinder's.
pub(crate) unsafe fn get(context: *mut c_void, register: u32) -> usize {
    let mut word = 0;
    // SAFETY: our contract; there are such registers.
    unsafe { _Unwind_VRS_Get(context, UVRSC_CORE, register, UVRSD_UINT32, &mut word) };
    word
}

/// Sets the word of a general register.
///
/// # Safety
/// `context` is the one that the unwinder gave to a personality.
pub(crate) unsafe fn set(context: *mut c_void, register: u32, mut word: usize) {
    // SAFETY: our contract; there are such registers.
    unsafe { _Unwind_VRS_Set(context, UVRSC_CORE, register, UVRSD_UINT32, &mut word) };
}

/// The pc of a context's frame, without the bit for Thumb code.
///
/// # Safety
/// `context` is the unwinder's.
pub unsafe fn context_pc(context: *mut c_void) -> usize {
    // SAFETY: our contract.
    unsafe { get(context, PC) & !1 }
}

/// The pc by which to look up the function of a context's frame. This unwinder takes each pc for a
/// return address.
///
/// # Safety
/// `context` is the unwinder's.
pub unsafe fn context_lookup_pc(context: *mut c_void) -> usize {
    // SAFETY: our contract.
    unsafe { context_pc(context) }.wrapping_sub(1)
}

/// In the frame of a context, the stack pointer behind its call.
///
/// # Safety
/// `context` is the unwinder's.
pub unsafe fn context_sp(context: *mut c_void) -> usize {
    // SAFETY: our contract.
    unsafe { get(context, SP) }
}

/// The registers that functions keep, in the frame to which a forced unwinding has come. The
/// unwinder keeps d8 to d15 in the registers themselves, and asks the stop function about a frame
/// when its personality has restored those of its caller. So they are noted a frame before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    doubles: [usize; 16],
}

impl Kept {
    /// The stop function lets the unwinding pass the frame.
    #[inline(always)]
    pub fn pass(&mut self) {
        // SAFETY: the assembly fills the words. Functions keep these registers, and neither the one
        // that this is inlined into nor its callers up to the unwinder have anything in them.
        unsafe {
            core::arch::asm!(
                "vstm {0}, {{d8-d15}}",
                in(reg) self.doubles.as_mut_ptr(),
                options(nostack, preserves_flags)
            );
        }
    }

    /// The word of a register, by DWARF number.
    ///
    /// # Safety
    /// `context` is the one that the unwinder gave to the stop function.
    pub unsafe fn word(&self, context: *mut c_void, number: u16) -> usize {
        match number.checked_sub(WORDS_OF_D8) {
            Some(index) => self.doubles[usize::from(index)],
            // SAFETY: our contract.
            None => unsafe { get(context, number.into()) },
        }
    }
}

/// Whether a walk has come to the end of the stack: this unwinder calls nothing there.
///
/// # Safety
/// `context` is the unwinder's.
pub unsafe fn is_end(_context: *mut c_void) -> bool {
    false
}
