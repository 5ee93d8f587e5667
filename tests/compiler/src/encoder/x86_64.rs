//! x86-64, with the System V convention or that of Windows. The goroutine is in r15.

use gimli::write::CallFrameInstruction::CfaRegister;
use gimli::{Register, X86_64};

use super::{Emitted, Encoder, Frame, Machine, Reg, Saved, Test, x86};

#[derive(Debug)]
pub(crate) struct Amd64 {
    /// Its functions follow the convention of Windows.
    pub(crate) windows: bool,
}

const fn saved(dwarf: Register, number: u8) -> Saved {
    Saved { dwarf, number }
}

static SYSTEM_V: Machine = Machine {
    word: 8,
    alignment: 16,
    call_pushes: 8,
    record: 16,
    arguments: 4,
    shadow: 0,
    saved: &[
        saved(X86_64::RBX, 3),
        saved(X86_64::R12, 12),
        saved(X86_64::R13, 13),
        saved(X86_64::R14, 14),
    ],
    vectors: &[],
    switch_keeps_goroutine: true,
    code_bit: 0,
    stack_pointer: X86_64::RSP,
    frame_pointer: X86_64::RBP,
    return_address: X86_64::RA,
};

static WINDOWS: Machine = Machine {
    shadow: 32,
    saved: &[
        saved(X86_64::RBX, 3),
        saved(X86_64::R12, 12),
        saved(X86_64::R13, 13),
        saved(X86_64::R14, 14),
        saved(X86_64::RDI, 7),
        saved(X86_64::RSI, 6),
    ],
    ..SYSTEM_V
};

impl Amd64 {
    fn number(&self, reg: Reg) -> u8 {
        match reg {
            Reg::A | Reg::Result | Reg::Landed(0) => 0,
            Reg::B | Reg::Callee => 11,
            Reg::Argument(index) if self.windows => [1, 2, 8, 9][index],
            Reg::Argument(index) => [7, 6, 2, 1][index],
            Reg::Landed(_) => 2,
            Reg::Goroutine => 15,
            Reg::Kept(index) => self.machine().saved[index].number,
            Reg::StackPointer => 4,
            Reg::FramePointer => 5,
        }
    }
}

/// The prefix for operands of 64 bits.
fn prefix(register: u8, operand: u8) -> u8 {
    0x48 | register >> 3 << 2 | operand >> 3
}

/// An instruction with two registers, the second of which is the operand that may be in memory.
fn two(out: &mut Emitted, opcode: &[u8], register: u8, operand: u8) {
    out.put(&[prefix(register, operand)]);
    out.put(opcode);
    out.put(&[x86::registers(register, operand)]);
}

/// An instruction with a register and `[base + offset]`.
fn memory(out: &mut Emitted, opcode: u8, register: u8, base: u8, offset: i32) {
    out.put(&[prefix(register, base), opcode]);
    out.put(&x86::memory(register, base, offset));
}

const LOAD: u8 = 0x8b;
const STORE: u8 = 0x89;
const SP: u8 = 4;
const FP: u8 = 5;

/// UNWIND_INFO of a function with this frame.
fn unwind_info(encoder: &Amd64, frame: &Frame) -> Vec<u8> {
    const PUSH_NONVOL: u8 = 0;
    const ALLOC_LARGE: u8 = 1;
    const SAVE_NONVOL: u8 = 4;
    /// Bytes of each instruction that saves a register.
    const SAVES: usize = 4;
    /// Bytes of the push.
    const PUSHED: u8 = 1;
    let machine = encoder.machine();
    let mut out = Emitted::default();
    encoder.prologue(&mut out, frame);
    let (size, allocated) = (out.bytes.len(), out.bytes.len() - SAVES * frame.saved);
    let bytes = frame.bytes - machine.record;
    // Of the last instruction first.
    let mut codes = vec![];
    for (index, (saved, at)) in frame.saved(machine).enumerate().collect::<Vec<_>>().iter().rev() {
        let behind = allocated + SAVES * (index + 1);
        codes.push([behind as u8, SAVE_NONVOL | saved.number << 4]);
        codes.push(((bytes as i32 + at) as u16 / 8).to_le_bytes());
    }
    codes.push([allocated as u8, ALLOC_LARGE]);
    codes.push((bytes as u16 / 8).to_le_bytes());
    codes.push([PUSHED, PUSH_NONVOL | FP << 4]);
    let mut info = vec![1, size as u8, codes.len() as u8, 0];
    codes.resize(codes.len().next_multiple_of(2), [0; 2]);
    info.extend(codes.as_flattened());
    info
}

