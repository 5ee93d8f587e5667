//! glibc's `jmp_buf`.

use core::ffi::c_void;

/// The stack pointer of the frame that a `jmp_buf` leads to.
///
/// # Safety
/// `setjmp` of glibc has filled the buffer.
pub unsafe fn jump_target(buffer: *const c_void) -> usize {
    /// `JB_SP`.
    const STACK_POINTER: usize = 0;
    // The guard is glibc's own. A buffer filled here, whose stack pointer is known, tells it.
    let mut own = [0_usize; 128];
    let sp: usize;
    // SAFETY: the call fills the buffer, which is larger than a `jmp_buf`; `_setjmp` needs
    // it aligned to a word. Nothing jumps to
    // it. The other buffer is the caller's.
    let word = unsafe {
        core::arch::asm!(
            "bl _setjmp",
            "mov r1, sp",
            inlateout("r0") own.as_mut_ptr() => _,
            lateout("r1") sp,
            clobber_abi("C"),
        );
        buffer.cast::<usize>().add(STACK_POINTER).read()
    };
    // `PTR_MANGLE` is its own inverse.
    word ^ own[STACK_POINTER] ^ sp
}
