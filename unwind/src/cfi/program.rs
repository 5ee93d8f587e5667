//! The instructions of CFI, run to the row for a pc, or to all rows.
//!
//! They mean what they mean to libgcc. `def_cfa_offset` behind an expression notes the offset and
//! leaves the expression in force. `def_cfa_register` ends it, and takes the offset noted last.
//! (gimli refuses both, so its table of rows is not used.)
//!
//! Whether the return address is signed (arm64 PAC) is a part of the state, and not of the row: a
//! walk takes the signature from every return address that it reads. Compilers say it by an
//! operation that negates it. Cranelift says it by an expression, which is a constant.
//!
//! A run to one pc needs no memory for remembered states, however deep they are nested: what lies
//! between a `remember_state` and its `restore_state` changes nothing, so it is skipped. A
//! `remember_state` that is still open at the pc does nothing.

use std::ops::ControlFlow;

use gimli::{
    BaseAddresses, CallFrameInstruction, CallFrameInstructionIter, EndianSlice,
    FrameDescriptionEntry, LittleEndian, Register, UnwindExpression, UnwindOffset, UnwindSection,
};

use crate::arch::{SIGN_STATE, address_behind};
use crate::rule::{Bytes, Cfa, CfiRow, Saved};

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Instructions<'p, 'a> = CallFrameInstructionIter<'p, Reader<'a>>;

/// The limit of states that are remembered at one time. Compilers need three.
const DEPTH: usize = 256;

/// The program of one entry.
pub(super) struct Program<'p, 'a> {
    instructions: Instructions<'p, 'a>,
    initial: State,
    start: u64,
    code_factor: u64,
    data_factor: i64,
    /// The section, for expressions.
    bytes: &'a [u8],
}

/// A row, and the offset of a CFA by a register, which outlasts an expression.
#[derive(Clone)]
struct State {
    row: CfiRow,
    offset: i64,
    /// The return address is signed.
    signed: bool,
}

/// What an instruction does beside changing the row.
enum Effect {
    Nothing,
    /// The row ends here; the next one begins at this pc.
    Goes(u64),
    Remember,
    Restore,
}

