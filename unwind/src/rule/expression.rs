//! DWARF expressions in CFI. An evaluation takes fixed storage and a bounded number of steps.

use gimli::{Encoding, EndianSlice, Format, LittleEndian, Operation, Register};

use crate::arch::{ADDRESS_SIZE, WORD};
use crate::memory::Memory;
use crate::registers::RegisterSet;

type Reader<'a> = EndianSlice<'a, LittleEndian>;

pub(super) const ENCODING: Encoding =
    Encoding { format: Format::Dwarf32, version: 4, address_size: ADDRESS_SIZE };
/// The depth of the stack. Compilers need four.
const STACK: usize = 64;
/// The limit of operations. An expression may branch backwards.
const STEPS: usize = 4096;

/// Why an expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpressionError {
    /// It cannot be read.
    #[error("malformed: {0}")]
    Malformed(gimli::Error),
    /// It has an operation that has no meaning in CFI.
    #[error("the operation at offset {offset} has no meaning in CFI")]
    Operation {
        /// Where in the expression.
        offset: usize,
    },
    /// It pops what was not pushed, or pushes more than an evaluation holds.
    #[error("the stack of the evaluation is too small at offset {offset}")]
    Stack {
        /// Where in the expression.
        offset: usize,
    },
    /// It needs an unknown register.
    #[error("register {} is not known", .0.0)]
    UnknownRegister(Register),
    /// It reads memory that cannot be read.
    #[error("the word at {0:#x} cannot be read")]
    Unreadable(usize),
    /// It divides by zero.
    #[error("division by zero at offset {offset}")]
    Division {
        /// Where in the expression.
        offset: usize,
    },
    /// It goes on for too long.
    #[error("more than {STEPS} operations")]
    Endless,
}

/// Bits of a word of the stack: DWARF's generic type has the size of an address.
const BITS: usize = usize::BITS as usize;

/// The stack of an evaluation.
struct Stack {
    words: [usize; STACK],
    len: usize,
    /// Where the current operation lies.
    offset: usize,
}

impl Stack {
    fn push(&mut self, word: usize) -> Result<(), ExpressionError> {
        *self.words.get_mut(self.len).ok_or(ExpressionError::Stack { offset: self.offset })? = word;
        self.len += 1;
        Ok(())
    }

    fn pop(&mut self) -> Result<usize, ExpressionError> {
        self.len = self.len.checked_sub(1).ok_or(ExpressionError::Stack { offset: self.offset })?;
        Ok(self.words[self.len])
    }

    fn pick(&self, depth: usize) -> Result<usize, ExpressionError> {
        let at = self
            .len
            .checked_sub(depth + 1)
            .ok_or(ExpressionError::Stack { offset: self.offset })?;
        Ok(self.words[at])
    }

    fn unary(&mut self, of: impl FnOnce(usize) -> usize) -> Result<(), ExpressionError> {
        let word = self.pop()?;
        self.push(of(word))
    }

    /// `of(second, top)`.
    fn binary(&mut self, of: impl FnOnce(usize, usize) -> usize) -> Result<(), ExpressionError> {
        let top = self.pop()?;
        let second = self.pop()?;
        self.push(of(second, top))
    }

    fn compare(&mut self, of: impl FnOnce(isize, isize) -> bool) -> Result<(), ExpressionError> {
        self.binary(|a, b| usize::from(of(a as isize, b as isize)))
    }

    fn divide(
        &mut self,
        of: impl FnOnce(usize, usize) -> Option<usize>,
    ) -> Result<(), ExpressionError> {
        let divisor = self.pop()?;
        let word = self.pop()?;
        let result = of(word, divisor).ok_or(ExpressionError::Division { offset: self.offset })?;
        self.push(result)
    }
}

