//! x86-64.

use std::ops::Range;
use std::sync::atomic::AtomicUsize;

/// DWARF's number of the register that has the return address.
pub(crate) const RETURN_REGISTER: u16 = 16;
/// Callee-saved registers in which `managed` of `switches.s` keeps values.
pub(crate) const KEPT: usize = 6;
/// Those in which `managed_kept_by` of `native.s` does.
pub(crate) const KEPT_BY_NATIVE: usize = 5;
/// Words in which a native function may return something.
pub(crate) const RESULT_WORDS: usize = 6;

/// Words of the patterns with which `fill_and_check` fills registers: general ones, the x87 stack,
/// masks from word 17, vectors from word 32.
pub(crate) const PATTERN_WORDS: usize = (256 + 32 * 64) / 8;
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
    let is_kept = match i {
        0..15 => true,
        15..17 => i - 15 < x87,
        17..25 => kind >= 2,
        25..32 => false,
        _ => {
            let (register, word) = ((i - 32) / 8, (i - 32) % 8);
            word < [2, 4, 8, 8][kind] && register < [16, 16, 32, 32][kind]
        }
    };
    match is_kept {
        false => 0,
        true if kind == 2 && (17..25).contains(&i) => 0xffff,
        true => u64::MAX,
    }
}

/// Whether the word may hold a result by the platform's C convention, or its callee keeps it.
pub(crate) fn is_kept_by_convention(i: usize) -> bool {
    // The general registers, xmm0 and xmm1.
    matches!(i, 0..15 | 32..34 | 40..42)
}

/// The trap flag of the processor: a signal after each instruction.
const TRAP: u64 = 0x100;

/// Makes a signal come at each instruction.
///
/// # Safety
/// `SIGTRAP` has a handler that calls [`pass`].
#[inline(always)]
pub(crate) unsafe fn begin_steps(_assembly: Range<usize>) {
    unsafe { std::arch::asm!("pushfq", "or qword ptr [rsp], {trap}", "popfq", trap = const TRAP) };
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
        unsafe { (*context).uc_mcontext.gregs[libc::REG_EFL as usize] &= !(TRAP as i64) };
    }
}

/// The pc that a signal has interrupted.
///
/// # Safety
/// `context` is a handler's.
pub(crate) unsafe fn interrupted_pc(context: *mut libc::ucontext_t) -> usize {
    unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] as usize }
}
