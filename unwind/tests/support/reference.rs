//! One row of CFI as gimli itself evaluates it, the reference for compiled rules.

use gimli::{
    CfaRule, Encoding, EndianSlice, EvaluationResult, Format, LittleEndian, Location, Register,
    RegisterRule, UnwindSection, UnwindTableRow, Value, X86_64,
};

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// The integer registers and, as the last, the return address.
pub(crate) const REGISTERS: usize = 17;
const CALLEE_SAVED: [Register; 6] =
    [X86_64::RBX, X86_64::RBP, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];

/// Register values from a seed, aligned to words.
pub(crate) fn registers(seed: u64) -> [u64; REGISTERS] {
    std::array::from_fn(|number| (memory(seed ^ number as u64) >> 20) & !7)
}

/// A memory that holds something at every address.
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

/// The outcome of a row for `values`.
pub(crate) fn evaluate<'a, S: UnwindSection<Reader<'a>>>(
    section: &S,
    row: &UnwindTableRow<usize>,
    signal_frame: bool,
    values: &[u64; REGISTERS],
) -> Result<Outcome, gimli::Error>
where
    S::Offset: gimli::UnwindOffset<usize>,
{
    let expression = |at: gimli::UnwindExpression<usize>, initial: Option<u64>| {
        let encoding = Encoding { format: Format::Dwarf32, version: 4, address_size: 8 };
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
                    let value = values
                        .get(usize::from(register.0))
                        .ok_or(gimli::Error::UnsupportedEvaluation)?;
                    evaluation.resume_with_register(Value::Generic(*value))?
                }
                EvaluationResult::RequiresMemory { address, size: size @ 1..=8, .. } => {
                    let (word, shift) = (address & !7, (address & 7) as u32 * 8);
                    let high = memory(word.wrapping_add(8)).checked_shl(64 - shift).unwrap_or(0);
                    let value =
                        (memory(word) >> shift | high) & u64::MAX >> (64 - 8 * u32::from(size));
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
    let value = |register: Register| values.get(usize::from(register.0)).copied();
    let cfa = match *row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            value(register).ok_or(gimli::Error::UnsupportedEvaluation)?.wrapping_add_signed(offset)
        }
        CfaRule::Expression(at) => expression(at, None)?,
    };
    let oldest = matches!(row.register(X86_64::RA), Some(RegisterRule::Undefined));
    let mut registers = [State::Unknown; REGISTERS];
    if !oldest {
        for (number, state) in registers.iter_mut().enumerate() {
            let register = Register(number as u16);
            *state = match row.register(register) {
                None if CALLEE_SAVED.contains(&register) => State::Same,
                None if register == X86_64::RSP => State::Value(cfa),
                None => State::Unknown,
                Some(RegisterRule::Undefined | RegisterRule::Architectural) => State::Unknown,
                Some(RegisterRule::SameValue) => State::Same,
                Some(RegisterRule::Offset(offset)) => State::At(cfa.wrapping_add_signed(offset)),
                Some(RegisterRule::ValOffset(offset)) => {
                    State::Value(cfa.wrapping_add_signed(offset))
                }
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
