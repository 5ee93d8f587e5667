//! One row of CFI as gimli itself evaluates it, the reference for compiled rules. Where gimli
//! refuses an entry that libgcc takes, its rows are made here as libgcc makes them.
#![allow(dead_code, reason = "each user takes its part")]

use gimli::{
    BaseAddresses, CallFrameInstruction as Cfi, CfaRule, Encoding, EndianSlice, EvaluationResult,
    Format, FrameDescriptionEntry, LittleEndian, Location, Register, RegisterRule, UnwindContext,
    UnwindSection, UnwindTableRow, Value,
};

#[path = "arch.rs"]
mod arch;

use arch::{ADDRESS_BITS, CALL_PUSHES, CALLEE_SAVED, RA, SP, WORD};
pub(crate) use arch::{REGISTERS, VENDOR, is_walked};

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Register values from a seed, aligned to words.
pub(crate) fn registers(seed: u64) -> [u64; REGISTERS] {
    let word_of = |number: usize| memory(seed ^ number as u64) >> 20;
    std::array::from_fn(|number| word_of(number) & ADDRESS_BITS & !(WORD as u64 - 1))
}

/// A memory that holds something at every address. Words have the lowest of its bits.
pub(crate) fn memory(address: u64) -> u64 {
    let mut word = address.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// What a row says of one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Unknown,
    Same,
    At(u64),
    Value(u64),
}

/// What a row yields for some registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) cfa: u64,
    pub(crate) oldest: bool,
    pub(crate) signal_frame: bool,
    /// Unknown for an oldest frame.
    pub(crate) registers: [State; REGISTERS],
}

/// What a row says.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    cfa: CfaRule<usize>,
    rules: [Option<RegisterRule<usize>>; REGISTERS],
}

impl From<&UnwindTableRow<usize>> for Row {
    fn from(row: &UnwindTableRow<usize>) -> Row {
        let rules = std::array::from_fn(|number| row.register(Register(number as u16)));
        Row { cfa: row.cfa().clone(), rules }
    }
}

/// The rows of an entry with the pcs that they are for: by gimli, and, where gimli refuses the
/// entry, as libgcc has them.
pub(crate) fn rows<'a, S: UnwindSection<Reader<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    fde: &FrameDescriptionEntry<Reader<'a>>,
) -> Result<Vec<(u64, u64, Row)>, gimli::Error>
where
    S::Offset: gimli::UnwindOffset<usize>,
{
    let by_gimli = || -> Result<Vec<(u64, u64, Row)>, gimli::Error> {
        let mut context = UnwindContext::new();
        let mut table = fde.rows(section, bases, &mut context)?;
        let mut rows = Vec::new();
        while let Some(row) = table.next_row()? {
            rows.push((row.start_address(), row.end_address(), Row::from(row)));
        }
        Ok(rows)
    };
    let mut rows = by_gimli().or_else(|_| rows_of_libgcc(section, bases, fde))?;
    rows.iter_mut().for_each(|row| row.1 = row.1.min(fde.end_address()));
    rows.retain(|row| row.0 < row.1);
    Ok(rows)
}

/// As `execute_cfa_program` of libgcc, but for the initial rules, which it does not restore.
fn rows_of_libgcc<'a, S: UnwindSection<Reader<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    fde: &FrameDescriptionEntry<Reader<'a>>,
) -> Result<Vec<(u64, u64, Row)>, gimli::Error>
where
    S::Offset: gimli::UnwindOffset<usize>,
{
    /// Register, offset, and the expression that counts instead of them.
    type CfaState = (Register, i64, Option<gimli::UnwindExpression<usize>>);
    type Rules = [Option<RegisterRule<usize>>; REGISTERS];
    let (code, data) = (fde.cie().code_alignment_factor(), fde.cie().data_alignment_factor());
    let mut cfa: CfaState = (Register(0), 0, None);
    let mut rules: Rules = [const { None }; REGISTERS];
    let mut initial = rules.clone();
    let mut stack: Vec<(CfaState, Rules)> = Vec::new();
    let mut rows = Vec::new();
    let mut at = fde.initial_address();
    let common = fde.cie().instructions(section, bases);
    let own = fde.instructions(section, bases);
    for (is_own, mut program) in [(false, common), (true, own)] {
        initial = if is_own { rules.clone() } else { initial };
        while let Some(instruction) = program.next()? {
            let mut set = |register: Register, rule| {
                if let Some(place) = rules.get_mut(usize::from(register.0)) {
                    *place = rule;
                }
            };
            use RegisterRule as Rule;
            let next = match instruction {
                Cfi::AdvanceLoc { delta } => Some(at + u64::from(delta) * code),
                Cfi::SetLoc { address } => Some(address),
                _ => None,
            };
            match instruction {
                Cfi::DefCfa { register, offset } => cfa = (register, offset as i64, None),
                Cfi::DefCfaSf { register, factored_offset } => {
                    cfa = (register, factored_offset * data, None);
                }
                Cfi::DefCfaRegister { register } => (cfa.0, cfa.2) = (register, None),
                Cfi::DefCfaOffset { offset } => cfa.1 = offset as i64,
                Cfi::DefCfaOffsetSf { factored_offset } => cfa.1 = factored_offset * data,
                Cfi::DefCfaExpression { expression } => cfa.2 = Some(expression),
                Cfi::Undefined { register } => set(register, Some(Rule::Undefined)),
                Cfi::SameValue { register } => set(register, Some(Rule::SameValue)),
                Cfi::Offset { register, factored_offset } => {
                    set(register, Some(Rule::Offset(factored_offset as i64 * data)));
                }
                Cfi::OffsetExtendedSf { register, factored_offset } => {
                    set(register, Some(Rule::Offset(factored_offset * data)));
                }
                Cfi::ValOffset { register, factored_offset } => {
                    set(register, Some(Rule::ValOffset(factored_offset as i64 * data)));
                }
                Cfi::ValOffsetSf { register, factored_offset } => {
                    set(register, Some(Rule::ValOffset(factored_offset * data)));
                }
                Cfi::Register { dest_register, src_register } => {
                    set(dest_register, Some(Rule::Register(src_register)));
                }
                Cfi::Expression { register, expression } => {
                    set(register, Some(Rule::Expression(expression)));
                }
                Cfi::ValExpression { register, expression } => {
                    set(register, Some(Rule::ValExpression(expression)));
                }
                Cfi::Restore { register } => {
                    set(register, initial.get(usize::from(register.0)).cloned().flatten());
                }
                Cfi::RememberState => stack.push((cfa, rules.clone())),
                Cfi::RestoreState => {
                    (cfa, rules) = stack.pop().ok_or(gimli::Error::PopWithEmptyStack)?;
                }
                Cfi::AdvanceLoc { .. } | Cfi::SetLoc { .. } | Cfi::ArgsSize { .. } | Cfi::Nop => {}
                Cfi::NegateRaState => {}
            }
            if let Some(next) = next.filter(|_| is_own) {
                rows.push((at, next, row(cfa, rules.clone())));
                at = next;
            }
        }
    }
    rows.push((at, u64::MAX, row(cfa, rules.clone())));
    Ok(rows)
}

