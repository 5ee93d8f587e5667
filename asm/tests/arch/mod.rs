//! What the tests need of an architecture: managed code in assembly, what a hit must keep, and
//! signals at each instruction. One file and one folder of assembly for each.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test uses a part")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "the tests that use it say what they set")]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "arm")]
mod armv7;
#[cfg(target_arch = "x86")]
mod i686;
#[cfg(all(target_arch = "x86_64", not(windows)))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", windows))]
mod x86_64_windows;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::*;
#[cfg(target_arch = "arm")]
pub(crate) use armv7::*;
#[cfg(target_arch = "x86")]
pub(crate) use i686::*;
#[cfg(all(target_arch = "x86_64", not(windows)))]
pub(crate) use x86_64::*;
#[cfg(all(target_arch = "x86_64", windows))]
pub(crate) use x86_64_windows::*;

/// Takes in files of managed code from the architecture's folder, with operands.
macro_rules! assembly {
    ($($file:literal)+ $(, $name:ident = $operand:ident $value:expr)* $(,)?) => {
        #[cfg(target_arch = "aarch64")]
        std::arch::global_asm!(
            include_str!("../src/aarch64/saved.s"),
            $(include_str!(concat!("aarch64/", $file)),)+
            $($name = $operand $value),*
        );
        #[cfg(target_arch = "arm")]
        std::arch::global_asm!(
            include_str!("../src/armv7/saved.s"),
            $(include_str!(concat!("armv7/", $file)),)+
            $($name = $operand $value),*
        );
        #[cfg(target_arch = "x86")]
        std::arch::global_asm!(
            $(include_str!(concat!("i686/", $file)),)+
            $($name = $operand $value),*
        );
        #[cfg(all(target_arch = "x86_64", not(windows)))]
        std::arch::global_asm!(
            $(include_str!(concat!("x86_64/", $file)),)+
            $($name = $operand $value),*
        );
        #[cfg(all(target_arch = "x86_64", windows))]
        std::arch::global_asm!(
            $(include_str!(concat!("x86_64_windows/", $file)),)+
            $($name = $operand $value),*
        );
    };
}
pub(crate) use assembly;

/// Whether a program plays the processor: what a test needs of a real one is not there.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("STACKMARK_TEST_EMULATOR").is_some()
}

/// The highest address of a stack in this memory. What the system's unwinder is told of barriers
/// lies above.
#[cfg(not(windows))]
pub(crate) fn top_of(stack: &mut [u128]) -> usize {
    stack.as_mut_ptr_range().end as usize
}

/// Calls `f` where barriers lie on this thread's own stack, with room above for the same.
#[cfg(not(windows))]
pub(crate) fn on_thread<R>(f: impl FnOnce() -> R) -> R {
    f()
}
