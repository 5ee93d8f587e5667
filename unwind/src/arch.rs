//! What differs from architecture to architecture, each in a file of its own. This file is the
//! door, and alone says which one it is. `README.md` says how to add one.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("stackmark-unwind has no file in src/arch for this architecture");

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::*;
#[cfg(target_arch = "aarch64")]
pub use aarch64::{FRAME_POINTER, PC, RETURN_ADDRESS, STACK_POINTER, prefetch};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{FRAME_POINTER, PC, RETURN_ADDRESS, STACK_POINTER, prefetch};

/// The word, with its origin hidden from the compiler: it assumes nothing about the result. A
/// computation from it stays behind its branch, where the processor runs ahead by prediction.
/// Where a loaded word equals a computed one, the computed one is compared through this, and taken
/// through it again: the compiler would take the loaded one.
#[inline(always)]
pub(crate) fn opaque(mut word: usize) -> usize {
    // SAFETY: the assembly has no instruction.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) word, options(nomem, nostack, preserves_flags))
    };
    word
}
