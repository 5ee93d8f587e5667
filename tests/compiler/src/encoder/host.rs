//! The architecture that this program runs on.

use super::Encoder;
use super::aarch64::Arm64;
use super::armv7::{Armv7, State};
use super::i686::I686;
use super::x86_64::Amd64;

/// Where this variable is set, all functions sign their return addresses, where the machine can.
const SIGNED: &str = "STACKMARK_TEST_SIGNED";
/// Where this variable is set, functions are Thumb code, where the machine has it.
const THUMB: &str = "STACKMARK_TEST_THUMB";

/// What code is like, where the machine has a choice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// It signs its return addresses.
    pub(crate) signs: bool,
}

/// The encoder for this machine.
///
/// # Panics
/// On a machine that there is none for.
pub(crate) fn host(options: Options) -> Box<dyn Encoder> {
    let asked = |variable| std::env::var_os(variable).is_some();
    match std::env::consts::ARCH {
        "x86_64" => Box::new(Amd64 { windows: cfg!(windows) }),
        "x86" => Box::new(I686),
        "aarch64" => Box::new(Arm64 { signs: options.signs || asked(SIGNED) }),
        "arm" if asked(THUMB) => Box::new(Armv7 { state: State::Thumb }),
        "arm" => Box::new(Armv7 { state: State::Arm }),
        other => panic!("no encoder for {other}"),
    }
}

/// An encoder for each architecture, and for what else changes what it makes.
#[cfg(test)]
pub(crate) fn every() -> [(&'static str, Box<dyn Encoder>); 7] {
    [
        ("amd64", Box::new(Amd64 { windows: false })),
        ("amd64_windows", Box::new(Amd64 { windows: true })),
        ("i686", Box::new(I686)),
        ("arm64", Box::new(Arm64 { signs: false })),
        ("arm64_signs", Box::new(Arm64 { signs: true })),
        ("arm", Box::new(Armv7 { state: State::Arm })),
        ("thumb", Box::new(Armv7 { state: State::Thumb })),
    ]
}

/// Has all processors fetch what was written here.
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
pub(crate) fn code_is_written(start: usize, len: usize) {
    /// Of membarrier(2): the private expedited one, and what registers for it.
    const SYNC_CORE: libc::c_int = 1 << 5;
    const REGISTER_SYNC_CORE: libc::c_int = 1 << 6;
    unsafe extern "C" {
        fn __clear_cache(start: *mut libc::c_void, end: *mut libc::c_void);
    }
    let [from, to] = [start, start + len].map(|at| at as *mut libc::c_void);
    // SAFETY: the range is mapped. The second call has no argument that is an address; where it is
    // refused, a processor begins to run the code by way of the kernel, or of a barrier of its own.
    unsafe {
        __clear_cache(from, to);
        libc::syscall(libc::SYS_membarrier, REGISTER_SYNC_CORE, 0, 0);
        libc::syscall(libc::SYS_membarrier, SYNC_CORE, 0, 0);
    }
}

/// Here the processor sees to it.
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
pub(crate) fn code_is_written(_start: usize, _len: usize) {}

/// The protection of pages whose code has a landing pad wherever a jump may go, beside the usual
/// one, where the processor looks at it.
#[cfg(target_arch = "aarch64")]
pub(crate) fn guard() -> i32 {
    const PROT_BTI: i32 = 0x10;
    if std::arch::is_aarch64_feature_detected!("bti") { PROT_BTI } else { 0 }
}

/// The protection of guarded pages, beside the usual one: this processor looks at none.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn guard() -> i32 {
    0
}
