//! The registers of a frame: all that are known, or the three that a walk needs.

use gimli::Register;

use crate::arch::{self, CALLEE_SAVED, FRAME_POINTER, PC, REGISTERS, STACK_POINTER};
use crate::os_context::InterruptedContext;

/// Where a frame stands: the registers that a [`Walker`](crate::Walker) needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The pc: a return address, or a label at which the walked thread will go on. Its rule is
    /// looked up at the byte before it.
    pub pc: usize,
    /// The stack pointer there.
    pub sp: usize,
    /// The frame pointer there.
    pub fp: usize,
}

/// The integer registers of a frame by DWARF number, as far as they are known, and its pc. Where
/// parts of vector registers are callee-saved, these as well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RegisterSet {
    values: [usize; REGISTERS],
    /// One bit a register.
    known: u64,
}

impl RegisterSet {
    /// A frame of which only these are known.
    pub fn new(pc: usize, sp: usize, fp: usize) -> RegisterSet {
        let mut registers = RegisterSet::unknown();
        registers.set(PC, pc);
        registers.set(STACK_POINTER, sp);
        registers.set(FRAME_POINTER, fp);
        registers
    }

    /// A frame of which nothing is known.
    pub fn unknown() -> RegisterSet {
        RegisterSet { values: [0; REGISTERS], known: 0 }
    }

    /// The registers of the calling function. A walk from here begins with that function's own
    /// frame. Caller-saved registers are not recorded.
    #[inline(always)]
    pub fn capture() -> RegisterSet {
        let arch::Captured { pc, sp, callee_saved } = arch::capture();
        let mut registers = RegisterSet::unknown();
        registers.set(PC, pc);
        registers.set(STACK_POINTER, sp);
        for (register, value) in CALLEE_SAVED.into_iter().zip(callee_saved) {
            registers.set(register, value);
        }
        registers
    }

    /// The registers that a signal interrupted: `context` is the third argument of a handler with
    /// `SA_SIGINFO`. On Windows it is a `CONTEXT`, that of an exception or of a stopped thread,
    /// with its integer and control registers. The pc is exact. May be called in a signal handler.
    pub fn interrupted(context: &InterruptedContext) -> RegisterSet {
        const { assert!(REGISTERS < u64::BITS as usize) };
        let (values, known) = arch::interrupted(context);
        RegisterSet { values, known }
    }

    /// The value of a register, if it is known.
    #[inline]
    pub fn get(&self, register: Register) -> Option<usize> {
        let column = arch::column(register)?;
        (self.known >> column & 1 != 0).then(|| self.values[column])
    }

    /// Makes a register known. Registers that no walk needs are left out: those that are neither
    /// integer registers nor callee-saved.
    #[inline]
    pub fn set(&mut self, register: Register, value: usize) {
        if let Some(column) = arch::column(register) {
            self.values[column] = value;
            self.known |= 1 << column;
        }
    }

    /// The pc.
    #[inline]
    pub fn pc(&self) -> usize {
        self.get(PC).unwrap_or(0)
    }

    /// The stack pointer.
    #[inline]
    pub fn sp(&self) -> usize {
        self.get(STACK_POINTER).unwrap_or(0)
    }
}

impl core::fmt::Debug for RegisterSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let known = (0..REGISTERS)
            .map(arch::register_of)
            .filter_map(|register| Some((arch::register_name(register)?, self.get(register)?)));
        f.debug_map().entries(known).finish()
    }
}