impl<'p, 'a> Program<'p, 'a> {
    /// The program of `fde`, its entry's common part already run.
    pub(super) fn new<S: UnwindSection<Reader<'a>>>(
        section: &'p S,
        bytes: &'a [u8],
        bases: &'p BaseAddresses,
        fde: &FrameDescriptionEntry<Reader<'a>>,
    ) -> gimli::Result<Program<'p, 'a>>
    where
        S::Offset: UnwindOffset<usize>,
    {
        let cie = fde.cie();
        let row = CfiRow::unspecified(fde.is_signal_trampoline());
        let mut program = Program {
            instructions: cie.instructions(section, bases),
            initial: State { row, offset: 0, signed: false },
            start: 0,
            code_factor: cie.code_alignment_factor(),
            data_factor: cie.data_alignment_factor(),
            bytes,
        };
        program.initial = program.run_to(u64::MAX, true)?;
        program.instructions = fde.instructions(section, bases);
        program.start = fde.initial_address();
        Ok(program)
    }

    /// The row in force at `pc`, which is not below the start. Nothing is allocated.
    pub(super) fn row_at(&self, pc: u64) -> gimli::Result<CfiRow> {
        Ok(self.run_to(pc, false)?.row)
    }

    fn run_to(&self, pc: u64, is_common: bool) -> gimli::Result<State> {
        let mut state = self.initial.clone();
        let mut instructions = self.instructions.clone();
        let (mut at, mut open) = (self.start, 0);
        while let Some(instruction) = instructions.next()? {
            match self.step(&mut state, instruction, at, is_common)? {
                Effect::Nothing => {}
                Effect::Goes(next) if next > pc => break,
                Effect::Goes(next) => at = next,
                Effect::Remember => {
                    if !self.skip(&mut instructions, &mut at, pc)? {
                        open += 1;
                        if open > DEPTH {
                            return Err(gimli::Error::StackFull);
                        }
                    }
                }
                Effect::Restore => return Err(gimli::Error::PopWithEmptyStack),
            }
        }
        Ok(state)
    }

    /// Goes to behind the `restore_state` for the `remember_state` just read. Stays, and yields
    /// false, if it is not reached by `pc`.
    fn skip(&self, from: &mut Instructions<'p, 'a>, at: &mut u64, pc: u64) -> gimli::Result<bool> {
        let mut instructions = from.clone();
        let (mut depth, mut here) = (1_usize, *at);
        while let Some(instruction) = instructions.next()? {
            match instruction {
                CallFrameInstruction::RememberState => depth += 1,
                CallFrameInstruction::RestoreState => {
                    depth -= 1;
                    if depth == 0 {
                        (*from, *at) = (instructions, here);
                        return Ok(true);
                    }
                }
                CallFrameInstruction::AdvanceLoc { delta } => here = self.advance(here, delta)?,
                CallFrameInstruction::SetLoc { address } => here = address,
                _ => {}
            }
            if here > pc {
                break;
            }
        }
        Ok(false)
    }

    /// Calls `each` for every row, until it breaks: with the pc at which it begins, and whether the
    /// return address is signed there.
    pub(super) fn rows(
        &self,
        mut each: impl FnMut(u64, &CfiRow, bool) -> ControlFlow<()>,
    ) -> gimli::Result<()> {
        let mut state = self.initial.clone();
        let mut remembered: Vec<State> = Vec::new();
        let mut instructions = self.instructions.clone();
        let mut at = self.start;
        while let Some(instruction) = instructions.next()? {
            match self.step(&mut state, instruction, at, false)? {
                Effect::Nothing => {}
                Effect::Goes(next) => {
                    if each(at, &state.row, state.signed).is_break() {
                        return Ok(());
                    }
                    at = next;
                }
                Effect::Remember if remembered.len() == DEPTH => {
                    return Err(gimli::Error::StackFull);
                }
                Effect::Remember => remembered.push(state.clone()),
                Effect::Restore => {
                    state = remembered.pop().ok_or(gimli::Error::PopWithEmptyStack)?;
                }
            }
        }
        let _ = each(at, &state.row, state.signed);
        Ok(())
    }

    fn advance(&self, at: u64, delta: u32) -> gimli::Result<u64> {
        address_behind(at, u64::from(delta).wrapping_mul(self.code_factor))
            .ok_or(gimli::Error::AddressOverflow)
    }

    /// Runs one instruction, at the pc that the program has come to. `is_common` in the common part
    /// of entries, which has no initial rules to go back to.
    fn step(
        &self,
        state: &mut State,
        instruction: CallFrameInstruction<usize>,
        at: u64,
        is_common: bool,
    ) -> gimli::Result<Effect> {
        use CallFrameInstruction as Cfi;
        let factored = |offset: i64| offset.wrapping_mul(self.data_factor);
        let State { row, offset, signed } = state;
        if let Some(says) = self.sign_state(&instruction) {
            *signed = says?;
            return Ok(Effect::Nothing);
        }
        let mut set = |register: Register, saved: Saved| row.set(register, saved);
        match instruction {
            Cfi::SetLoc { address } if address < at => {
                return Err(gimli::Error::InvalidCfiSetLoc(address));
            }
            Cfi::SetLoc { address } => return Ok(Effect::Goes(address)),
            Cfi::AdvanceLoc { .. } if is_common => {}
            Cfi::AdvanceLoc { delta } => return Ok(Effect::Goes(self.advance(at, delta)?)),

            Cfi::DefCfa { register, offset: new } => {
                *offset = new as i64;
                row.cfa = Cfa::Register(register, *offset);
            }
            Cfi::DefCfaSf { register, factored_offset } => {
                *offset = factored(factored_offset);
                row.cfa = Cfa::Register(register, *offset);
            }
            Cfi::DefCfaRegister { register } => row.cfa = Cfa::Register(register, *offset),
            Cfi::DefCfaOffset { .. } | Cfi::DefCfaOffsetSf { .. } => {
                *offset = match instruction {
                    Cfi::DefCfaOffset { offset } => offset as i64,
                    Cfi::DefCfaOffsetSf { factored_offset } => factored(factored_offset),
                    _ => *offset,
                };
                if let Cfa::Register(register, _) = row.cfa {
                    row.cfa = Cfa::Register(register, *offset);
                }
            }
            Cfi::DefCfaExpression { expression } => row.cfa = Cfa::Expression(place(expression)),

            Cfi::Undefined { register } => set(register, Saved::Undefined),
            Cfi::SameValue { register } => set(register, Saved::Same),
            Cfi::Offset { register, factored_offset } => {
                set(register, Saved::Offset(factored(factored_offset as i64)));
            }
            Cfi::OffsetExtendedSf { register, factored_offset } => {
                set(register, Saved::Offset(factored(factored_offset)));
            }
            Cfi::ValOffset { register, factored_offset } => {
                set(register, Saved::ValOffset(factored(factored_offset as i64)));
            }
            Cfi::ValOffsetSf { register, factored_offset } => {
                set(register, Saved::ValOffset(factored(factored_offset)));
            }
            Cfi::Register { dest_register, src_register } => {
                set(dest_register, Saved::Register(src_register));
            }
            Cfi::Expression { register, expression } => {
                set(register, Saved::Expression(place(expression)));
            }
            Cfi::ValExpression { register, expression } => {
                set(register, Saved::ValExpression(place(expression)));
            }
            Cfi::Restore { .. } if is_common => {
                return Err(gimli::Error::CfiInstructionInInvalidContext);
            }
            Cfi::Restore { register } => set(register, self.initial.row.saved(register)),

            Cfi::RememberState => return Ok(Effect::Remember),
            Cfi::RestoreState => return Ok(Effect::Restore),

            Cfi::NegateRaState => *signed = !*signed,

            // The size of pushed arguments matters to landing pads alone.
            Cfi::ArgsSize { .. } | Cfi::Nop => {}
        }
        Ok(Effect::Nothing)
    }

    /// What an instruction with a rule for the register of the sign state says; `None` for others.
    fn sign_state(&self, instruction: &CallFrameInstruction<usize>) -> Option<gimli::Result<bool>> {
        use CallFrameInstruction as Cfi;
        let register = Some(SIGN_STATE?);
        match *instruction {
            Cfi::ValExpression { register: set, expression } if Some(set) == register => {
                let UnwindExpression { offset, length } = expression;
                let operations = self.bytes.get(offset..).and_then(|rest| rest.get(..length));
                Some(match operations {
                    Some([operation]) if *operation == gimli::DW_OP_lit0.0 => Ok(false),
                    Some([operation]) if *operation == gimli::DW_OP_lit1.0 => Ok(true),
                    _ => Err(gimli::Error::CfiInstructionInInvalidContext),
                })
            }
            Cfi::Restore { register: set } if Some(set) == register => {
                Some(Ok(self.initial.signed))
            }
            _ => None,
        }
    }
}

/// Where an expression lies in its section, which is less than 4 GiB long.
fn place(expression: UnwindExpression<usize>) -> Bytes {
    Bytes { offset: expression.offset as u32, len: expression.length as u32 }
}
