//! What the compiler needs of an architecture: a description, and bytes for a few instructions.
//!
//! Each architecture is a file. All of them are compiled on every machine, so that all are tested
//! on every machine.

mod aarch64;
mod armv7;
mod host;
mod i686;
#[cfg(test)]
mod tests;
mod x86;
mod x86_64;

use gimli::Register;
use gimli::write::CallFrameInstruction;

#[cfg(test)]
pub(crate) use host::every;
pub(crate) use host::{Options, code_is_written, guard, host};

/// A register, by what it is for. Several may be one: each architecture says which are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reg {
    /// Scratch, and no other one of these but [`Reg::Result`] and [`Reg::Landed`].
    A,
    /// As [`Reg::A`], and not that one.
    B,
    /// Holds the address of what is called; no argument.
    Callee,
    /// An argument of a call.
    Argument(usize),
    /// The result of a call.
    Result,
    /// One of the two values of an exception, at a landing pad. The second one is not [`Reg::A`].
    Landed(usize),
    /// The goroutine, in all managed code.
    Goroutine,
    /// One that callees keep.
    Kept(usize),
    /// The stack pointer.
    StackPointer,
    /// The frame pointer.
    FramePointer,
}

/// What a branch looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// The two words are equal.
    Equal,
    /// The two words differ.
    Differ,
    /// The first word is less, as unsigned numbers.
    Below,
}

/// A register that callees keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved {
    /// Its number in CFI.
    pub(crate) dwarf: Register,
    /// Its number in instructions.
    pub(crate) number: u8,
}

/// Registers whose numbers in CFI begin with `first`.
const fn saved<const N: usize>(first: Register, numbers: [u8; N]) -> [Saved; N] {
    let mut all = [Saved { dwarf: first, number: 0 }; N];
    let mut i = 0;
    while i < N {
        all[i] = Saved { dwarf: Register(first.0 + numbers[i] as u16), number: numbers[i] };
        i += 1;
    }
    all
}

/// What an architecture is like.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Bytes of a word.
    pub(crate) word: u32,
    /// The stack pointer is a multiple of this at calls.
    pub(crate) alignment: u32,
    /// Bytes that a call pushes.
    pub(crate) call_pushes: u32,
    /// Bytes from the frame pointer to the CFA: its saved value and the return address.
    pub(crate) record: u32,
    /// How many arguments are in registers.
    pub(crate) arguments: usize,
    /// Bytes below the arguments on the stack that a caller leaves for its callee.
    pub(crate) shadow: u32,
    /// The general registers that callees keep, without frame pointer and goroutine.
    pub(crate) saved: &'static [Saved],
    /// The vector registers that callees keep, of eight bytes.
    pub(crate) vectors: &'static [Saved],
    /// Whether `switch_out` keeps the register of the goroutine.
    pub(crate) switch_keeps_goroutine: bool,
    /// What is set in an address of code when it is called or jumped to.
    pub(crate) code_bit: usize,
    /// In CFI.
    pub(crate) stack_pointer: Register,
    /// In CFI.
    pub(crate) frame_pointer: Register,
    /// In CFI.
    pub(crate) return_address: Register,
}

/// A frame, from the CFA down: the frame record, the saved general registers, of which the lowest
/// numbered lies lowest, the vectors likewise, slots, and arguments of calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// From the stack pointer to the CFA.
    pub(crate) bytes: u32,
    /// How many general registers are saved: the first ones of the list.
    pub(crate) saved: usize,
    /// Whether the vectors are saved.
    pub(crate) vectors: bool,
}

impl Frame {
    /// Where the general registers are saved, from the frame pointer.
    fn saved<'m>(&self, machine: &'m Machine) -> impl Iterator<Item = (&'m Saved, i32)> + use<'m> {
        let (count, word) = (self.saved, machine.word as i32);
        let at = move |index| -word * (count - index) as i32;
        machine.saved[..count].iter().enumerate().map(move |(i, saved)| (saved, at(i)))
    }

    /// Where the vectors are saved, from the frame pointer.
    fn vectors<'m>(
        &self,
        machine: &'m Machine,
    ) -> impl Iterator<Item = (&'m Saved, i32)> + use<'m> {
        let count = if self.vectors { machine.vectors.len() } else { 0 };
        let above = (machine.word as usize * self.saved) as i32;
        let at = move |index| -above - 8 * (count - index) as i32;
        machine.vectors[..count].iter().enumerate().map(move |(i, saved)| (saved, at(i)))
    }
}

