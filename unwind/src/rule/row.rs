//! One row of CFI that does not fit into a packed rule. It is evaluated at each use.

use std::fmt;

use gimli::{
    CfaRule, Register, RegisterRule, UnwindContextStorage, UnwindExpression, UnwindTableRow,
};

use super::expression::{self, ENCODING, ExpressionError};
use super::recovery::{Recovered, Recovery, by_convention};
use crate::arch::{REGISTERS, RETURN_ADDRESS, register_name};
use crate::memory::Memory;
use crate::registers::RegisterSet;

/// Where an expression lies in the bytes that belong to the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bytes {
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl Bytes {
    fn of(self, bytes: &[u8]) -> &[u8] {
        let start = self.offset as usize;
        bytes.get(start..start + self.len as usize).unwrap_or(&[])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cfa {
    Register(Register, i64),
    Expression(Bytes),
}

/// What a row says of one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Saved {
    /// Nothing. The calling convention applies.
    Unspecified,
    Undefined,
    Same,
    Offset(i64),
    ValOffset(i64),
    Register(Register),
    Expression(Bytes),
    ValExpression(Bytes),
    Constant(u64),
}

/// One row of CFI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CfiRow {
    cfa: Cfa,
    registers: [Saved; REGISTERS],
    signal_frame: bool,
}

impl CfiRow {
    /// The row, with its expressions where `place` says that they lie.
    pub(super) fn new<S: UnwindContextStorage<usize>>(
        row: &UnwindTableRow<usize, S>,
        signal_frame: bool,
        mut place: impl FnMut(UnwindExpression<usize>) -> Bytes,
    ) -> CfiRow {
        let mut registers = [Saved::Unspecified; REGISTERS];
        for (register, rule) in row.registers() {
            let Some(saved) = registers.get_mut(usize::from(register.0)) else { continue };
            *saved = match *rule {
                RegisterRule::SameValue => Saved::Same,
                RegisterRule::Offset(offset) => Saved::Offset(offset),
                RegisterRule::ValOffset(offset) => Saved::ValOffset(offset),
                RegisterRule::Register(other) => Saved::Register(other),
                RegisterRule::Expression(at) => Saved::Expression(place(at)),
                RegisterRule::ValExpression(at) => Saved::ValExpression(place(at)),
                RegisterRule::Constant(value) => Saved::Constant(value),
                RegisterRule::Undefined | RegisterRule::Architectural => Saved::Undefined,
            };
        }
        let cfa = match *row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => Cfa::Register(register, offset),
            CfaRule::Expression(at) => Cfa::Expression(place(at)),
        };
        CfiRow { cfa, registers, signal_frame }
    }

    /// The row with its expressions left where they are, in their section.
    pub(crate) fn in_section<S: UnwindContextStorage<usize>>(
        row: &UnwindTableRow<usize, S>,
        signal_frame: bool,
    ) -> CfiRow {
        CfiRow::new(row, signal_frame, |at| Bytes {
            offset: at.offset as u32,
            len: at.length as u32,
        })
    }

    /// Evaluates the row for a frame's registers. `expressions` are the bytes that hold the row's
    /// expressions.
    pub(super) fn evaluate(
        &self,
        expressions: &[u8],
        context: &RegisterSet,
        memory: &impl Memory,
    ) -> Result<Recovery, ExpressionError> {
        let known =
            |register| context.get(register).ok_or(ExpressionError::UnknownRegister(register));
        let cfa = match self.cfa {
            Cfa::Register(register, offset) => {
                known(register)?.wrapping_add_signed(offset as isize)
            }
            Cfa::Expression(at) => expression::evaluate(at.of(expressions), None, context, memory)?,
        };
        // A value that depends on an unknown register is unknown. Only the CFA must be known.
        let evaluated = |at: Bytes, cfa| match expression::evaluate(
            at.of(expressions),
            Some(cfa),
            context,
            memory,
        ) {
            Err(ExpressionError::UnknownRegister(_)) => Ok(None),
            result => result.map(Some),
        };
        let mut recovery = Recovery {
            cfa,
            oldest: self.registers[usize::from(RETURN_ADDRESS.0)] == Saved::Undefined,
            signal_frame: self.signal_frame,
            registers: by_convention(cfa),
        };
        if recovery.oldest {
            // There is no caller, so its registers mean nothing.
            recovery.registers = [Recovered::Unknown; REGISTERS];
            return Ok(recovery);
        }
        for (place, saved) in recovery.registers.iter_mut().zip(&self.registers) {
            let at = |offset: i64| cfa.wrapping_add_signed(offset as isize);
            *place = match *saved {
                Saved::Unspecified => continue,
                Saved::Undefined => Recovered::Unknown,
                Saved::Same => Recovered::Same,
                Saved::Offset(offset) => Recovered::At(at(offset)),
                Saved::ValOffset(offset) => Recovered::Value(at(offset)),
                Saved::Register(register) => {
                    context.get(register).map_or(Recovered::Unknown, Recovered::Value)
                }
                Saved::Constant(value) => Recovered::Value(value as usize),
                Saved::Expression(bytes) => {
                    evaluated(bytes, cfa)?.map_or(Recovered::Unknown, Recovered::At)
                }
                Saved::ValExpression(bytes) => {
                    evaluated(bytes, cfa)?.map_or(Recovered::Unknown, Recovered::Value)
                }
            };
        }
        Ok(recovery)
    }
}

/// A row in words, with the bytes that hold its expressions.
pub(super) struct InWords<'a>(pub(super) &'a CfiRow, pub(super) &'a [u8]);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InWords(row, expressions) = *self;
        let name = |register: Register| register_name(register).unwrap_or("?");
        let expression = |f: &mut fmt::Formatter<'_>, at: Bytes| {
            let bytes = gimli::EndianSlice::new(at.of(expressions), gimli::LittleEndian);
            let mut operations = gimli::Expression(bytes).operations(ENCODING);
            f.write_str("{")?;
            let mut separator = "";
            while let Ok(Some(operation)) = operations.next() {
                write!(f, "{separator}{operation:?}")?;
                separator = "; ";
            }
            f.write_str("}")
        };
        if row.signal_frame {
            f.write_str("signal frame, ")?;
        }
        match row.cfa {
            Cfa::Register(register, offset) => write!(f, "cfa={}{offset:+}", name(register))?,
            Cfa::Expression(at) => {
                f.write_str("cfa=")?;
                expression(f, at)?;
            }
        }
        for (number, saved) in row.registers.iter().enumerate() {
            if *saved == Saved::Unspecified {
                continue;
            }
            write!(f, " {}=", name(Register(number as u16)))?;
            match *saved {
                Saved::Unspecified => {}
                Saved::Undefined => f.write_str("undefined")?,
                Saved::Same => f.write_str("same")?,
                Saved::Offset(offset) => write!(f, "[cfa{offset:+}]")?,
                Saved::ValOffset(offset) => write!(f, "cfa{offset:+}")?,
                Saved::Register(register) => f.write_str(name(register))?,
                Saved::Constant(value) => write!(f, "{value:#x}")?,
                Saved::Expression(at) => {
                    f.write_str("[")?;
                    expression(f, at)?;
                    f.write_str("]")?;
                }
                Saved::ValExpression(at) => expression(f, at)?,
            }
        }
        Ok(())
    }
}
