//! What a rule yields: the frame's CFA, and where each register of its caller is.

use gimli::Register;

use super::expression::ExpressionError;
use crate::arch::{
    CALL_PUSHES, CALLEE_SAVED, PC, REGISTERS, RETURN_ADDRESS, STACK_POINTER, column, register_of,
    without_signature,
};
use crate::memory::Memory;
use crate::registers::RegisterSet;

/// What a rule says of one register of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// It cannot be known.
    Unknown,
    /// It has the same value as in this frame.
    Same,
    /// It stands in the word at this address.
    At(usize),
    /// It has this value.
    Value(usize),
}

/// What a rule yields for given registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The canonical frame address. It is the caller's stack pointer, unless the rule says
    /// otherwise.
    pub cfa: usize,
    /// The frame is the oldest one of its stack: its return address is undefined.
    pub oldest: bool,
    /// The frame was entered by a signal. Its caller's pc is exact, not a return address.
    pub signal_frame: bool,
    pub(super) registers: [Recovered; REGISTERS],
}

impl Recovery {
    /// A register of the caller. The return-address register stands for the caller's pc.
    pub fn register(&self, register: Register) -> Recovered {
        column(register).map_or(Recovered::Unknown, |column| self.registers[column])
    }

    /// Where the return address stands, if it stands in memory.
    pub fn return_slot(&self) -> Option<usize> {
        match self.register(RETURN_ADDRESS) {
            Recovered::At(address) => Some(address),
            _ => None,
        }
    }

    /// That of a frame that the kernel has made, whose words lie where `words` says, by column.
    pub(crate) fn of_signal(words: [Option<usize>; REGISTERS], cfa: usize) -> Recovery {
        let registers = words.map(|at| at.map_or(Recovered::Unknown, Recovered::At));
        Recovery { cfa, oldest: false, signal_frame: true, registers }
    }

    /// That of a frame that keeps all registers, and its return address in this slot or in its
    /// register.
    pub(crate) fn of_stub(cfa: usize, return_slot: Option<usize>) -> Recovery {
        let mut registers = by_convention(cfa);
        if let Some(slot) = return_slot {
            set(&mut registers, RETURN_ADDRESS, Recovered::At(slot));
        }
        Recovery { cfa, oldest: false, signal_frame: false, registers }
    }

    /// The caller's registers; an error names a word that cannot be read.
    pub(crate) fn caller(
        &self,
        registers: &RegisterSet,
        memory: &impl Memory,
    ) -> Result<RegisterSet, ExpressionError> {
        let mut caller = RegisterSet::unknown();
        for (column, recovered) in self.registers.iter().enumerate() {
            let register = register_of(column);
            let value = match *recovered {
                Recovered::Unknown => None,
                Recovered::Same => registers.get(register),
                Recovered::Value(value) => Some(value),
                Recovered::At(address) => {
                    Some(memory.read(address).ok_or(ExpressionError::Unreadable(address))?)
                }
            };
            if let Some(value) = value {
                caller.set(register, value);
            }
        }
        // A signal frame may have both: the pc, and what the register held.
        if let Some(return_address) = caller.get(RETURN_ADDRESS)
            && (PC == RETURN_ADDRESS || self.register(PC) == Recovered::Unknown)
        {
            let return_address = without_signature(return_address);
            caller.set(RETURN_ADDRESS, return_address);
            caller.set(PC, return_address);
        }
        Ok(caller)
    }
}

/// The registers that CFI does not mention: callee-saved ones are kept, the stack pointer is the
/// CFA, a link register holds the return address.
pub(super) fn by_convention(cfa: usize) -> [Recovered; REGISTERS] {
    let mut registers = [Recovered::Unknown; REGISTERS];
    for register in CALLEE_SAVED {
        set(&mut registers, register, Recovered::Same);
    }
    if CALL_PUSHES == 0 {
        set(&mut registers, RETURN_ADDRESS, Recovered::Same);
    }
    set(&mut registers, STACK_POINTER, Recovered::Value(cfa));
    registers
}

/// Notes what is known of a register.
pub(super) fn set(
    registers: &mut [Recovered; REGISTERS],
    register: Register,
    recovered: Recovered,
) {
    if let Some(column) = column(register) {
        registers[column] = recovered;
    }
}