/// Code under construction, with its CFI.
#[derive(Debug, Default)]
pub(crate) struct Emitted {
    /// The instructions.
    pub(crate) bytes: Vec<u8>,
    /// What is true from an offset on.
    pub(crate) cfi: Vec<(u32, CallFrameInstruction)>,
}

impl Emitted {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn cfi(&mut self, what: CallFrameInstruction) {
        self.cfi.push((self.bytes.len() as u32, what));
    }

    /// A register lies at this offset from the frame pointer.
    fn is_saved(&mut self, machine: &Machine, saved: &Saved, at: i32) {
        self.cfi(CallFrameInstruction::Offset(saved.dwarf, at - machine.record as i32));
    }

    /// The frame record has been pushed.
    fn record_is_pushed(&mut self, machine: &Machine) {
        let (word, record) = (machine.word as i32, machine.record as i32);
        self.cfi(CallFrameInstruction::CfaOffset(record));
        self.cfi(CallFrameInstruction::Offset(machine.frame_pointer, -record));
        if machine.call_pushes == 0 {
            self.cfi(CallFrameInstruction::Offset(machine.return_address, word - record));
        }
    }

    /// The frame is gone, in the code that `code` adds. Behind that the frame is there again.
    fn frame_is_gone(&mut self, machine: &Machine, frame: &Frame, code: impl FnOnce(&mut Self)) {
        self.cfi(CallFrameInstruction::RememberState);
        let pushed = machine.call_pushes as i32;
        self.cfi(CallFrameInstruction::Cfa(machine.stack_pointer, pushed));
        let registers = frame.saved(machine).chain(frame.vectors(machine));
        for register in registers.map(|(saved, _)| saved.dwarf) {
            self.cfi(CallFrameInstruction::SameValue(register));
        }
        self.cfi(CallFrameInstruction::SameValue(machine.frame_pointer));
        if machine.call_pushes == 0 {
            self.cfi(CallFrameInstruction::SameValue(machine.return_address));
        }
        code(self);
        self.cfi(CallFrameInstruction::RestoreState);
    }
}

/// Makes instructions. Where a register is both read and written, it is named first.
pub(crate) trait Encoder: std::fmt::Debug {
    /// What the architecture is like.
    fn machine(&self) -> &'static Machine;
    /// Whether its code has a landing pad wherever a jump may go, for processors that look at that.
    fn has_pads(&self) -> bool {
        false
    }
    /// Makes a frame.
    fn prologue(&self, out: &mut Emitted, frame: &Frame);
    /// Drops the frame and returns.
    fn epilogue(&self, out: &mut Emitted, frame: &Frame);
    /// What Windows' unwinder reads of a function with this frame, where the code is for that.
    fn unwind_info(&self, _frame: &Frame) -> Option<Vec<u8>> {
        None
    }
    /// `to = value`
    fn constant(&self, out: &mut Emitted, to: Reg, value: usize);
    /// `to = from`
    fn copy(&self, out: &mut Emitted, to: Reg, from: Reg);
    /// `to = base + offset`
    fn address(&self, out: &mut Emitted, to: Reg, base: Reg, offset: u32);
    /// `to = *(base + offset)`
    fn load(&self, out: &mut Emitted, to: Reg, base: Reg, offset: u32);
    /// `*(base + offset) = from`
    fn store(&self, out: &mut Emitted, from: Reg, base: Reg, offset: u32);
    /// `to += by`
    fn add(&self, out: &mut Emitted, to: Reg, by: Reg);
    /// `to -= by`
    fn subtract(&self, out: &mut Emitted, to: Reg, by: Reg);
    /// `to *= by`
    fn multiply(&self, out: &mut Emitted, to: Reg, by: Reg);
    /// Compares, for a branch that comes next.
    fn compare(&self, out: &mut Emitted, a: Reg, b: Reg);
    /// A branch that is [patched](Encoder::patch). Returns its place.
    fn branch(&self, out: &mut Emitted, test: Test) -> usize;
    /// A jump that is patched.
    fn jump(&self, out: &mut Emitted) -> usize;
    /// A call that is patched.
    fn call(&self, out: &mut Emitted) -> usize;
    /// A call of what is at an address.
    fn call_at(&self, out: &mut Emitted, callee: Reg);
    /// Makes a branch, a jump or a call go to an offset of the same bytes.
    fn patch(&self, bytes: &mut [u8], at: usize, to: usize);
}
