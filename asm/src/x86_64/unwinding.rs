//! What the system's unwinder says of a frame, by the Itanium C++ ABI.

use core::ffi::{c_int, c_void};

unsafe extern "C" {
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn _Unwind_GetIPInfo(context: *mut c_void, exact: *mut c_int) -> usize;
    fn _Unwind_GetCFA(context: *mut c_void) -> usize;
    fn _Unwind_GetGR(context: *mut c_void, register: c_int) -> usize;
}

/// The type in which a function that stops a forced unwinding gets the class of the exception.
pub type ClassArgument = u64;

/// Whether a forced unwinding comes to each frame, also behind one that it has cleaned up.
pub const FORCES_ALL: bool = true;

/// The words at the end of an `_Unwind_Exception` that belong to the unwinder.
pub const PRIVATE_WORDS: usize = 2;

/// The bytes with which an exception of a class begins.
pub fn class_bytes(class: u64) -> [u8; 8] {
    class.to_ne_bytes()
}

/// The class of an exception that begins with these bytes.
pub fn class(bytes: [u8; 8]) -> u64 {
    u64::from_ne_bytes(bytes)
}

/// The pc of a context's frame.
///
/// # Safety
/// `context` is the unwinder's.
pub unsafe fn context_pc(context: *mut c_void) -> usize {
    // SAFETY: our contract.
    unsafe { _Unwind_GetIP(context) }
}

/// The pc by which to look up the function of a context's frame.
///
/// # Safety
/// `context` is the unwinder's.
pub unsafe fn context_lookup_pc(context: *mut c_void) -> usize {
    let mut exact = 0;
    // SAFETY: our contract; the word outlives the call.
    let pc = unsafe { _Unwind_GetIPInfo(context, &mut exact) };
    pc.wrapping_sub(usize::from(exact == 0))
}

/// In the frame of a context, the stack pointer behind its call.
///
/// # Safety
/// `context` is the unwinder's.
pub unsafe fn context_sp(context: *mut c_void) -> usize {
    // SAFETY: our contract.
    unsafe { _Unwind_GetCFA(context) }
}

/// The registers that functions keep, in the frame to which a forced unwinding has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept(());

impl Kept {
    /// The stop function lets the unwinding pass the frame.
    pub fn pass(&mut self) {}

    /// The word of a register, by DWARF number.
    ///
    /// # Safety
    /// `context` is the one that the unwinder gave to the stop function.
    pub unsafe fn word(&self, context: *mut c_void, number: u16) -> usize {
        // SAFETY: our contract. The unwinder knows all registers that a function keeps.
        unsafe { _Unwind_GetGR(context, c_int::from(number)) }
    }
}

/// Whether a walk has come to the end of the stack.
///
/// # Safety
/// `context` is the unwinder's.
pub unsafe fn is_end(context: *mut c_void) -> bool {
    // SAFETY: our contract.
    unsafe { _Unwind_GetIP(context) == 0 }
}
