//! The packed unwind rule: how to find a frame's caller, in 64 bits.
//!
//! A rule says where the CFA is, where each callee-saved register was saved, and whether the frame
//! is the oldest one. The return slot is at a fixed distance from the CFA, or from where the frame
//! pointer was saved. A row of CFI that says anything else is kept as a row. Its packed rule holds
//! the row's number and why it is a row.
//!
//! ```text
//! bits  0..2   kind: 0 CFA = sp + offset, 1 CFA = fp + offset, 2 CFA = *(fp + offset),
//!              3 no rule, or a row
//! bit   2      the frame is the oldest one: it has no return address
//! bits  3..28  CFA offset in words, signed for kind 2;
//!              for kind 3 why it is a row, 0 if there is no rule at all
//! bits 28..64  the slots of callee-saved registers, which the architecture packs: the register
//!              is saved at CFA - slot words; for kind 2 at fp - (slot - 1) words; 0 = not saved.
//!              For kind 3 the number of the row
//! ```
//!
//! Kind 2 is how GCC describes a frame that it has realigned: the CFA was spilled beside the saved
//! frame pointer. Where a call does not push the return address, such a row stays a row.

use core::fmt;

use super::expression;
use super::row::{Bytes, Cfa, CfiRow, Saved};
use crate::arch::{
    self, CALL_PUSHES, CALLEE_SAVED, FP_SLOT_BITS, FRAME_POINTER, FRAME_RECORD, LARGEST_SLOT,
    PLAIN_SLOTS, RETURN_ADDRESS, SLOTS_BITS, STACK_POINTER, WORD, register_name, return_offset,
};

pub(crate) use crate::arch::SavedBits;

const KIND_SP: u64 = 0;
const KIND_FP: u64 = 1;
const KIND_REALIGNED: u64 = 2;
const KIND_NONE: u64 = 3;
const KIND_MASK: u64 = 3;
const OLDEST: u64 = 1 << 2;
const OFFSET_SHIFT: u32 = 3;
const OFFSET_BITS: u32 = 25;
/// From bytes to words in their place: where words have 8 bytes, these are the same bits.
const BYTES_SHIFT: u32 = OFFSET_SHIFT - WORD.trailing_zeros();
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const SLOTS_SHIFT: u32 = OFFSET_SHIFT + OFFSET_BITS;
const FP_SLOT_MASK: u64 = (1 << FP_SLOT_BITS) - 1;

const _: () = assert!(SLOTS_SHIFT + SLOTS_BITS <= u64::BITS);

/// Why a row of CFI has no packed rule. A walk interprets such a row each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Unsupported {
    /// The CFA is computed by a DWARF expression.
    CfaExpression = 1,
    /// The CFA is relative to a register other than the stack and the frame pointer.
    CfaRegister,
    /// The CFA's offset is negative, no multiple of the word, or 2^25 words and more.
    CfaOffset,
    /// The return address is not where a packed rule has it: right below the CFA where a call
    /// pushes it, and else in the word above the saved frame pointer.
    ReturnAddress,
    /// The caller's stack pointer is not the CFA.
    StackPointer,
    /// A callee-saved register is saved too far below the CFA, above it, unaligned, or in an order
    /// that is not packed.
    SavedFar,
    /// A callee-saved register is saved otherwise than at an offset from the CFA.
    SavedByRule,
    /// A signal frame: the pc of its caller is no return address.
    SignalFrame,
    /// A register that is not callee-saved has a rule.
    CallerSaved,
}

impl Unsupported {
    const ALL: [Unsupported; 9] = [
        Unsupported::CfaExpression,
        Unsupported::CfaRegister,
        Unsupported::CfaOffset,
        Unsupported::ReturnAddress,
        Unsupported::StackPointer,
        Unsupported::SavedFar,
        Unsupported::SavedByRule,
        Unsupported::SignalFrame,
        Unsupported::CallerSaved,
    ];
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unsupported::CfaExpression => "its CFA is a DWARF expression",
            Unsupported::CfaRegister => "its CFA is relative to an unusual register",
            Unsupported::CfaOffset => "the offset of its CFA is out of range",
            Unsupported::ReturnAddress => "its return address is at an unusual place",
            Unsupported::StackPointer => "its caller's stack pointer is not its CFA",
            Unsupported::SavedFar => "it saves a register at an unusual distance from its CFA",
            Unsupported::SavedByRule => {
                "it saves a register otherwise than at an offset from its CFA"
            }
            Unsupported::SignalFrame => "it is a signal frame",
            Unsupported::CallerSaved => "it has a rule for a register that is not callee-saved",
        })
    }
}

