//! What the tests of CFI and of walks say of the architecture.
#![allow(dead_code, reason = "each user takes its part")]

use gimli::{Register, Vendor};

#[cfg(target_arch = "x86_64")]
mod target {
    use super::*;
    use gimli::X86_64;
    pub(super) use gimli::X86_64 as Names;

    pub(crate) const VENDOR: Vendor = Vendor::Default;
    pub(crate) const SP: Register = X86_64::RSP;
    pub(crate) const FP: Register = X86_64::RBP;
    /// The register whose rule finds the return address.
    pub(crate) const RA: Register = X86_64::RA;
    pub(crate) const PC: Register = X86_64::RA;
    /// One that no call keeps.
    pub(crate) const SCRATCH: Register = X86_64::RAX;
    /// Those that every call keeps, the frame pointer first.
    #[cfg(not(windows))]
    pub(crate) const CALLEE_SAVED: [Register; 6] =
        [FP, X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];
    #[cfg(windows)]
    pub(crate) const CALLEE_SAVED: [Register; 8] = [
        FP,
        X86_64::RBX,
        X86_64::R12,
        X86_64::R13,
        X86_64::R14,
        X86_64::R15,
        X86_64::RDI,
        X86_64::RSI,
    ];
    /// The numbers of a walk's registers lie below.
    pub(crate) const REGISTERS: usize = 17;
    /// Bytes that a call pushes.
    pub(crate) const CALL_PUSHES: usize = 8;

    /// The return address in a word that may be a signed one.
    pub(crate) fn return_address(word: usize) -> usize {
        word
    }

    /// Whether a walk knows the register.
    pub(crate) fn is_walked(_register: Register) -> bool {
        true
    }
}

#[cfg(target_arch = "x86")]
mod target {
    use super::*;
    use gimli::X86;
    pub(super) use gimli::X86 as Names;

    pub(crate) const VENDOR: Vendor = Vendor::Default;
    pub(crate) const SP: Register = X86::ESP;
    pub(crate) const FP: Register = X86::EBP;
    /// The register whose rule finds the return address.
    pub(crate) const RA: Register = X86::RA;
    pub(crate) const PC: Register = X86::RA;
    /// One that no call keeps.
    pub(crate) const SCRATCH: Register = X86::EAX;
    /// Those that every call keeps, the frame pointer first.
    pub(crate) const CALLEE_SAVED: [Register; 4] = [FP, X86::EBX, X86::ESI, X86::EDI];
    /// The numbers of a walk's registers lie below.
    pub(crate) const REGISTERS: usize = 9;
    /// Bytes that a call pushes.
    pub(crate) const CALL_PUSHES: usize = 4;

    /// The return address in a word that may be a signed one.
    pub(crate) fn return_address(word: usize) -> usize {
        word
    }

    /// Whether a walk knows the register.
    pub(crate) fn is_walked(_register: Register) -> bool {
        true
    }
}

#[cfg(target_arch = "arm")]
mod target {
    use super::*;
    use gimli::Arm;
    pub(super) use gimli::Arm as Names;

    pub(crate) const VENDOR: Vendor = Vendor::Default;
    pub(crate) const SP: Register = Arm::R13;
    pub(crate) const FP: Register = Arm::R11;
    /// The register whose rule finds the return address.
    pub(crate) const RA: Register = Arm::R14;
    pub(crate) const PC: Register = Arm::R15;
    /// One that no call keeps.
    pub(crate) const SCRATCH: Register = Arm::R0;
    /// Those that every call keeps, the frame pointer first.
    pub(crate) const CALLEE_SAVED: [Register; 24] = {
        let mut all = [FP; 24];
        let mut i = 0;
        while i < 7 {
            all[1 + i] = Register(Arm::R4.0 + i as u16);
            i += 1;
        }
        // The words of d8 to d15.
        while i < 23 {
            all[1 + i] = Register(80 - 7 + i as u16);
            i += 1;
        }
        all
    };
    /// The numbers of a walk's registers lie below.
    pub(crate) const REGISTERS: usize = 96;
    /// Bytes that a call pushes.
    pub(crate) const CALL_PUSHES: usize = 0;

    /// The return address in a word that may have the bit for Thumb code.
    pub(crate) fn return_address(word: usize) -> usize {
        word & !1
    }

    /// Whether a walk knows the register.
    pub(crate) fn is_walked(register: Register) -> bool {
        register.0 <= PC.0 || (80..96).contains(&register.0)
    }
}

#[cfg(target_arch = "aarch64")]
mod target {
    use super::*;
    use gimli::AArch64;
    pub(super) use gimli::AArch64 as Names;

    pub(crate) const VENDOR: Vendor = Vendor::AArch64;
    pub(crate) const SP: Register = AArch64::SP;
    pub(crate) const FP: Register = AArch64::X29;
    /// The register whose rule finds the return address.
    pub(crate) const RA: Register = AArch64::X30;
    pub(crate) const PC: Register = AArch64::PC;
    /// One that no call keeps.
    pub(crate) const SCRATCH: Register = AArch64::X0;
    /// Those that every call keeps, the frame pointer first.
    pub(crate) const CALLEE_SAVED: [Register; 19] = [
        FP,
        AArch64::X19,
        AArch64::X20,
        AArch64::X21,
        AArch64::X22,
        AArch64::X23,
        AArch64::X24,
        AArch64::X25,
        AArch64::X26,
        AArch64::X27,
        AArch64::X28,
        AArch64::V8,
        AArch64::V9,
        AArch64::V10,
        AArch64::V11,
        AArch64::V12,
        AArch64::V13,
        AArch64::V14,
        AArch64::V15,
    ];
    /// The numbers of a walk's registers lie below.
    pub(crate) const REGISTERS: usize = 80;
    /// Bytes that a call pushes.
    pub(crate) const CALL_PUSHES: usize = 0;

    /// The return address in a word that may be a signed one.
    pub(crate) fn return_address(word: usize) -> usize {
        word & 0xffff_ffff_ffff
    }

    /// Whether a walk knows the register.
    pub(crate) fn is_walked(register: Register) -> bool {
        register.0 <= PC.0 || (AArch64::V8.0..=AArch64::V15.0).contains(&register.0)
    }
}

pub(crate) use target::*;

/// The name of a register in a rule in words.
pub(crate) fn name(register: Register) -> &'static str {
    target::Names::register_name(register).expect("a register of the architecture")
}

/// Bytes of a word.
pub(crate) const WORD: usize = size_of::<usize>();
/// As CFI and stack maps count them.
pub(crate) const W: i32 = WORD as i32;
/// Bytes of so many words.
pub(crate) const fn bytes_of(words: u32) -> u32 {
    words * WORD as u32
}
/// The bits of an address, of a word too.
pub(crate) const ADDRESS_BITS: u64 = usize::MAX as u64;

/// Whether a program plays the processor: what a test needs of a real one is not there.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("STACKMARK_TEST_EMULATOR").is_some()
}
