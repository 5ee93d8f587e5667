//! LLVM's `.llvm_stackmaps` section, version 3, and the statepoints in it.
//!
//! The section has one blob for each linked object, with functions, constants and records. A
//! record's address is the return address of its call. The record of a `gc.statepoint` has the
//! calling convention, flags and the number of deoptimisation values, those values, then a pair of
//! base and derived pointer for each live reference, and then one location for each live `alloca`.
//! The format has no number of pairs: an `alloca` is known by its kind, [`Value::Direct`].
//!
//! LLVM's stack size leaves out the arguments that a call pushes. So a map has no CFA of its own:
//! the CFI says it.
//!
//! [`stack_maps`] are for a [`Region`](crate::Region), or, where roots may be in registers, a
//! [`StackMaps`](super::StackMaps).
//!
//! The section must be relocated, since it holds the addresses of functions. Make the loader do
//! that with `llvm-objcopy --set-section-flags .llvm_stackmaps=alloc,data`.

use gimli::Register;

use super::map::{Location, Root, StackMap};
use crate::arch::{FRAME_POINTER, STACK_POINTER, WORD};

/// The section's name.
pub const SECTION: &str = ".llvm_stackmaps";

/// What is wrong with a section of stack maps, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LlvmError {
    /// The section ends in the middle of something.
    #[error("the stack maps end at offset {offset:#x}, in the middle of a record")]
    Truncated {
        /// Where it ends.
        offset: usize,
    },
    /// An unknown version of the format.
    #[error("the stack maps at offset {offset:#x} have version {version}, not 3")]
    Version {
        /// Where the blob begins.
        offset: usize,
        /// Its version.
        version: u8,
    },
    /// A location of an unknown kind, or with a constant that does not exist.
    #[error("the location at offset {offset:#x} is of no known kind")]
    Location {
        /// Where it lies.
        offset: usize,
    },
    /// The functions' numbers of records do not add up to the blob's.
    #[error(
        "the functions of the blob at offset {offset:#x} do not have as many records as it has"
    )]
    Count {
        /// Where the blob begins.
        offset: usize,
    },
    /// The record is not one of a statepoint.
    #[error("the record for {return_address:#x} is no statepoint")]
    NoStatepoint {
        /// Its address.
        return_address: usize,
    },
    /// A root stands where none can be visited, or a pointer is derived from a constant.
    #[error("the statepoint at {return_address:#x} has a root at a place that cannot be visited")]
    Root {
        /// Its address.
        return_address: usize,
    },
}

/// Where a value of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// In a register.
    Register {
        /// Which.
        register: Register,
        /// Its size in bytes.
        size: u16,
    },
    /// The address `register + offset` itself: that of a stack slot of this size.
    Direct {
        /// What the address is relative to.
        register: Register,
        /// How far.
        offset: i32,
        /// The size of what stands there.
        size: u16,
    },
    /// In memory at `register + offset`: spilled.
    Indirect {
        /// What the address is relative to.
        register: Register,
        /// How far.
        offset: i32,
        /// Its size in bytes.
        size: u16,
    },
    /// A constant.
    Constant(u64),
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where the record lies in the section.
    pub offset: usize,
    /// The address of its function.
    pub function: usize,
    /// The number that the call was given.
    pub id: u64,
    /// The address behind the call.
    pub return_address: usize,
    /// The size of the frame without the return address and without what the call has pushed;
    /// `None` if it varies.
    pub stack_size: Option<u64>,
    /// The values that the call names.
    pub values: Vec<Value>,
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], LlvmError> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk());
        self.at += N;
        bytes.copied().ok_or(LlvmError::Truncated { offset: self.bytes.len() })
    }

    fn u8(&mut self) -> Result<u8, LlvmError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, LlvmError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, LlvmError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, LlvmError> {
        self.take().map(u64::from_le_bytes)
    }

    /// Goes on to the next multiple of eight bytes from `start`.
    fn align(&mut self, start: usize) -> Result<(), LlvmError> {
        self.at = start + (self.at - start).next_multiple_of(8);
        if self.at > self.bytes.len() {
            Err(LlvmError::Truncated { offset: self.bytes.len() })
        } else {
            Ok(())
        }
    }
}

/// The stack maps of a section, one for each record. A record that is no statepoint, or that has a
/// root that cannot be visited, has an error in its place. To leave such a record out is to have no
/// safepoint at its call: its frame must never be walked for roots.
///
/// # Errors
///
/// The section is malformed.
pub fn stack_maps(section: &[u8]) -> Result<Vec<Result<StackMap, LlvmError>>, LlvmError> {
    Ok(records(section)?.iter().map(Record::statepoint).collect())
}

/// All records of a section.
///
/// # Errors
///
/// The section is malformed.
pub fn records(section: &[u8]) -> Result<Vec<Record>, LlvmError> {
    Ok(by_function(section)?.into_iter().flatten().collect())
}

/// All records of a section, those of each function of each blob together. A function that several
/// objects have comes once for each of them, also where the linker has kept one copy of its code.
///
/// # Errors
///
/// The section is malformed.
pub(crate) fn by_function(section: &[u8]) -> Result<Vec<Vec<Record>>, LlvmError> {
    let mut input = Input { bytes: section, at: 0 };
    let mut functions = Vec::new();
    while input.at < section.len() {
        blob(&mut input, &mut functions)?;
    }
    Ok(functions)
}

