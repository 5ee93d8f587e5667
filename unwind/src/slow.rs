//! Rules that do not fit into a packed word: one row of CFI as it is, evaluated at each use.

use std::collections::HashMap;
use std::fmt;

use gimli::{
    CfaRule, Register, RegisterRule, UnwindContextStorage, UnwindExpression, UnwindTableRow, X86_64,
};

use crate::expression::{self, ExpressionError};
use crate::memory::Memory;
use crate::registers::RegisterSet;
use crate::rule::{
    CALLEE_SAVED, FRAME_POINTER, REGISTERS, RETURN_ADDRESS, Rule, STACK_POINTER, Shape, WORD,
};

/// Where an expression lies in the bytes that belong to the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bytes {
    offset: u32,
    len: u32,
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
    /// Nothing: what the calling convention says holds.
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

/// One row of CFI, whatever it says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SlowRule {
    cfa: Cfa,
    registers: [Saved; REGISTERS],
    signal_frame: bool,
}

/// What a rule says of one register of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// It cannot be known.
    Unknown,
    /// It is what it is in this frame.
    Same,
    /// It stands in the word at this address.
    At(usize),
    /// It is this.
    Value(usize),
}

/// What a rule yields for given registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The canonical frame address, which is the caller's stack pointer unless its register says
    /// otherwise.
    pub cfa: usize,
    /// The frame is the oldest one of its stack: its return address is undefined.
    pub oldest: bool,
    /// The frame was entered by a signal: its caller's pc is exact, not a return address.
    pub signal_frame: bool,
    registers: [Recovered; REGISTERS],
}

impl Recovery {
    /// A register of the caller; the return address is its pc.
    pub fn register(&self, register: Register) -> Recovered {
        self.registers.get(usize::from(register.0)).copied().unwrap_or(Recovered::Unknown)
    }

    /// Where the return address stands, if it stands in memory.
    pub fn return_slot(&self) -> Option<usize> {
        match self.register(RETURN_ADDRESS) {
            Recovered::At(address) => Some(address),
            _ => None,
        }
    }

    /// The caller's registers; an error names a word that cannot be read.
    pub(crate) fn caller(
        &self,
        context: &RegisterSet,
        memory: &impl Memory,
    ) -> Result<RegisterSet, ExpressionError> {
        let mut caller = RegisterSet::unknown();
        for (number, recovered) in self.registers.iter().enumerate() {
            let register = Register(number as u16);
            let value = match *recovered {
                Recovered::Unknown => None,
                Recovered::Same => context.get(register),
                Recovered::Value(value) => Some(value),
                Recovered::At(address) => {
                    Some(memory.read(address).ok_or(ExpressionError::Unreadable(address))?)
                }
            };
            if let Some(value) = value {
                caller.set(register, value);
            }
        }
        Ok(caller)
    }
}

impl SlowRule {
    /// The row, with its expressions where `place` says that they lie.
    pub(crate) fn new<S: UnwindContextStorage<usize>>(
        row: &UnwindTableRow<usize, S>,
        signal_frame: bool,
        mut place: impl FnMut(UnwindExpression<usize>) -> Bytes,
    ) -> SlowRule {
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
        SlowRule { cfa, registers, signal_frame }
    }

    /// The row with its expressions left where they are, in their section.
    pub(crate) fn in_section<S: UnwindContextStorage<usize>>(
        row: &UnwindTableRow<usize, S>,
        signal_frame: bool,
    ) -> SlowRule {
        SlowRule::new(row, signal_frame, |at| Bytes {
            offset: at.offset as u32,
            len: at.length as u32,
        })
    }

    fn evaluate(
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
        // What depends on an unknown register is unknown itself; only the CFA cannot be.
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
            // There is no caller: what its registers would be means nothing.
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

/// What holds of registers that CFI does not mention: callee-saved ones are kept, the stack pointer
/// is the CFA.
fn by_convention(cfa: usize) -> [Recovered; REGISTERS] {
    let mut registers = [Recovered::Unknown; REGISTERS];
    for register in CALLEE_SAVED {
        registers[usize::from(register.0)] = Recovered::Same;
    }
    registers[usize::from(STACK_POINTER.0)] = Recovered::Value(cfa);
    registers
}

/// The slow rules of one table, each once, and their expressions.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlowRules {
    rules: Vec<SlowRule>,
    numbers: HashMap<SlowRule, u32>,
    expressions: Vec<u8>,
    places: HashMap<Vec<u8>, Bytes>,
}

impl SlowRules {
    /// The number of the rule for a row whose expressions `bytes` reads.
    pub(crate) fn add<'a, S: UnwindContextStorage<usize>>(
        &mut self,
        row: &UnwindTableRow<usize, S>,
        signal_frame: bool,
        bytes: impl Fn(UnwindExpression<usize>) -> Option<&'a [u8]>,
    ) -> u32 {
        let (places, expressions) = (&mut self.places, &mut self.expressions);
        let rule = SlowRule::new(row, signal_frame, |at| {
            let bytes = bytes(at).unwrap_or(&[]);
            *places.entry(bytes.to_vec()).or_insert_with(|| {
                let place = Bytes { offset: expressions.len() as u32, len: bytes.len() as u32 };
                expressions.extend(bytes);
                place
            })
        });
        let rules = &mut self.rules;
        *self.numbers.entry(rule.clone()).or_insert_with(|| {
            rules.push(rule);
            rules.len() as u32 - 1
        })
    }

