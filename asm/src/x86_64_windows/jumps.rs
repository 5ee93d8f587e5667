//! The C library's `jmp_buf`.

use core::ffi::c_void;

/// The stack pointer of the frame that a `jmp_buf` leads to.
///
/// # Safety
/// `setjmp` of the system's C library has filled the buffer.
pub unsafe fn jump_target(buffer: *const c_void) -> usize {
    /// `_JUMP_BUFFER::Rsp`.
    const STACK_POINTER: usize = 2;
    // SAFETY: our contract.
    unsafe { buffer.cast::<usize>().add(STACK_POINTER).read() }
}
