//! glibc's `jmp_buf`.

use core::ffi::c_void;

/// The stack pointer of the frame that a `jmp_buf` leads to.
///
/// # Safety
/// `setjmp` of glibc has filled the buffer.
pub unsafe fn jump_target(buffer: *const c_void) -> usize {
    /// `JB_SP`.
    const STACK_POINTER: usize = 4;
    let guard: usize;
    // SAFETY: reads the thread's pointer guard, and a word of the buffer.
    let word = unsafe {
        core::arch::asm!(
            "mov {0}, dword ptr gs:[0x18]",
            out(reg) guard,
            options(pure, readonly, nostack, preserves_flags)
        );
        buffer.cast::<usize>().add(STACK_POINTER).read()
    };
    // `PTR_DEMANGLE`.
    word.rotate_right(9) ^ guard
}