fn blob(input: &mut Input<'_>, of_functions: &mut Vec<Vec<Record>>) -> Result<(), LlvmError> {
    let start = input.at;
    let version = input.u8()?;
    if version != 3 {
        return Err(LlvmError::Version { offset: start, version });
    }
    let _reserved = (input.u8()?, input.u16()?);
    let (functions, constants, count) = (input.u32()?, input.u32()?, input.u32()?);
    // The numbers may be wrong, so no memory is reserved for them.
    let mut owners = Vec::new();
    for _ in 0..functions {
        owners.push((input.u64()?, input.u64()?, input.u64()?));
    }
    let mut pool = Vec::new();
    for _ in 0..constants {
        pool.push(input.u64()?);
    }
    let mut left = u64::from(count);
    for (address, size, count) in owners {
        left = left.checked_sub(count).ok_or(LlvmError::Count { offset: start })?;
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(record(input, start, address, size, &pool)?);
        }
        of_functions.push(records);
    }
    if left != 0 {
        return Err(LlvmError::Count { offset: start });
    }
    Ok(())
}

fn record(
    input: &mut Input<'_>,
    start: usize,
    function: u64,
    stack_size: u64,
    pool: &[u64],
) -> Result<Record, LlvmError> {
    let offset = input.at;
    let id = input.u64()?;
    let return_address = function.wrapping_add(input.u32()?.into()) as usize;
    let _flags = input.u16()?;
    let count = input.u16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        let offset = input.at;
        let (kind, _, size) = (input.u8()?, input.u8()?, input.u16()?);
        let (register, _, number) = (Register(input.u16()?), input.u16()?, input.u32()? as i32);
        values.push(match kind {
            1 => Value::Register { register, size },
            2 => Value::Direct { register, offset: number, size },
            3 => Value::Indirect { register, offset: number, size },
            4 => Value::Constant(number as u64),
            5 => Value::Constant(
                *pool.get(number as u32 as usize).ok_or(LlvmError::Location { offset })?,
            ),
            _ => return Err(LlvmError::Location { offset }),
        });
    }
    input.align(start)?;
    let _padding = input.u16()?;
    for _ in 0..input.u16()? {
        let _live_out = input.u32()?;
    }
    input.align(start)?;
    let stack_size = (stack_size != u64::MAX).then_some(stack_size);
    Ok(Record { offset, function: function as usize, id, return_address, stack_size, values })
}

impl Record {
    /// The live references of a statepoint: its pairs, and the words of its live `alloca`s. LLVM
    /// gives each `alloca` the size of a pointer, so a larger one counts with its first word.
    ///
    /// # Errors
    ///
    /// The record is no statepoint, or has a root that cannot be visited.
    pub fn statepoint(&self) -> Result<StackMap, LlvmError> {
        let return_address = self.return_address;
        let no_statepoint = LlvmError::NoStatepoint { return_address };
        let [Value::Constant(_), Value::Constant(_), Value::Constant(count), rest @ ..] =
            &*self.values
        else {
            return Err(no_statepoint);
        };
        let rest = usize::try_from(*count)
            .ok()
            .and_then(|count| rest.get(count..))
            .ok_or(no_statepoint)?;
        let unvisitable = LlvmError::Root { return_address };
        // A pair may hold the address of an `alloca` too: one that the program relocates. It is
        // among the single ones as well.
        let is_alloca = |value: &Value| matches!(value, Value::Direct { .. });
        let singles = rest.iter().rev().take_while(|value| is_alloca(value)).count();
        let (pairs, allocas) = rest.split_at(rest.len() - singles);
        let (pairs, odd) = pairs.as_chunks::<2>();
        if !odd.is_empty() {
            // Its partner is an `alloca`, if it has one.
            return Err(if singles == 0 { no_statepoint } else { unvisitable });
        }
        let mut roots: Vec<Root> = Vec::new();
        for alloca in allocas {
            roots.extend(words(alloca).ok_or(unvisitable)?.into_iter().map(Root::plain));
        }
        for [base, derived] in pairs {
            match (base, derived) {
                // A reference known to be null.
                (Value::Constant(_), Value::Constant(_)) => continue,
                // The slot itself does not move, and neither does a pointer into it.
                (Value::Direct { .. }, _) => {
                    roots.extend(words(base).ok_or(unvisitable)?.into_iter().map(Root::plain));
                    continue;
                }
                (_, Value::Direct { .. }) => return Err(unvisitable),
                _ => {}
            }
            let (bases, deriveds) =
                (words(base).ok_or(unvisitable)?, words(derived).ok_or(unvisitable)?);
            if bases.len() != deriveds.len() {
                return Err(unvisitable);
            }
            roots.extend(
                bases.into_iter().zip(deriveds).map(|(base, derived)| Root { base, derived }),
            );
        }
        // The same value may be named more than once.
        let mut seen = std::collections::HashSet::new();
        roots.retain(|root| seen.insert(*root));
        Ok(StackMap { return_address, cfa_offset: None, roots })
    }
}

/// The words of a value, which may be a vector of references or a stack slot with several of them.
fn words(value: &Value) -> Option<Vec<Location>> {
    let (register, offset, size) = match *value {
        Value::Register { register, size } => {
            return (size == WORD as u16).then(|| vec![Location::Register(register)]);
        }
        Value::Direct { register, offset, size } | Value::Indirect { register, offset, size } => {
            (register, offset, size)
        }
        Value::Constant(_) => return None,
    };
    let place = match register {
        STACK_POINTER => Location::Stack,
        FRAME_POINTER => Location::Frame,
        _ => return None,
    };
    if size == 0 || !size.is_multiple_of(WORD as u16) {
        return None;
    }
    (0..i32::from(size / WORD as u16))
        .map(|i| Some(place(offset.checked_add(i * WORD as i32)?)))
        .collect()
}
