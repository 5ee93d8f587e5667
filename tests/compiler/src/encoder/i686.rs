//! i686, with the C convention of Linux: arguments on the stack. The goroutine is in edi.

use gimli::X86;
use gimli::write::CallFrameInstruction::CfaRegister;

use super::{Emitted, Encoder, Frame, Machine, Reg, Saved, Test, x86};

#[derive(Debug)]
pub(crate) struct I686;

static MACHINE: Machine = Machine {
    word: 4,
    alignment: 16,
    call_pushes: 4,
    record: 8,
    arguments: 0,
    shadow: 0,
    saved: &[Saved { dwarf: X86::EBX, number: 3 }, Saved { dwarf: X86::ESI, number: 6 }],
    vectors: &[],
    switch_keeps_goroutine: false,
    code_bit: 0,
    stack_pointer: X86::ESP,
    frame_pointer: X86::EBP,
    return_address: X86::RA,
};

fn number(reg: Reg) -> u8 {
    match reg {
        Reg::A | Reg::Result | Reg::Landed(0) => 0,
        Reg::B | Reg::Callee => 1,
        Reg::Argument(index) => panic!("argument {index} is in no register"),
        Reg::Landed(_) => 2,
        Reg::Goroutine => 7,
        Reg::Kept(index) => MACHINE.saved[index].number,
        Reg::StackPointer => 4,
        Reg::FramePointer => 5,
    }
}

/// An instruction with two registers, the second of which is the operand that may be in memory.
fn two(out: &mut Emitted, opcode: &[u8], register: u8, operand: u8) {
    out.put(opcode);
    out.put(&[x86::registers(register, operand)]);
}

/// An instruction with a register and `[base + offset]`.
fn memory(out: &mut Emitted, opcode: u8, register: u8, base: u8, offset: i32) {
    out.put(&[opcode]);
    out.put(&x86::memory(register, base, offset));
}

const LOAD: u8 = 0x8b;
const STORE: u8 = 0x89;

impl Encoder for I686 {
    fn machine(&self) -> &'static Machine {
        &MACHINE
    }

    fn prologue(&self, out: &mut Emitted, frame: &Frame) {
        let (sp, fp) = (number(Reg::StackPointer), number(Reg::FramePointer));
        out.put(&[0x50 | fp]); // push ebp
        out.record_is_pushed(&MACHINE);
        two(out, &[STORE], sp, fp); // mov ebp, esp
        out.cfi(CfaRegister(MACHINE.frame_pointer));
        x86::subtract_immediate(out, sp, frame.bytes - MACHINE.record);
        for (saved, at) in frame.saved(&MACHINE) {
            memory(out, STORE, saved.number, fp, at);
            out.is_saved(&MACHINE, saved, at);
        }
    }

    fn epilogue(&self, out: &mut Emitted, frame: &Frame) {
        let fp = number(Reg::FramePointer);
        for (saved, at) in frame.saved(&MACHINE) {
            memory(out, LOAD, saved.number, fp, at);
        }
        out.put(&[0xc9]); // leave
        out.frame_is_gone(&MACHINE, frame, |out| out.put(&[0xc3])); // ret
    }

    fn constant(&self, out: &mut Emitted, to: Reg, value: usize) {
        out.put(&[0xb8 | number(to)]);
        out.put(&word(value).to_le_bytes());
    }

    fn copy(&self, out: &mut Emitted, to: Reg, from: Reg) {
        two(out, &[STORE], number(from), number(to));
    }

    fn address(&self, out: &mut Emitted, to: Reg, base: Reg, offset: u32) {
        memory(out, 0x8d, number(to), number(base), offset as i32); // lea
    }

    fn load(&self, out: &mut Emitted, to: Reg, base: Reg, offset: u32) {
        memory(out, LOAD, number(to), number(base), offset as i32);
    }

    fn store(&self, out: &mut Emitted, from: Reg, base: Reg, offset: u32) {
        memory(out, STORE, number(from), number(base), offset as i32);
    }

    fn add(&self, out: &mut Emitted, to: Reg, by: Reg) {
        two(out, &[0x01], number(by), number(to));
    }

    fn subtract(&self, out: &mut Emitted, to: Reg, by: Reg) {
        two(out, &[0x29], number(by), number(to));
    }

    fn multiply(&self, out: &mut Emitted, to: Reg, by: Reg) {
        two(out, &[0x0f, 0xaf], number(to), number(by)); // imul
    }

    fn compare(&self, out: &mut Emitted, a: Reg, b: Reg) {
        two(out, &[0x39], number(b), number(a));
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
        out.put(&[0xff, x86::registers(2, number(callee))]);
    }

    fn patch(&self, bytes: &mut [u8], at: usize, to: usize) {
        x86::patch(bytes, at, to);
    }
}

/// A word of this architecture.
fn word(value: usize) -> u32 {
    u32::try_from(value).expect("a word of 32 bits")
}
