//! The packed unwind rule: how to find a frame's caller, in 64 bits. Also the one place that names
//! registers.
//!
//! A rule says where the CFA is, where each callee-saved register was saved, and whether the frame
//! is the oldest one. The return address is at CFA-8, always: a row of CFI that says otherwise, or
//! anything else that does not fit, goes to the slow rules, and its packed rule says which one it
//! is and why.
//!
//! ```text
//! bits  0..2   kind: 0 CFA = sp + offset, 1 CFA = fp + offset, 2 CFA = *(fp + offset), 3 none or slow
//! bit   2      the frame is the oldest one: it has no return address
//! bits  3..28  CFA offset / 8, signed for kind 2; for kind 3 in bits 3..8 why, 0 if there is no rule at all
//! bits 28..64  six 6-bit slots: rbp rbx r12 r13 r14 r15 was saved at CFA - 8 * slot, for kind 2 at fp - 8 * (slot - 1);
//!              0 = not saved. For kind 3 the number of the slow rule
//! ```
//!
//! Kind 2 is how GCC describes a frame that it has realigned: the CFA was spilled beside the saved
//! frame pointer.

use core::fmt;

use gimli::{
    CfaRule, Register, RegisterRule, UnwindContextStorage, UnwindExpression, UnwindTableRow, X86_64,
};

use crate::expression;

/// Bytes of a word, of a stack slot and of a return address.
pub(crate) const WORD: usize = 8;

pub(crate) const STACK_POINTER: Register = X86_64::RSP;
pub(crate) const FRAME_POINTER: Register = X86_64::RBP;
pub(crate) const RETURN_ADDRESS: Register = X86_64::RA;
/// How many registers DWARF numbers for integers: the general ones, and the return address as the
/// last.
pub(crate) const REGISTERS: usize = RETURN_ADDRESS.0 as usize + 1;
/// The callee-saved registers in the order of a rule's slots. The frame pointer comes first.
pub(crate) const CALLEE_SAVED: [Register; 6] =
    [FRAME_POINTER, X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];

const KIND_SP: u64 = 0;
const KIND_FP: u64 = 1;
const KIND_REALIGNED: u64 = 2;
const KIND_NONE: u64 = 3;
const KIND_MASK: u64 = 3;
const OLDEST: u64 = 1 << 2;
const OFFSET_SHIFT: u32 = 3;
const OFFSET_BITS: u32 = 25;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const SLOTS_SHIFT: u32 = OFFSET_SHIFT + OFFSET_BITS;
const SLOT_BITS: u32 = 6;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Why a pc has CFI, but no packed rule, so that a walk evaluates its CFI each time.
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
    /// A callee-saved register is saved farther than 504 bytes below the CFA, above it, or
    /// unaligned.
    SavedFar,
    /// A callee-saved register is saved by something else than an offset from the CFA.
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
            Unsupported::ReturnAddress => "its return address is not at CFA-8",
            Unsupported::StackPointer => "its caller's stack pointer is not its CFA",
            Unsupported::SavedFar => "it saves a register too far from its CFA",
            Unsupported::SavedByRule => {
                "it saves a register otherwise than at an offset from its CFA"
            }
            Unsupported::SignalFrame => "it is a signal frame",
            Unsupported::CallerSaved => "it has a rule for a register that is not callee-saved",
        })
    }
}

/// A packed rule. Total: every bit pattern that this module makes decodes to exactly one meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Rule(u64);

/// Six bits for each of [`CALLEE_SAVED`].
pub(crate) type SavedBits = u64;

/// What a packed rule says of the CFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// So far above the stack pointer.
    StackPointer(usize),
    /// So far above the frame pointer.
    FramePointer(usize),
    /// In the word at so far above the frame pointer.
    Realigned(isize),
    /// The slow rule of this number says it.
    Slow(Unsupported, u32),
    /// Nothing.
    None,
}

/// What the CFA is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    StackPointer,
    FramePointer,
}

impl Rule {
    /// No CFI covers the pc.
    pub(crate) const NONE: Rule = Rule(KIND_NONE);

    /// There is no caller.
    pub(crate) const OLDEST: Rule = Rule(KIND_SP | OLDEST);

    /// The CFA so many bytes above the stack pointer, no register saved.
    pub(crate) fn fixed(cfa_offset: usize) -> Rule {
        Rule(KIND_SP | ((cfa_offset / WORD) as u64 & OFFSET_MASK) << OFFSET_SHIFT)
    }

    /// The slow rule with this number, and why it is one.
    pub(crate) fn slow(why: Unsupported, number: u32) -> Rule {
        Rule(KIND_NONE | (why as u64) << OFFSET_SHIFT | u64::from(number) << SLOTS_SHIFT)
    }

