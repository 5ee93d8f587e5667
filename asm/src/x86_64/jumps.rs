//! glibc's `jmp_buf`.

use core::ffi::c_void;

/// The stack pointer of the frame that a `jmp_buf` leads to.
///
/// # Safety
/// `setjmp` of glibc has filled the buffer.
pub unsafe fn jump_target(buffer: *const c_void) -> usize {
    /// `JB_RSP`.
    const STACK_POINTER: usize = 6;
    let guard: usize;
    // SAFETY: reads the thread's pointer guard, and a word of the buffer.
    let word = unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr fs:[0x30]",
            out(reg) guard,
            options(pure, readonly, nostack, preserves_flags)
        );
        buffer.cast::<usize>().add(STACK_POINTER).read()
    };
    // `PTR_DEMANGLE`.
    word.rotate_right(17) ^ guard
}
