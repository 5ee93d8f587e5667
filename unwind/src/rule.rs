//! The packed unwind rule: how to find a frame's caller, in 64 bits. Also the one place that names registers.
//!
//! A rule says where the CFA is (stack pointer plus offset, or frame pointer plus offset), where each callee-saved
//! register was saved relative to it, and whether the frame is the oldest one. The return address is at CFA-8,
//! always: a row of CFI that says otherwise becomes an unsupported rule, which names the reason.
//!
//! ```text
//! bits  0..2   kind: 0 CFA = sp + offset, 1 CFA = fp + offset, 2 reserved, 3 no rule; why is in bits 3..8
//! bit   2      the frame is the oldest one: it has no return address
//! bits  3..28  CFA offset / 8
//! bits 28..64  six 6-bit slots: rbp rbx r12 r13 r14 r15 was saved at CFA - 8 * slot; 0 = not saved
//! ```

use core::fmt;

use gimli::{CfaRule, Register, RegisterRule, UnwindTableRow, X86_64};

/// Bytes of a word, of a stack slot and of a return address.
pub(crate) const WORD: usize = 8;

const STACK_POINTER: Register = X86_64::RSP;
const FRAME_POINTER: Register = X86_64::RBP;
const RETURN_ADDRESS: Register = X86_64::RA;
/// The callee-saved registers in the order of a rule's slots. The frame pointer comes first.
pub(crate) const CALLEE_SAVED: [Register; 6] =
    [FRAME_POINTER, X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];

const KIND_SP: u64 = 0;
const KIND_FP: u64 = 1;
const KIND_NONE: u64 = 3;
const KIND_MASK: u64 = 3;
const OLDEST: u64 = 1 << 2;
const OFFSET_SHIFT: u32 = 3;
const OFFSET_BITS: u32 = 25;
const SLOTS_SHIFT: u32 = OFFSET_SHIFT + OFFSET_BITS;
const SLOT_BITS: u32 = 6;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Why a pc has CFI, but no packed rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Unsupported {
    /// The CFA is computed by a DWARF expression.
    CfaExpression = 1,
    /// The CFA is relative to a register other than the stack and the frame pointer.
    CfaRegister,
    /// The CFA's offset is negative, no multiple of the word, or 256 MiB and more.
    CfaOffset,
    /// The return address is not at CFA-8.
    ReturnAddress,
    /// The caller's stack pointer is not the CFA.
    StackPointer,
    /// A callee-saved register is saved farther than 504 bytes below the CFA, above it, or unaligned.
    SavedFar,
    /// A callee-saved register is saved by something else than an offset from the CFA.
    SavedByRule,
    /// A signal frame: its pc is no return address.
    SignalFrame,
}

impl Unsupported {
    const ALL: [Unsupported; 8] = [
        Unsupported::CfaExpression,
        Unsupported::CfaRegister,
        Unsupported::CfaOffset,
        Unsupported::ReturnAddress,
        Unsupported::StackPointer,
        Unsupported::SavedFar,
        Unsupported::SavedByRule,
        Unsupported::SignalFrame,
    ];
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unsupported::CfaExpression => "its CFA is a DWARF expression",
            Unsupported::CfaRegister => "its CFA is relative to an unusual register",
            Unsupported::CfaOffset => "the offset of its CFA is out of range",
            Unsupported::ReturnAddress => "its return address is not at CFA-8",
            Unsupported::StackPointer => "its caller's stack pointer is not its CFA",
            Unsupported::SavedFar => "it saves a register too far from its CFA",
            Unsupported::SavedByRule => "it saves a register otherwise than at an offset from its CFA",
            Unsupported::SignalFrame => "it is a signal frame",
        })
    }
}

/// A packed rule. Total: every bit pattern that this module makes decodes to exactly one meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Rule(u64);

/// What the CFA is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    StackPointer,
    FramePointer,
}

impl Rule {
    /// No CFI covers the pc.
    pub(crate) const NONE: Rule = Rule(KIND_NONE);