impl Encoder for Amd64 {
    fn machine(&self) -> &'static Machine {
        if self.windows { &WINDOWS } else { &SYSTEM_V }
    }

    fn prologue(&self, out: &mut Emitted, frame: &Frame) {
        let (machine, sp, fp) = (self.machine(), SP, FP);
        out.put(&[0x50 | fp]); // push rbp
        out.record_is_pushed(machine);
        two(out, &[STORE], sp, fp); // mov rbp, rsp
        out.cfi(CfaRegister(machine.frame_pointer));
        out.put(&[prefix(0, sp)]);
        x86::subtract_immediate(out, sp, frame.bytes - machine.record);
        for (saved, at) in frame.saved(machine) {
            memory(out, STORE, saved.number, fp, at);
            out.is_saved(machine, saved, at);
        }
    }

    fn epilogue(&self, out: &mut Emitted, frame: &Frame) {
        let (machine, sp, fp) = (self.machine(), SP, FP);
        for (saved, at) in frame.saved(machine) {
            memory(out, LOAD, saved.number, fp, at);
        }
        if self.windows {
            // Its unwinder knows an epilogue by this instruction.
            out.put(&[prefix(0, sp)]);
            x86::add_immediate(out, sp, frame.bytes - machine.record);
        } else {
            two(out, &[STORE], fp, sp); // mov rsp, rbp
        }
        out.put(&[0x58 | fp]); // pop rbp
        out.frame_is_gone(machine, frame, |out| out.put(&[0xc3])); // ret
    }

    fn unwind_info(&self, frame: &Frame) -> Option<Vec<u8>> {
        self.windows.then(|| unwind_info(self, frame))
    }

    fn constant(&self, out: &mut Emitted, to: Reg, value: usize) {
        let to = self.number(to);
        match u32::try_from(value) {
            // mov of 32 bits, which clears the upper ones
            Ok(value) => {
                if to >= 8 {
                    out.put(&[0x41]);
                }
                out.put(&[0xb8 | to & 7]);
                out.put(&value.to_le_bytes());
            }
            Err(_) => {
                out.put(&[prefix(0, to), 0xb8 | to & 7]);
                out.put(&value.to_le_bytes());
            }
        }
    }

    fn copy(&self, out: &mut Emitted, to: Reg, from: Reg) {
        two(out, &[STORE], self.number(from), self.number(to));
    }

    fn address(&self, out: &mut Emitted, to: Reg, base: Reg, offset: u32) {
        memory(out, 0x8d, self.number(to), self.number(base), offset as i32); // lea
    }

    fn load(&self, out: &mut Emitted, to: Reg, base: Reg, offset: u32) {
        memory(out, LOAD, self.number(to), self.number(base), offset as i32);
    }

    fn store(&self, out: &mut Emitted, from: Reg, base: Reg, offset: u32) {
        memory(out, STORE, self.number(from), self.number(base), offset as i32);
    }

    fn add(&self, out: &mut Emitted, to: Reg, by: Reg) {
        two(out, &[0x01], self.number(by), self.number(to));
    }

    fn subtract(&self, out: &mut Emitted, to: Reg, by: Reg) {
        two(out, &[0x29], self.number(by), self.number(to));
    }

    fn multiply(&self, out: &mut Emitted, to: Reg, by: Reg) {
        two(out, &[0x0f, 0xaf], self.number(to), self.number(by)); // imul
    }

    fn compare(&self, out: &mut Emitted, a: Reg, b: Reg) {
        two(out, &[0x39], self.number(b), self.number(a));
    }

    fn branch(&self, out: &mut Emitted, test: Test) -> usize {
        out.put(&[0x0f, x86::condition(test)]);
        x86::distance(out)
    }

    fn jump(&self, out: &mut Emitted) -> usize {
        out.put(&[0xe9]);
        x86::distance(out)
    }

    fn call(&self, out: &mut Emitted) -> usize {
        out.put(&[0xe8]);
        x86::distance(out)
    }

    fn call_at(&self, out: &mut Emitted, callee: Reg) {
        let callee = self.number(callee);
        if callee >= 8 {
            out.put(&[0x41]);
        }
        out.put(&[0xff, x86::registers(2, callee)]);
    }

    fn patch(&self, bytes: &mut [u8], at: usize, to: usize) {
        x86::patch(bytes, at, to);
    }
}