/// A packed rule. Every bit pattern that this module makes has exactly one meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PackedRule(u64);

/// What a packed rule says of the CFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// This many bytes above the stack pointer.
    StackPointer(usize),
    /// This many bytes above the frame pointer.
    FramePointer(usize),
    /// In the word this many bytes above the frame pointer.
    Realigned(isize),
    /// The row with this number says it.
    Row(Unsupported, u32),
    /// Nothing.
    None,
}

/// What the CFA is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    StackPointer,
    FramePointer,
}

impl PackedRule {
    /// No CFI covers the pc.
    pub(crate) const NONE: PackedRule = PackedRule(KIND_NONE);

    /// There is no caller.
    pub(crate) const OLDEST: PackedRule = PackedRule(KIND_SP | OLDEST);

    /// The CFA `cfa_offset` bytes above the stack pointer, the return address right below it, no
    /// register saved, or the frame pointer alone where a frame record has it. `None` unless the
    /// offset is a multiple of the word and fits.
    pub(crate) fn fixed(cfa_offset: usize) -> Option<PackedRule> {
        let words = (cfa_offset / WORD) as u64;
        (cfa_offset.is_multiple_of(WORD) && words <= OFFSET_MASK)
            .then_some(PackedRule(KIND_SP | words << OFFSET_SHIFT | PLAIN_SLOTS << SLOTS_SHIFT))
    }

    /// The row of CFI with this number, and why it is not packed.
    pub(crate) fn row(why: Unsupported, number: u32) -> PackedRule {
        PackedRule(KIND_NONE | (why as u64) << OFFSET_SHIFT | u64::from(number) << SLOTS_SHIFT)
    }

    /// Packs one row, or says why it cannot be packed. Its expressions lie in `section`.
    pub(crate) fn pack(row: &CfiRow, section: &[u8]) -> Result<PackedRule, Unsupported> {
        if row.is_of_signal() {
            return Err(Unsupported::SignalFrame);
        }
        let base_plus = |at: Bytes, dereferenced| {
            let (register, offset) = expression::register_plus(at.of(section), dereferenced)?;
            (register == FRAME_POINTER && offset % WORD as i64 == 0).then_some(offset / WORD as i64)
        };
        let (kind, words) = match row.cfa {
            Cfa::Register(register, offset) => {
                let kind = match register {
                    STACK_POINTER => KIND_SP,
                    FRAME_POINTER => KIND_FP,
                    _ => return Err(Unsupported::CfaRegister),
                };
                if offset < 0
                    || offset % WORD as i64 != 0
                    || offset / WORD as i64 >= 1 << OFFSET_BITS
                {
                    return Err(Unsupported::CfaOffset);
                }
                (kind, offset / WORD as i64)
            }
            Cfa::Expression(at) => {
                let words = base_plus(at, true).ok_or(Unsupported::CfaExpression)?;
                if !(-1 << (OFFSET_BITS - 1)..1 << (OFFSET_BITS - 1)).contains(&words) {
                    return Err(Unsupported::CfaOffset);
                }
                (KIND_REALIGNED, words)
            }
        };
        match row.saved(STACK_POINTER) {
            Saved::Unspecified | Saved::ValOffset(0) => {}
            _ => return Err(Unsupported::StackPointer),
        }
        let mut bits = kind | (words as u64 & OFFSET_MASK) << OFFSET_SHIFT;
        let saved_fp = match row.saved(FRAME_POINTER) {
            Saved::Offset(at) => Some(at),
            _ => None,
        };
        // What a realigned frame saves lies at no fixed distance from its CFA.
        let fits =
            |at| (CALL_PUSHES != 0 || kind != KIND_REALIGNED) && arch::return_fits(at, saved_fp);
        match row.saved(RETURN_ADDRESS) {
            Saved::Offset(at) if fits(at) => {}
            Saved::Undefined => return Ok(PackedRule(bits | OLDEST)),
            _ => return Err(Unsupported::ReturnAddress),
        }
        let mut slots = [0; CALLEE_SAVED.len()];
        for (register, rule) in row.specified() {
            if matches!(register, STACK_POINTER | RETURN_ADDRESS) {
                continue;
            }
            let Some(i) = CALLEE_SAVED.into_iter().position(|saved| saved == register) else {
                match rule {
                    Saved::Undefined => continue,
                    _ => return Err(Unsupported::CallerSaved),
                }
            };
            let slot = match rule {
                Saved::Same => continue,
                Saved::Offset(at) if kind != KIND_REALIGNED => {
                    if at >= 0 || at % WORD as i64 != 0 {
                        return Err(Unsupported::SavedFar);
                    }
                    -(at / WORD as i64)
                }
                Saved::Expression(at) if kind == KIND_REALIGNED => {
                    1 - base_plus(at, false).ok_or(Unsupported::SavedByRule)?
                }
                _ => return Err(Unsupported::SavedByRule),
            };
            if !(1..=LARGEST_SLOT).contains(&slot) {
                return Err(Unsupported::SavedFar);
            }
            slots[i] = slot as u64;
        }
        bits |= arch::pack_slots(&slots).ok_or(Unsupported::SavedFar)? << SLOTS_SHIFT;
        Ok(PackedRule(bits))
    }