    pub(crate) fn unsupported(why: Unsupported) -> Rule {
        Rule(KIND_NONE | (why as u64) << OFFSET_SHIFT)
    }

    /// Packs one row, or says why it cannot be packed. A register whose old value is undefined counts as not saved,
    /// as the system's unwinders have it.
    pub(crate) fn pack<T: gimli::ReaderOffset>(row: &UnwindTableRow<T>) -> Result<Rule, Unsupported> {
        let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
            return Err(Unsupported::CfaExpression);
        };
        let kind = match register {
            STACK_POINTER => KIND_SP,
            FRAME_POINTER => KIND_FP,
            _ => return Err(Unsupported::CfaRegister),
        };
        if offset < 0 || offset % WORD as i64 != 0 || offset / WORD as i64 >= 1 << OFFSET_BITS {
            return Err(Unsupported::CfaOffset);
        }
        match row.register(STACK_POINTER) {
            None | Some(RegisterRule::ValOffset(0)) => {}
            Some(_) => return Err(Unsupported::StackPointer),
        }
        let mut bits = kind | ((offset as u64 / WORD as u64) << OFFSET_SHIFT);
        match row.register(RETURN_ADDRESS) {
            Some(RegisterRule::Offset(-8)) => {}
            Some(RegisterRule::Undefined) => bits |= OLDEST,
            _ => return Err(Unsupported::ReturnAddress),
        }
        for (i, register) in CALLEE_SAVED.into_iter().enumerate() {
            match row.register(register) {
                None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => {}
                Some(RegisterRule::Offset(at)) => {
                    if at >= 0 || at % WORD as i64 != 0 || -at / WORD as i64 > SLOT_MASK as i64 {
                        return Err(Unsupported::SavedFar);
                    }
                    bits |= ((-at) as u64 / WORD as u64) << (SLOTS_SHIFT + SLOT_BITS * i as u32);
                }
                Some(_) => return Err(Unsupported::SavedByRule),
            }
        }
        Ok(Rule(bits))
    }

    /// What the CFA is relative to and how far it is from there, in bytes.
    #[inline]
    pub(crate) fn cfa(self) -> Result<(Base, usize), Option<Unsupported>> {
        let offset = (self.0 >> OFFSET_SHIFT & ((1 << OFFSET_BITS) - 1)) as usize;
        match self.0 & KIND_MASK {
            KIND_SP => Ok((Base::StackPointer, offset * WORD)),
            KIND_FP => Ok((Base::FramePointer, offset * WORD)),
            _ => Err(Unsupported::ALL.into_iter().find(|why| *why as usize == offset)),
        }
    }

    /// Whether the frame is the oldest of its stack.
    #[inline]
    pub(crate) fn is_oldest(self) -> bool {
        self.0 & OLDEST != 0
    }

    /// How far below the CFA register `index` of [`CALLEE_SAVED`] was saved, in bytes; 0 if it was not.
    #[inline]
    pub(crate) fn saved(self, index: usize) -> usize {
        (self.0 >> (SLOTS_SHIFT + SLOT_BITS * index as u32) & SLOT_MASK) as usize * WORD
    }

    /// How far below the CFA the frame pointer was saved, in bytes; 0 if it was not.
    #[inline]
    pub(crate) fn saved_fp(self) -> usize {
        self.saved(0)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cfa() {
            Err(None) => f.write_str("no rule"),
            Err(Some(why)) => write!(f, "unsupported: {why}"),
            Ok((base, offset)) => {
                let base = if base == Base::StackPointer { "sp" } else { "fp" };
                write!(f, "cfa={base}+{offset}")?;
                for (i, name) in ["rbp", "rbx", "r12", "r13", "r14", "r15"].into_iter().enumerate() {
                    if self.saved(i) != 0 {
                        write!(f, " {name}=[cfa-{}]", self.saved(i))?;
                    }
                }
                f.write_str(if self.is_oldest() { " oldest" } else { " ra=[cfa-8]" })
            }
        }
    }
}