/// The value of an expression for a frame's registers. `initial`, if given, is pushed first.
pub(crate) fn evaluate(
    bytes: &[u8],
    initial: Option<usize>,
    context: &RegisterSet,
    memory: &impl Memory,
) -> Result<usize, ExpressionError> {
    let mut stack = Stack { words: [0; STACK], len: 0, offset: 0 };
    if let Some(word) = initial {
        stack.push(word)?;
    }
    let mut reader = Reader::new(bytes, LittleEndian);
    for _ in 0..STEPS {
        if reader.is_empty() {
            return stack.pop();
        }
        let offset = bytes.len() - reader.len();
        stack.offset = offset;
        match Operation::parse(&mut reader, ENCODING).map_err(ExpressionError::Malformed)? {
            Operation::Nop => {}
            Operation::UnsignedConstant { value } | Operation::Address { address: value } => {
                stack.push(value as usize)?
            }
            Operation::SignedConstant { value } => stack.push(value as usize)?,
            Operation::RegisterOffset { register, offset, base_type } if base_type.0 == 0 => {
                let value =
                    context.get(register).ok_or(ExpressionError::UnknownRegister(register))?;
                stack.push(value.wrapping_add(offset as usize))?;
            }
            Operation::Deref { base_type, size, space: false }
                if base_type.0 == 0 && matches!(size, 1 | 2 | 4 | 8) && size <= ADDRESS_SIZE =>
            {
                let address = stack.pop()?;
                stack.push(read(memory, address, size)?)?;
            }
            Operation::Drop => drop(stack.pop()?),
            Operation::Pick { index } => stack.push(stack.pick(index.into())?)?,
            Operation::Swap => {
                let (top, second) = (stack.pop()?, stack.pop()?);
                stack.push(top)?;
                stack.push(second)?;
            }
            Operation::Rot => {
                let (top, second, third) = (stack.pop()?, stack.pop()?, stack.pop()?);
                stack.push(top)?;
                stack.push(third)?;
                stack.push(second)?;
            }
            Operation::Abs => stack.unary(|a| (a as isize).wrapping_abs() as usize)?,
            Operation::Neg => stack.unary(usize::wrapping_neg)?,
            Operation::Not => stack.unary(|a| !a)?,
            Operation::PlusConstant { value } => stack.unary(|a| a.wrapping_add(value as usize))?,
            Operation::And => stack.binary(|a, b| a & b)?,
            Operation::Or => stack.binary(|a, b| a | b)?,
            Operation::Xor => stack.binary(|a, b| a ^ b)?,
            Operation::Plus => stack.binary(usize::wrapping_add)?,
            Operation::Minus => stack.binary(usize::wrapping_sub)?,
            Operation::Mul => stack.binary(usize::wrapping_mul)?,
            Operation::Div => {
                stack.divide(|a, b| {
                    (b != 0).then(|| (a as isize).wrapping_div(b as isize) as usize)
                })?;
            }
            Operation::Mod => stack.divide(usize::checked_rem)?,
            Operation::Shl => stack.binary(|a, b| if b < BITS { a << b } else { 0 })?,
            Operation::Shr => stack.binary(|a, b| if b < BITS { a >> b } else { 0 })?,
            Operation::Shra => stack.binary(|a, b| (a as isize >> b.min(BITS - 1)) as usize)?,
            Operation::Eq => stack.compare(|a, b| a == b)?,
            Operation::Ne => stack.compare(|a, b| a != b)?,
            Operation::Ge => stack.compare(|a, b| a >= b)?,
            Operation::Gt => stack.compare(|a, b| a > b)?,
            Operation::Le => stack.compare(|a, b| a <= b)?,
            Operation::Lt => stack.compare(|a, b| a < b)?,
            Operation::Skip { target } => reader = jump(bytes, reader, target)?,
            Operation::Bra { target } => {
                if stack.pop()? != 0 {
                    reader = jump(bytes, reader, target)?;
                }
            }
            _ => return Err(ExpressionError::Operation { offset }),
        }
    }
    Err(ExpressionError::Endless)
}

fn jump<'a>(
    bytes: &'a [u8],
    reader: Reader<'a>,
    target: i16,
) -> Result<Reader<'a>, ExpressionError> {
    let here = bytes.len() - reader.len();
    here.checked_add_signed(target.into())
        .and_then(|there| bytes.get(there..))
        .map(|rest| Reader::new(rest, LittleEndian))
        .ok_or(ExpressionError::Malformed(gimli::Error::BadBranchTarget(here as u64)))
}

/// Reads `size` bytes, at most a word, which may lie across two words.
fn read(memory: &impl Memory, address: usize, size: u8) -> Result<usize, ExpressionError> {
    let (aligned, shift) = (address & !(WORD - 1), (address & (WORD - 1)) as u32 * 8);
    let word = |at: usize| memory.read(at).ok_or(ExpressionError::Unreadable(at));
    let mut value = word(aligned)? >> shift;
    if shift + u32::from(size) * 8 > usize::BITS {
        value |= word(aligned.wrapping_add(WORD))? << (usize::BITS - shift);
    }
    Ok(value & usize::MAX >> (usize::BITS - u32::from(size) * 8))
}

/// The register and the offset of an expression that is their sum, or, if `dereferenced`, the word
/// there.
pub(crate) fn register_plus(bytes: &[u8], dereferenced: bool) -> Option<(Register, i64)> {
    let mut reader = Reader::new(bytes, LittleEndian);
    let Ok(Operation::RegisterOffset { register, offset, base_type }) =
        Operation::parse(&mut reader, ENCODING)
    else {
        return None;
    };
    if dereferenced
        && !matches!(
            Operation::parse(&mut reader, ENCODING),
            Ok(Operation::Deref { size: ADDRESS_SIZE, space: false, base_type })
                if base_type.0 == 0
        )
    {
        return None;
    }
    (reader.is_empty() && base_type.0 == 0).then_some((register, offset))
}