    /// The CFA `cfa_offset` bytes above its base, the return address at an offset from there, and
    /// so the registers of [`CALLEE_SAVED`] that are saved, 0 for the others. `None` where
    /// [`pack`](PackedRule::pack) says why not.
    #[inline]
    pub(crate) fn plain(
        base: Base,
        cfa_offset: u32,
        return_at: i32,
        saved: &[i32; CALLEE_SAVED.len()],
    ) -> Option<PackedRule> {
        let saved_fp = (saved[0] != 0).then_some(i64::from(saved[0]));
        let in_words = |bytes: u32| bytes.is_multiple_of(WORD as u32);
        if !in_words(cfa_offset)
            || cfa_offset as usize / WORD >= 1 << OFFSET_BITS
            || !arch::return_fits(return_at.into(), saved_fp)
        {
            return None;
        }
        let (mut slots, mut all) = ([0; CALLEE_SAVED.len()], 0);
        for (slot, at) in slots.iter_mut().zip(saved) {
            let below = at.wrapping_neg() as u32;
            all |= below;
            *slot = u64::from(below) / WORD as u64;
            if *slot > LARGEST_SLOT as u64 {
                return None;
            }
        }
        if !in_words(all) {
            return None;
        }
        let kind = match base {
            Base::StackPointer => KIND_SP,
            Base::FramePointer => KIND_FP,
        };
        let bits = kind | u64::from(cfa_offset) << BYTES_SHIFT;
        Some(PackedRule(bits | arch::pack_slots(&slots)? << SLOTS_SHIFT))
    }

    /// What the rule says.
    #[inline]
    pub(crate) fn shape(self) -> Shape {
        let offset = self.0 >> OFFSET_SHIFT & OFFSET_MASK;
        match self.0 & KIND_MASK {
            KIND_SP => Shape::StackPointer(offset as usize * WORD),
            KIND_FP => Shape::FramePointer(offset as usize * WORD),
            KIND_REALIGNED => {
                let unused = u64::BITS - OFFSET_BITS;
                Shape::Realigned(((offset << unused) as i64 >> unused) as isize * WORD as isize)
            }
            _ => match Unsupported::ALL.into_iter().find(|why| *why as u64 == offset) {
                None => Shape::None,
                Some(why) => Shape::Row(why, (self.0 >> SLOTS_SHIFT) as u32),
            },
        }
    }

