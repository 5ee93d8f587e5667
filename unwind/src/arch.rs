//! What differs from architecture to architecture, each in a file of its own. This file is the
//! door, and alone says which one it is. `README.md` says how to add one.

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "x86",
    target_arch = "arm"
)))]
compile_error!("stackmark-unwind has no file in src/arch for this architecture");

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
mod pushed;
#[cfg(target_arch = "aarch64")]
#[path = "arch/aarch64.rs"]
mod target;
#[cfg(target_arch = "arm")]
#[path = "arch/armv7.rs"]
mod target;
#[cfg(target_arch = "x86")]
#[path = "arch/i686.rs"]
mod target;
#[cfg(target_arch = "x86_64")]
#[path = "arch/x86_64.rs"]
mod target;

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
pub(crate) use pushed::*;
pub(crate) use target::*;
pub use target::{FRAME_POINTER, PC, RETURN_ADDRESS, STACK_POINTER, prefetch};

/// The bits of an address. Those of CFI are numbers of 64 bits on every machine, and sums of them
/// wrap around where the machine's do.
pub(crate) const ADDRESS_BITS: u64 = usize::MAX as u64;

/// The address so many bytes further up; `None` behind the last one.
#[inline]
pub(crate) fn address_behind(address: u64, bytes: u64) -> Option<u64> {
    address.checked_add(bytes).filter(|behind| usize::try_from(*behind).is_ok())
}

/// The registers at one point in a function.
pub(crate) struct Captured {
    pub(crate) pc: usize,
    pub(crate) sp: usize,
    /// In the order of [`CALLEE_SAVED`].
    pub(crate) callee_saved: [usize; CALLEE_SAVED.len()],
}

/// The registers of the function that this is inlined into.
#[inline(always)]
pub(crate) fn capture() -> Captured {
    let [pc, sp, callee_saved @ ..] = captured();
    Captured { pc, sp, callee_saved }
}

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
