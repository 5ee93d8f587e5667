//! i686.

use std::ops::Range;
use std::sync::atomic::AtomicUsize;

/// DWARF's number of the register that has the return address.
pub(crate) const RETURN_REGISTER: u16 = 8;
/// Callee-saved registers in which `managed` of `switches.s` keeps values.
pub(crate) const KEPT: usize = 4;
/// Those in which `managed_kept_by` of `native.s` does.
pub(crate) const KEPT_BY_NATIVE: usize = 3;
/// Words of 8 bytes in which a native function may return something.
pub(crate) const RESULT_WORDS: usize = 4;

/// Words of the patterns with which `fill_and_check` fills registers: general ones, the x87 stack,
/// masks from word 17, vectors from word 32.
pub(crate) const PATTERN_WORDS: usize = (256 + 8 * 64) / 8;
/// Kinds of vectors that a processor may have.
pub(crate) const VECTOR_KINDS: u32 = 4;
/// Other states in which a function may return: how many x87 registers are in use.
pub(crate) const OTHER_STATES: usize = 3;

unsafe extern "C" {
    pub(crate) fn fill_and_check(
        input: *const u64,
        output: *mut u64,
        word: usize,
        saved: *const AtomicUsize,
        kind: usize,
        x87: usize,
    );
    pub(crate) fn spoil(kind: usize);
}

/// Changes what cannot hold any pattern.
pub(crate) fn adjust_patterns(patterns: &mut [u64]) {
    (patterns[15], patterns[16]) = (1.25f64.to_bits(), (-3e300f64).to_bits());
}

/// The bits of a word of the patterns that a hit must keep.
pub(crate) fn kept_bits(i: usize, kind: usize, x87: usize) -> u64 {
    match i {
        0..7 => u32::MAX.into(),
        15..17 if i - 15 < x87 => u64::MAX,
        17..25 if kind == 2 => 0xffff,
        17..25 if kind > 2 => u64::MAX,
        ..32 => 0,
        _ if (i - 32) % 8 < [2, 4, 8, 8][kind] => u64::MAX,
        _ => 0,
    }
}

/// Whether the word may hold a result by the platform's C convention, or its callee keeps it.
pub(crate) fn is_kept_by_convention(i: usize) -> bool {
    // The general registers, st0 and st1, xmm0.
    matches!(i, 0..7 | 15..17 | 32..34)
}

/// The trap flag of the processor: a signal after each instruction.
const TRAP: i32 = 0x100;

/// Makes a signal come at each instruction.
///
/// # Safety
/// `SIGTRAP` has a handler that calls [`pass`].
#[inline(always)]
pub(crate) unsafe fn begin_steps(_assembly: Range<usize>) {
    unsafe { std::arch::asm!("pushfd", "or dword ptr [esp], {trap}", "popfd", trap = const TRAP) };
}

/// The signals end soon: at the next, [`pass`] is to say so.
///
/// # Safety
/// Follows a `begin_steps`.
#[inline(always)]
pub(crate) unsafe fn end_steps() {
    // One more instruction, at which the handler clears the flag.
    std::hint::black_box(());
}

/// Lets the handler's signal be followed by the next, or not.
///
/// # Safety
/// `context` is the handler's.
pub(crate) unsafe fn pass(context: *mut libc::ucontext_t, go_on: bool) {
    if !go_on {
        unsafe { (*context).uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP };
    }
}

/// The pc that a signal has interrupted.
///
/// # Safety
/// `context` is a handler's.
pub(crate) unsafe fn interrupted_pc(context: *mut libc::ucontext_t) -> usize {
    unsafe { (*context).uc_mcontext.gregs[libc::REG_EIP as usize] as usize }
}