    /// Packs one row, or says why it cannot be packed. `bytes` reads the row's expressions.
    pub(crate) fn pack<'a, S: UnwindContextStorage<usize>>(
        row: &UnwindTableRow<usize, S>,
        bytes: impl Fn(UnwindExpression<usize>) -> Option<&'a [u8]>,
    ) -> Result<Rule, Unsupported> {
        let base_plus = |expression, dereferenced| {
            let (register, offset) = expression::register_plus(bytes(expression)?, dereferenced)?;
            (register == FRAME_POINTER && offset % WORD as i64 == 0).then_some(offset / WORD as i64)
        };
        let (kind, words) = match *row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
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
            CfaRule::Expression(expression) => {
                let words = base_plus(expression, true).ok_or(Unsupported::CfaExpression)?;
                if !(-1 << (OFFSET_BITS - 1)..1 << (OFFSET_BITS - 1)).contains(&words) {
                    return Err(Unsupported::CfaOffset);
                }
                (KIND_REALIGNED, words)
            }
        };
        match row.register(STACK_POINTER) {
            None | Some(RegisterRule::ValOffset(0)) => {}
            Some(_) => return Err(Unsupported::StackPointer),
        }
        let mut bits = kind | (words as u64 & OFFSET_MASK) << OFFSET_SHIFT;
        match row.register(RETURN_ADDRESS) {
            Some(RegisterRule::Offset(-8)) => {}
            Some(RegisterRule::Undefined) => return Ok(Rule(bits | OLDEST)),
            _ => return Err(Unsupported::ReturnAddress),
        }
        for &(register, ref rule) in row.registers() {
            if matches!(register, STACK_POINTER | RETURN_ADDRESS)
                || register.0 as usize >= REGISTERS
            {
                continue;
            }
            let Some(i) = CALLEE_SAVED.into_iter().position(|saved| saved == register) else {
                match rule {
                    RegisterRule::Undefined => continue,
                    _ => return Err(Unsupported::CallerSaved),
                }
            };
            let slot = match *rule {
                RegisterRule::SameValue => continue,
                RegisterRule::Offset(at) if kind != KIND_REALIGNED => {
                    if at >= 0 || at % WORD as i64 != 0 {
                        return Err(Unsupported::SavedFar);
                    }
                    -(at / WORD as i64)
                }
                RegisterRule::Expression(at) if kind == KIND_REALIGNED => {
                    1 - base_plus(at, false).ok_or(Unsupported::SavedByRule)?
                }
                _ => return Err(Unsupported::SavedByRule),
            };
            if !(1..=SLOT_MASK as i64).contains(&slot) {
                return Err(Unsupported::SavedFar);
            }
            bits |= (slot as u64) << (SLOTS_SHIFT + SLOT_BITS * i as u32);
        }
        Ok(Rule(bits))
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
                Some(why) => Shape::Slow(why, (self.0 >> SLOTS_SHIFT) as u32),
            },
        }
    }

    /// Whether the CFA is relative to the frame pointer, rather than to the stack pointer, and how
    /// far it is from there; `None` for the oldest frame and for all rules that read memory to find
    /// it.
    #[inline]
    pub(crate) fn simple(self) -> Option<(bool, usize)> {
        const { assert!(KIND_SP == 0 && KIND_FP == 1 && WORD == 1 << OFFSET_SHIFT) };
        let odd = (KIND_MASK & !KIND_FP) | OLDEST;
        (self.0 & odd == 0)
            .then_some((self.0 & KIND_FP != 0, (self.0 & OFFSET_MASK << OFFSET_SHIFT) as usize))
    }

    /// Whether saved frame pointer, return address and CFA lie at, one and two words above the
    /// frame pointer: the frame of a function that keeps a frame pointer.
    #[inline]
    pub(crate) fn is_frame_record(self) -> bool {
        const MASK: u64 =
            KIND_MASK | OLDEST | OFFSET_MASK << OFFSET_SHIFT | SLOT_MASK << SLOTS_SHIFT;
        self.0 & MASK == KIND_FP | 2 << OFFSET_SHIFT | 2 << SLOTS_SHIFT
    }

    /// What the CFA is relative to and how far it is from there, in bytes; otherwise why that is no
    /// answer.
    #[inline]
    pub(crate) fn cfa(self) -> Result<(Base, usize), Option<Unsupported>> {
        match self.shape() {
            Shape::StackPointer(offset) => Ok((Base::StackPointer, offset)),
            Shape::FramePointer(offset) => Ok((Base::FramePointer, offset)),
            Shape::Realigned(_) => Err(Some(Unsupported::CfaExpression)),
            Shape::Slow(why, _) => Err(Some(why)),
            Shape::None => Err(None),
        }
    }

    /// Whether the frame is the oldest of its stack.
    #[inline]
    pub(crate) fn is_oldest(self) -> bool {
        self.0 & OLDEST != 0
    }

    /// How far below the CFA register `index` of [`CALLEE_SAVED`] was saved, in bytes; 0 if it was
    /// not. In a realigned frame, how far below the word above the one that the frame pointer
    /// points to.
    #[inline]
    pub(crate) fn saved(self, index: usize) -> usize {
        (self.0 >> (SLOTS_SHIFT + SLOT_BITS * index as u32) & SLOT_MASK) as usize * WORD
    }

    /// Where registers were saved, as bits that are not 0 in the place of those that were.
    #[inline]
    pub(crate) fn saved_bits(self) -> SavedBits {
        self.0 & SavedBits::MAX << SLOTS_SHIFT
    }

    /// The place of register `index` of [`CALLEE_SAVED`] in those bits.
    #[inline]
    pub(crate) fn register_bits(index: usize) -> SavedBits {
        SLOT_MASK << (SLOTS_SHIFT + SLOT_BITS * index as u32)
    }

    /// How far below the CFA the frame pointer was saved, in bytes; 0 if it was not.
    #[inline]
    pub(crate) fn saved_fp(self) -> usize {
        self.saved(0)
    }
}

/// The rule in words; a slow one only as to why it is one.
impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = match self.shape() {
            Shape::None => return f.write_str("no rule"),
            Shape::Slow(why, number) => return write!(f, "slow rule {number}: {why}"),
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
                "fp+8"
            }
        };
        for (i, name) in ["rbp", "rbx", "r12", "r13", "r14", "r15"].into_iter().enumerate() {
            if self.saved(i) != 0 {
                write!(f, " {name}=[{below}-{}]", self.saved(i))?;
            }
        }
        f.write_str(if self.is_oldest() { " oldest" } else { " ra=[cfa-8]" })
    }
}
