//! What the architectures have in common whose calls push the return address: x86-64 and i686.

use super::target::{CALLEE_SAVED, FP_SLOT_BITS, PC, REGISTERS, WORD};
use gimli::Register;

/// The column of a register; `None` for one that has none.
#[inline]
pub(crate) const fn column(register: Register) -> Option<usize> {
    if register.0 <= PC.0 { Some(register.0 as usize) } else { None }
}

/// The register of a column.
#[inline]
pub(crate) const fn register_of(column: usize) -> Register {
    Register(column as u16)
}

/// The words of a register that has two: none has.
#[inline]
pub(crate) const fn words_of(_register: Register) -> Option<[Register; 2]> {
    None
}

/// Bytes that a call pushes: the return address. 0 where a call leaves it in a register.
pub(crate) const CALL_PUSHES: usize = WORD;
/// Bytes from the frame pointer to the CFA in a frame that keeps a frame record: the saved frame
/// pointer, and the return address in the word above it.
pub(crate) const FRAME_RECORD: usize = 2 * WORD;
/// From the frame pointer to the return slot in such a frame, in bytes.
pub(crate) const FRAME_RECORD_RETURN: usize = WORD;

/// From the CFA to the return slot of a frame with a packed rule or a safepoint, in bytes, wherever
/// the frame pointer was saved.
#[inline]
pub(crate) const fn return_offset(_saved_fp: usize) -> isize {
    -(WORD as isize)
}

/// Whether a packed rule can say that the return address is saved at this offset from the CFA, and
/// the frame pointer, if it is, at the other.
pub(crate) fn return_fits(at: i64, _saved_fp: Option<i64>) -> bool {
    at == -(WORD as i64)
}

/// The bits of a packed rule that say where registers are saved, and how many of them, from the
/// lowest on, say it of the frame pointer: as many bits for each register.
pub(crate) const SLOTS_BITS: u32 = FP_SLOT_BITS * CALLEE_SAVED.len() as u32;
/// The largest number of words between the CFA and a saved register.
pub(crate) const LARGEST_SLOT: i64 = SLOT_MASK as i64;
/// The slots of a frame that has saved nothing.
pub(crate) const PLAIN_SLOTS: u64 = 0;
const SLOT_MASK: u64 = (1 << FP_SLOT_BITS) - 1;

/// `FP_SLOT_BITS` for each of [`CALLEE_SAVED`].
pub(crate) type SavedBits = u64;

/// Packs the slots of [`CALLEE_SAVED`], in words below the CFA; 0 for registers that are not saved.
pub(crate) fn pack_slots(slots: &[u64; CALLEE_SAVED.len()]) -> Option<u64> {
    let pack = |bits: u64, (i, slot): (usize, &u64)| bits | slot << (FP_SLOT_BITS * i as u32);
    Some(slots.iter().enumerate().fold(0, pack))
}

/// The slot of register `index` of [`CALLEE_SAVED`]; 0 if it is not saved.
#[inline]
pub(crate) const fn slot(bits: u64, index: usize) -> usize {
    (bits >> (FP_SLOT_BITS * index as u32) & SLOT_MASK) as usize
}

/// Which registers have slots: the bits of one that has none are 0.
#[inline]
pub(crate) const fn saved_bits(bits: u64) -> SavedBits {
    bits
}

/// The place of register `index` of [`CALLEE_SAVED`] in [`SavedBits`].
#[inline]
pub(crate) const fn register_bits(index: usize) -> SavedBits {
    SLOT_MASK << (FP_SLOT_BITS * index as u32)
}

/// The register of CFI that says whether the return address is signed: none is here.
pub(crate) const SIGN_STATE: Option<Register> = None;
/// Whether an atomic read-modify-write orders all accesses before it with all behind it.
#[cfg_attr(all(test, stackmark_loom), expect(dead_code, reason = "loom has a model of its own"))]
pub(crate) const RMW_IS_FULL_BARRIER: bool = true;

/// The return address in a word that may be a signed one.
#[inline(always)]
pub(crate) const fn without_signature(word: usize) -> usize {
    word
}

/// Whether a signal handler returns to this code, which no CFI describes: there is CFI.
pub(crate) const fn is_signal_return(_code: u64) -> bool {
    false
}

/// Where a frame whose code that is has the words of its caller, by column.
pub(crate) fn signal_frame(
    _sp: usize,
    _read: impl Fn(usize) -> Option<usize>,
) -> [Option<usize>; REGISTERS] {
    [None; REGISTERS]
}

/// A frame that a stub of the procedure linkage table has made so far.
pub(crate) type LinkageFrame = (usize, Option<isize>);

/// Where a stub of the procedure linkage table stands: linkers describe it by CFI.
pub(crate) fn linkage_stub(
    _pc: usize,
    _code: impl Fn(usize) -> Option<u64>,
) -> Option<LinkageFrame> {
    None
}
