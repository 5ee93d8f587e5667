//! What a rule yields: the frame's CFA, and where each register of its caller is.

use gimli::Register;

use super::expression::ExpressionError;
use crate::arch::{CALL_PUSHES, CALLEE_SAVED, PC, REGISTERS, RETURN_ADDRESS, STACK_POINTER};
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
        registers: &RegisterSet,
        memory: &impl Memory,
    ) -> Result<RegisterSet, ExpressionError> {
        let mut caller = RegisterSet::unknown();
        for (number, recovered) in self.registers.iter().enumerate() {
            let register = Register(number as u16);
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
        if let Some(return_address) = caller.get(RETURN_ADDRESS) {
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
        registers[usize::from(register.0)] = Recovered::Same;
    }
    if CALL_PUSHES == 0 {
        registers[usize::from(RETURN_ADDRESS.0)] = Recovered::Same;
    }
    registers[usize::from(STACK_POINTER.0)] = Recovered::Value(cfa);
    registers
}