fn row(
    (register, offset, expression): (Register, i64, Option<gimli::UnwindExpression<usize>>),
    rules: [Option<RegisterRule<usize>>; REGISTERS],
) -> Row {
    let cfa = match expression {
        Some(expression) => CfaRule::Expression(expression),
        None => CfaRule::RegisterAndOffset { register, offset },
    };
    Row { cfa, rules }
}

/// The outcome of a row for `values`.
pub(crate) fn evaluate<'a, S: UnwindSection<Reader<'a>>>(
    section: &S,
    row: &Row,
    signal_frame: bool,
    values: &[u64; REGISTERS],
) -> Result<Outcome, gimli::Error>
where
    S::Offset: gimli::UnwindOffset<usize>,
{
    let value = |register: Register| {
        values.get(usize::from(register.0)).copied().filter(|_| is_walked(register))
    };
    let expression = |at: gimli::UnwindExpression<usize>, initial: Option<u64>| {
        let encoding = Encoding { format: Format::Dwarf32, version: 4, address_size: WORD as u8 };
        let mut evaluation = at.get(section)?.evaluation(encoding);
        evaluation.set_max_iterations(10_000);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut result = evaluation.evaluate()?;
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = value(register).ok_or(gimli::Error::UnsupportedEvaluation)?;
                    evaluation.resume_with_register(Value::Generic(value))?
                }
                EvaluationResult::RequiresMemory { address, size: size @ 1..=8, .. } => {
                    let within = address % WORD as u64;
                    let word = |at: u64| u128::from(memory(at & ADDRESS_BITS) & ADDRESS_BITS);
                    let low = address - within;
                    let two = word(low) | word(low.wrapping_add(WORD as u64)) << (8 * WORD);
                    let value = (two >> (8 * within)) as u64;
                    let value = value & u64::MAX >> (64 - 8 * u32::from(size));
                    evaluation.resume_with_memory(Value::Generic(value))?
                }
                _ => return Err(gimli::Error::UnsupportedEvaluation),
            };
        }
        match evaluation.as_result() {
            [piece] => match piece.location {
                Location::Address { address } => Ok(address),
                _ => Err(gimli::Error::UnsupportedEvaluation),
            },
            _ => Err(gimli::Error::UnsupportedEvaluation),
        }
    };
    let rule = |register: Register| row.rules.get(usize::from(register.0)).cloned().flatten();
    let sum = |base: u64, offset| base.wrapping_add_signed(offset) & ADDRESS_BITS;
    let cfa = match row.cfa {
        CfaRule::RegisterAndOffset { register, offset } => {
            sum(value(register).ok_or(gimli::Error::UnsupportedEvaluation)?, offset)
        }
        CfaRule::Expression(at) => expression(at, None)?,
    };
    let oldest = matches!(rule(RA), Some(RegisterRule::Undefined));
    let mut registers = [State::Unknown; REGISTERS];
    if !oldest {
        for (number, state) in registers.iter_mut().enumerate() {
            let register = Register(number as u16);
            *state = match rule(register) {
                _ if !is_walked(register) => State::Unknown,
                None if CALLEE_SAVED.contains(&register) => State::Same,
                None if register == RA && CALL_PUSHES == 0 => State::Same,
                None if register == SP => State::Value(cfa),
                None => State::Unknown,
                Some(RegisterRule::Undefined | RegisterRule::Architectural) => State::Unknown,
                Some(RegisterRule::SameValue) => State::Same,
                Some(RegisterRule::Offset(offset)) => State::At(sum(cfa, offset)),
                Some(RegisterRule::ValOffset(offset)) => State::Value(sum(cfa, offset)),
                Some(RegisterRule::Register(other)) => {
                    value(other).map_or(State::Unknown, State::Value)
                }
                Some(RegisterRule::Constant(constant)) => State::Value(constant),
                Some(RegisterRule::Expression(at)) => State::At(expression(at, Some(cfa))?),
                Some(RegisterRule::ValExpression(at)) => State::Value(expression(at, Some(cfa))?),
            };
        }
    }
    Ok(Outcome { cfa, oldest, signal_frame, registers })
}
