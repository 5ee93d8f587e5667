//! armv7. There are no single steps: the system's unwinder walks from calls alone.

use std::sync::atomic::AtomicUsize;

/// DWARF's number of the register that has the return address.
pub(crate) const RETURN_REGISTER: u16 = 14;
/// Callee-saved registers in which `managed` of `switches.s` keeps values.
pub(crate) const KEPT: usize = 16;
/// Those in which `managed_kept_by` of `native.s` does.
pub(crate) const KEPT_BY_NATIVE: usize = 7;
/// Words of 8 bytes in which a native function may return something.
pub(crate) const RESULT_WORDS: usize = 10;

/// Words of the patterns with which `fill_and_check` fills registers: general ones, d0 to d31 from
/// word [`DOUBLES`].
pub(crate) const PATTERN_WORDS: usize = DOUBLES + 32;
const DOUBLES: usize = 16;
/// Kinds of vectors that a processor may have.
pub(crate) const VECTOR_KINDS: u32 = 2;
/// Other states in which a function may return.
pub(crate) const OTHER_STATES: usize = 1;

unsafe extern "C" {
    pub(crate) fn fill_and_check(
        input: *const u64,
        output: *mut u64,
        word: usize,
        saved: *const AtomicUsize,
        kind: usize,
        state: usize,
    );
    pub(crate) fn spoil(kind: usize);
}

/// Changes what cannot hold any pattern.
pub(crate) fn adjust_patterns(_patterns: &mut [u64]) {}

/// The bits of a word of the patterns that a hit must keep.
pub(crate) fn kept_bits(i: usize, kind: usize, _state: usize) -> u64 {
    match i {
        0..13 => u32::MAX.into(),
        // The stack pointer and the registers that lead back.
        ..DOUBLES => 0,
        _ if i - DOUBLES < [16, 32][kind] => u64::MAX,
        _ => 0,
    }
}

/// Whether the word may hold a result by the platform's C convention, or its callee keeps it.
pub(crate) fn is_kept_by_convention(i: usize) -> bool {
    i < DOUBLES + 16
}
