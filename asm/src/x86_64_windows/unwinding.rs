//! What the system's unwinder says of a frame: libgcc's, over that of Windows.

use super::continuation::WORDS_OF_XMM6;
use core::ffi::c_void;

/// libgcc's `_Unwind_Context` here.
#[repr(C)]
struct Context {
    cfa: usize,
    pc: usize,
    registers: [usize; 2],
    dispatcher: *const Dispatcher,
}

/// `DISPATCHER_CONTEXT`: what Windows tells the handler of a frame.
#[repr(C)]
pub(crate) struct Dispatcher {
    /// The frame's pc.
    pub(crate) pc: usize,
    image: usize,
    function: *const c_void,
    frame: usize,
    target: usize,
    /// The registers.
    pub(crate) registers: *mut Registers,
}

/// The registers of a `CONTEXT` that are looked at here.
#[repr(C)]
pub(crate) struct Registers {
    before: [u8; 0x78],
    /// By the processor's numbers, from rax on.
    pub(crate) general: [usize; 16],
    pc: usize,
    between: [u8; 0xa0],
    /// Two words of each.
    vectors: [[usize; 2]; 16],
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Dispatcher, registers) == 0x28);
    assert!(offset_of!(Registers, pc) == 0xf8);
    assert!(offset_of!(Registers, vectors) == 0x1a0);
};

/// The processor's number of the stack pointer.
const RSP: usize = 4;

/// The processor's numbers of registers, by those of DWARF.
const NUMBERS: [usize; 16] = [0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];

/// The type in which a function that stops a forced unwinding gets the class of the exception.
pub type ClassArgument = u64;

/// Whether a forced unwinding comes to each frame, also behind one that it has cleaned up. Here
/// `_Unwind_Resume` does not know of it, and goes to the end of the stack.
pub const FORCES_ALL: bool = false;

/// The words at the end of an `_Unwind_Exception` that belong to the unwinder.
pub const PRIVATE_WORDS: usize = 6;

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
    unsafe { (*context.cast::<Context>()).pc }
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

/// In the frame of a context, the stack pointer behind its call. A walk by `_Unwind_Backtrace` has
/// unwound the frame already: there it is that of the frame's function behind its prologue, if the
/// function has a frame pointer.
///
/// # Safety
/// `context` is the unwinder's.
pub unsafe fn context_sp(context: *mut c_void) -> usize {
    // SAFETY: our contract.
    unsafe {
        let Context { pc, dispatcher, .. } = *context.cast::<Context>();
        let Dispatcher { frame, registers, .. } = *dispatcher;
        if (*registers).pc == pc { (*registers).general[RSP] } else { frame }
    }
}

/// The registers that functions keep, in the frame to which a forced unwinding has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept(());

impl Kept {
    /// The stop function lets the unwinding pass the frame.
    pub fn pass(&mut self) {}

    /// The word of a register, by the number that [`Continuation`](crate::Continuation) takes.
    ///
    /// # Safety
    /// `context` is the one that the unwinder gave to the stop function.
    pub unsafe fn word(&self, context: *mut c_void, number: u16) -> usize {
        // SAFETY: our contract.
        let registers = unsafe { &*(*(*context.cast::<Context>()).dispatcher).registers };
        match number.checked_sub(WORDS_OF_XMM6) {
            Some(word) => registers.vectors[usize::from(6 + word / 2)][usize::from(word % 2)],
            None => registers.general[NUMBERS[usize::from(number)]],
        }
    }
}

/// Whether a walk by `_Unwind_Backtrace` has come to the end of the stack: the frame is the oldest.
///
/// # Safety
/// `context` is the unwinder's.
pub unsafe fn is_end(context: *mut c_void) -> bool {
    // SAFETY: our contract.
    unsafe { (*(*(*context.cast::<Context>()).dispatcher).registers).pc == 0 }
}
