//! x86-64 with the calling convention of Windows.

use stackmark_asm::barrier::{self, BarrierRecord};
use std::cell::Cell;
use std::sync::atomic::AtomicUsize;

/// Callee-saved registers in which `managed` of `switches.s` keeps values.
pub(crate) const KEPT: usize = 18;
/// Those in which `managed_kept_by` of `native.s` does.
pub(crate) const KEPT_BY_NATIVE: usize = 7;
/// Words in which a native function may return something.
pub(crate) const RESULT_WORDS: usize = 3;

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
    // The general registers, xmm0 and xmm1; the callee keeps the lower halves of others.
    matches!(i, 0..15 | 32..34 | 40..42) || i >= 32 + 6 * 8 && (i - 32) % 8 < 2 && i < 32 + 16 * 8
}

/// Records of barriers. Stubs share them: no test has many at once.
const RECORDS: usize = 1 << 10;

thread_local! {
    /// Those above the stack on which barriers lie.
    static ROOM: Cell<*mut BarrierRecord> = const { Cell::new(std::ptr::null_mut()) };
}

/// The highest address of a stack in this memory, with room for records above it.
pub(crate) fn top_of(stack: &mut [u128]) -> usize {
    let end = stack.as_mut_ptr_range().end.cast::<BarrierRecord>();
    let room = end.wrapping_sub(RECORDS);
    ROOM.set(room);
    room as usize
}

/// Calls `f` where barriers lie on this thread's own stack, with room for records above them.
#[inline(never)]
pub(crate) fn on_thread<R>(f: impl FnOnce() -> R) -> R {
    let mut room = [BarrierRecord::default(); RECORDS];
    ROOM.set(std::hint::black_box(room.as_mut_ptr()));
    below(f)
}

/// Calls `f` from a frame below the caller's.
#[inline(never)]
fn below<R>(f: impl FnOnce() -> R) -> R {
    let result = f();
    std::hint::black_box(());
    result
}

/// `hijack` calls it before it changes the slot.
#[unsafe(no_mangle)]
unsafe extern "C" fn describe(word: usize, returns_to: usize, sp: usize) {
    let index = barrier::index_of(word).unwrap();
    let record = ROOM.get().wrapping_add(index % RECORDS);
    unsafe { barrier::describe_barrier(index, returns_to, sp, record) };
}
