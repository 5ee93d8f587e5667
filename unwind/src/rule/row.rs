//! One row of CFI that does not fit into a packed rule. It is evaluated at each use.

use std::fmt;

use gimli::Register;

use super::expression::{self, ENCODING, ExpressionError};
use super::recovery::{Recovered, Recovery, by_convention};
use crate::arch::{REGISTERS, RETURN_ADDRESS, WORD, column, register_name, register_of, words_of};
use crate::memory::Memory;
use crate::registers::RegisterSet;

/// Where an expression lies in the bytes that belong to the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bytes {
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl Bytes {
    /// The expression, in the bytes that hold it.
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        let start = self.offset as usize;
        bytes.get(start..start + self.len as usize).unwrap_or(&[])
    }
}

/// What a row says of the CFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cfa {
    Register(Register, i64),
    Expression(Bytes),
}

/// What a row says of one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Saved {
    /// Nothing. The calling convention applies.
    Unspecified,
    Undefined,
    Same,
    Offset(i64),
    ValOffset(i64),
    Register(Register),
    Expression(Bytes),
    ValExpression(Bytes),
}

/// One row of CFI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CfiRow {
    pub(crate) cfa: Cfa,
    registers: [Saved; REGISTERS],
    signal_frame: bool,
}

impl CfiRow {
    /// A row that says nothing of any register.
    pub(crate) fn unspecified(signal_frame: bool) -> CfiRow {
        let registers = [Saved::Unspecified; REGISTERS];
        CfiRow { cfa: Cfa::Register(Register(0), 0), registers, signal_frame }
    }

    /// Registers that a register set does not hold are left out.
    pub(crate) fn set(&mut self, register: Register, saved: Saved) {
        if let Some(column) = column(register) {
            self.registers[column] = saved;
        }
        for (i, word) in words_of(register).into_iter().flatten().enumerate() {
            let saved = match saved {
                Saved::Offset(at) => Saved::Offset(at + (i * WORD) as i64),
                Saved::Unspecified | Saved::Undefined | Saved::Same => saved,
                // No compiler says so of a register that has two words.
                _ => Saved::Undefined,
            };
            self.set(word, saved);
        }
    }

    /// What it says of a register.
    pub(crate) fn saved(&self, register: Register) -> Saved {
        let register = words_of(register).map_or(register, |[first, _]| first);
        column(register).map_or(Saved::Unspecified, |column| self.registers[column])
    }

    /// What it says of registers of which it says anything.
    pub(super) fn specified(&self) -> impl Iterator<Item = (Register, Saved)> {
        let registers = self.registers.iter().enumerate();
        registers
            .filter(|(_, saved)| **saved != Saved::Unspecified)
            .map(|(column, saved)| (register_of(column), *saved))
    }

    /// Whether it belongs to a frame that a signal has made.
    pub(super) fn is_of_signal(&self) -> bool {
        self.signal_frame
    }

    /// Whether two rows say the same. The bytes hold the expressions of each.
    pub(super) fn says_the_same(&self, bytes: &[u8], other: &CfiRow, others: &[u8]) -> bool {
        let same = |one: Bytes, other: Bytes| one.of(bytes) == other.of(others);
        let cfa = match (self.cfa, other.cfa) {
            (Cfa::Expression(one), Cfa::Expression(other)) => same(one, other),
            (one, other) => one == other,
        };
        let mut registers = self.registers.iter().zip(&other.registers);
        cfa && self.signal_frame == other.signal_frame
            && registers.all(|(one, other)| match (*one, *other) {
                (Saved::Expression(one), Saved::Expression(other))
                | (Saved::ValExpression(one), Saved::ValExpression(other)) => same(one, other),
                (one, other) => one == other,
            })
    }

    /// The same row with its expressions at other places.
    pub(super) fn moved(&self, mut place: impl FnMut(Bytes) -> Bytes) -> CfiRow {
        let mut row = self.clone();
        for saved in &mut row.registers {
            if let Saved::Expression(at) | Saved::ValExpression(at) = saved {
                *at = place(*at);
            }
        }
        if let Cfa::Expression(at) = &mut row.cfa {
            *at = place(*at);
        }
        row
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
            oldest: self.saved(RETURN_ADDRESS) == Saved::Undefined,
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
        for (column, saved) in row.registers.iter().enumerate() {
            if *saved == Saved::Unspecified {
                continue;
            }
            write!(f, " {}=", name(register_of(column)))?;
            match *saved {
                Saved::Unspecified => {}
                Saved::Undefined => f.write_str("undefined")?,
                Saved::Same => f.write_str("same")?,
                Saved::Offset(offset) => write!(f, "[cfa{offset:+}]")?,
                Saved::ValOffset(offset) => write!(f, "cfa{offset:+}")?,
                Saved::Register(register) => f.write_str(name(register))?,
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
