//! The rule by which the caller of a frame is found, packed or a row of CFI.

use std::fmt;

use super::expression::ExpressionError;
use super::packed::{PackedRule, Shape};
use super::recovery::{Recovered, Recovery, by_convention, set};
use super::row::{CfiRow, InWords};
use crate::arch::{CALLEE_SAVED, FRAME_POINTER, RETURN_ADDRESS, STACK_POINTER, WORD};
use crate::memory::Memory;
use crate::registers::RegisterSet;

/// How the caller of the frame at a pc is found.
#[derive(Clone, Debug)]
pub struct UnwindRule<'a>(Inner<'a>);

#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "signal handlers look rules up, where nothing can be boxed"
)]
enum Inner<'a> {
    Packed(PackedRule),
    Row(CfiRow, &'a [u8]),
}

/// Two rules are equal if they say the same, wherever their expressions lie.
impl PartialEq for UnwindRule<'_> {
    fn eq(&self, other: &UnwindRule<'_>) -> bool {
        match (&self.0, &other.0) {
            (Inner::Packed(one), Inner::Packed(other)) => one == other,
            (Inner::Row(one, bytes), Inner::Row(other, others)) => {
                one.says_the_same(bytes, other, others)
            }
            _ => false,
        }
    }
}

impl Eq for UnwindRule<'_> {}

impl<'a> UnwindRule<'a> {
    pub(crate) fn packed(rule: PackedRule) -> UnwindRule<'a> {
        UnwindRule(Inner::Packed(rule))
    }

    pub(crate) fn row(row: CfiRow, expressions: &'a [u8]) -> UnwindRule<'a> {
        UnwindRule(Inner::Row(row, expressions))
    }

    /// The packed rule, if it is one.
    pub(crate) fn as_packed(&self) -> Option<PackedRule> {
        match self.0 {
            Inner::Packed(rule) => Some(rule),
            Inner::Row(..) => None,
        }
    }

    /// Whether its evaluation interprets CFI, because its form is too rare to be packed.
    pub fn is_interpreted(&self) -> bool {
        matches!(self.0, Inner::Row(..))
    }

    /// Evaluates the rule for a frame's registers, without allocation. Only expressions and
    /// realigned frames read `memory`.
    ///
    /// # Errors
    ///
    /// The rule needs an unknown register or unreadable memory, or its expression is wrong.
    pub fn evaluate(
        &self,
        registers: &RegisterSet,
        memory: &impl Memory,
    ) -> Result<Recovery, ExpressionError> {
        let rule = match &self.0 {
            Inner::Row(row, expressions) => return row.evaluate(expressions, registers, memory),
            Inner::Packed(rule) => *rule,
        };
        let known =
            |register| registers.get(register).ok_or(ExpressionError::UnknownRegister(register));
        let (cfa, saved_below) = match rule.shape() {
            Shape::StackPointer(offset) => {
                let cfa = known(STACK_POINTER)?.wrapping_add(offset);
                (cfa, cfa)
            }
            Shape::FramePointer(offset) => {
                let cfa = known(FRAME_POINTER)?.wrapping_add(offset);
                (cfa, cfa)
            }
            Shape::Realigned(offset) => {
                let fp = known(FRAME_POINTER)?;
                let at = fp.wrapping_add_signed(offset);
                (memory.read(at).ok_or(ExpressionError::Unreadable(at))?, fp.wrapping_add(WORD))
            }
            Shape::Row(..) | Shape::None => {
                unreachable!("only rules that say something are made into unwind rules")
            }
        };
        let mut recovered = by_convention(cfa);
        for (i, register) in CALLEE_SAVED.into_iter().enumerate() {
            if rule.saved(i) != 0 {
                let at = saved_below.wrapping_sub(rule.saved(i));
                set(&mut recovered, register, Recovered::At(at));
            }
        }
        let oldest = rule.is_oldest();
        if !oldest {
            set(&mut recovered, RETURN_ADDRESS, Recovered::At(rule.return_slot(cfa)));
        }
        Ok(Recovery { cfa, oldest, signal_frame: false, registers: recovered })
    }
}

/// The rule in words.
impl fmt::Display for UnwindRule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Packed(rule) => write!(f, "{rule:?}"),
            Inner::Row(row, expressions) => InWords(row, expressions).fmt(f),
        }
    }
}