    /// Forgets what only adding needs.
    pub(crate) fn closed(mut self) -> SlowRules {
        (self.numbers, self.places) = Default::default();
        self.rules.shrink_to_fit();
        self.expressions.shrink_to_fit();
        self
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rules.len() * size_of::<SlowRule>() + self.expressions.len()
    }

    /// The rule that `rule` stands for, to be evaluated or printed; `None` where there is none.
    pub(crate) fn resolve(&self, rule: Rule) -> Option<UnwindRule<'_>> {
        Some(UnwindRule(match rule.shape() {
            Shape::None => return None,
            Shape::Slow(_, number) => {
                Inner::Slow(self.rules[number as usize].clone(), &self.expressions)
            }
            _ => Inner::Packed(rule),
        }))
    }
}

/// How the caller of the frame at a pc is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwindRule<'a>(Inner<'a>);

#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "signal handlers look rules up, where nothing can be boxed"
)]
enum Inner<'a> {
    Packed(Rule),
    Slow(SlowRule, &'a [u8]),
}

impl<'a> UnwindRule<'a> {
    pub(crate) fn packed(rule: Rule) -> UnwindRule<'a> {
        UnwindRule(Inner::Packed(rule))
    }

    pub(crate) fn slow(rule: SlowRule, expressions: &'a [u8]) -> UnwindRule<'a> {
        UnwindRule(Inner::Slow(rule, expressions))
    }

    /// The packed rule, if it is one.
    pub(crate) fn as_packed(&self) -> Option<Rule> {
        match self.0 {
            Inner::Packed(rule) => Some(rule),
            Inner::Slow(..) => None,
        }
    }

    /// Whether its evaluation interprets CFI, being too rare a form to be compiled.
    pub fn is_slow(&self) -> bool {
        matches!(self.0, Inner::Slow(..))
    }

    /// Evaluates the rule for a frame's registers. No allocation; memory is read only by
    /// expressions and by frames that have been realigned.
    pub fn evaluate(
        &self,
        context: &RegisterSet,
        memory: &impl Memory,
    ) -> Result<Recovery, ExpressionError> {
        let rule = match &self.0 {
            Inner::Slow(rule, expressions) => return rule.evaluate(expressions, context, memory),
            Inner::Packed(rule) => *rule,
        };
        let known =
            |register| context.get(register).ok_or(ExpressionError::UnknownRegister(register));
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
            Shape::Slow(..) | Shape::None => {
                unreachable!("only rules that say something are made into unwind rules")
            }
        };
        let mut registers = by_convention(cfa);
        for (i, register) in CALLEE_SAVED.into_iter().enumerate() {
            if rule.saved(i) != 0 {
                registers[usize::from(register.0)] =
                    Recovered::At(saved_below.wrapping_sub(rule.saved(i)));
            }
        }
        let oldest = rule.is_oldest();
        if !oldest {
            registers[usize::from(RETURN_ADDRESS.0)] = Recovered::At(cfa.wrapping_sub(WORD));
        }
        Ok(Recovery { cfa, oldest, signal_frame: false, registers })
    }
}

/// The rule in words.
impl fmt::Display for UnwindRule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, expressions) = match &self.0 {
            Inner::Packed(rule) => return write!(f, "{rule:?}"),
            Inner::Slow(rule, expressions) => (rule, *expressions),
        };
        let name = |register: Register| X86_64::register_name(register).unwrap_or("?");
        let expression = |f: &mut fmt::Formatter<'_>, at: Bytes| {
            let bytes = gimli::EndianSlice::new(at.of(expressions), gimli::LittleEndian);
            let encoding =
                gimli::Encoding { format: gimli::Format::Dwarf32, version: 4, address_size: 8 };
            let mut operations = gimli::Expression(bytes).operations(encoding);
            f.write_str("{")?;
            let mut separator = "";
            while let Ok(Some(operation)) = operations.next() {
                write!(f, "{separator}{operation:?}")?;
                separator = "; ";
            }
            f.write_str("}")
        };
        if rule.signal_frame {
            f.write_str("signal frame, ")?;
        }
        match rule.cfa {
            Cfa::Register(register, offset) => write!(f, "cfa={}{offset:+}", name(register))?,
            Cfa::Expression(at) => {
                f.write_str("cfa=")?;
                expression(f, at)?;
            }
        }
        for (number, saved) in rule.registers.iter().enumerate() {
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