    /// Whether the CFA is relative to the frame pointer (or else to the stack pointer), and its
    /// distance from there in bytes. `None` for the oldest frame, and for rules that find the CFA
    /// in memory.
    #[inline]
    pub(crate) fn simple(self) -> Option<(bool, usize)> {
        const { assert!(KIND_SP == 0 && KIND_FP == 1) };
        let odd = (KIND_MASK & !KIND_FP) | OLDEST;
        (self.0 & odd == 0).then_some((
            self.0 & KIND_FP != 0,
            (self.0 & OFFSET_MASK << OFFSET_SHIFT) as usize >> BYTES_SHIFT,
        ))
    }

    /// Whether the frame keeps a frame record: the saved frame pointer lies at the frame pointer,
    /// and the CFA behind the record.
    #[inline]
    pub(crate) fn is_frame_record(self) -> bool {
        const MASK: u64 =
            KIND_MASK | OLDEST | OFFSET_MASK << OFFSET_SHIFT | FP_SLOT_MASK << SLOTS_SHIFT;
        const WORDS: u64 = (FRAME_RECORD / WORD) as u64;
        self.0 & MASK == KIND_FP | WORDS << OFFSET_SHIFT | WORDS << SLOTS_SHIFT
    }

    /// The register to which the CFA is relative, and its distance from there in bytes. The error
    /// says why there is no such register; `None` if no CFI covers the pc.
    #[inline]
    pub(crate) fn cfa(self) -> Result<(Base, usize), Option<Unsupported>> {
        match self.shape() {
            Shape::StackPointer(offset) => Ok((Base::StackPointer, offset)),
            Shape::FramePointer(offset) => Ok((Base::FramePointer, offset)),
            Shape::Realigned(_) => Err(Some(Unsupported::CfaExpression)),
            Shape::Row(why, _) => Err(Some(why)),
            Shape::None => Err(None),
        }
    }

    /// Where the return address of a frame with this CFA stands.
    #[inline]
    pub(crate) fn return_slot(self, cfa: usize) -> usize {
        cfa.wrapping_add_signed(return_offset(self.saved_fp()))
    }

    /// Whether the frame is the oldest of its stack.
    #[inline]
    pub(crate) fn is_oldest(self) -> bool {
        self.0 & OLDEST != 0
    }

    /// How far below the CFA register `index` of [`CALLEE_SAVED`] was saved, in bytes; 0 if it was
    /// not saved. In a realigned frame the distance is from the word above the frame pointer's.
    #[inline]
    pub(crate) fn saved(self, index: usize) -> usize {
        arch::slot(self.slots(), index) * WORD
    }

    #[inline]
    fn slots(self) -> u64 {
        self.0 >> SLOTS_SHIFT
    }

    /// Which registers were saved. The bits of one that was not are 0.
    #[inline]
    pub(crate) fn saved_bits(self) -> SavedBits {
        arch::saved_bits(self.slots())
    }

    /// The place of register `index` of [`CALLEE_SAVED`] in those bits.
    #[inline]
    pub(crate) fn register_bits(index: usize) -> SavedBits {
        arch::register_bits(index)
    }

    /// How far below the CFA the frame pointer was saved, in bytes; 0 if it was not.
    #[inline]
    pub(crate) fn saved_fp(self) -> usize {
        self.saved(0)
    }
}

/// The rule in words; of a row only why it is one.
impl fmt::Debug for PackedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = match self.shape() {
            Shape::None => return f.write_str("no rule"),
            Shape::Row(why, number) => return write!(f, "row {number}: {why}"),
            Shape::StackPointer(offset) => {
                write!(f, "cfa=sp+{offset}")?;
                "cfa"
            }
            Shape::FramePointer(offset) => {
                write!(f, "cfa=fp+{offset}")?;
                "cfa"
            }
            Shape::Realigned(offset) => {
                write!(f, "cfa=*(fp{offset:+})")?;
                if WORD == 8 { "fp+8" } else { "fp+4" }
            }
        };
        for (i, register) in CALLEE_SAVED.into_iter().enumerate() {
            if self.saved(i) != 0 {
                let name = register_name(register).unwrap_or("?");
                write!(f, " {name}=[{below}-{}]", self.saved(i))?;
            }
        }
        if self.is_oldest() {
            f.write_str(" oldest")
        } else {
            write!(f, " ra=[cfa{:+}]", return_offset(self.saved_fp()))
        }
    }
}
