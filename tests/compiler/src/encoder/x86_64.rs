//! x86-64, with the System V convention. The goroutine is in r15.

use gimli::write::CallFrameInstruction::CfaRegister;
use gimli::{Register, X86_64};

use super::{Emitted, Encoder, Frame, Machine, Reg, Saved, Test, x86};

#[derive(Debug)]
pub(crate) struct Amd64;

const fn saved(dwarf: Register, number: u8) -> Saved {
    Saved { dwarf, number }
}

static MACHINE: Machine = Machine {
    word: 8,
    alignment: 16,
    call_pushes: 8,
    record: 16,
    arguments: 4,
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

fn number(reg: Reg) -> u8 {
    match reg {
        Reg::A | Reg::Result | Reg::Landed(0) => 0,
        Reg::B | Reg::Callee => 11,
        Reg::Argument(index) => [7, 6, 2, 1][index],
        Reg::Landed(_) => 2,
        Reg::Goroutine => 15,
        Reg::Kept(index) => MACHINE.saved[index].number,
        Reg::StackPointer => 4,
        Reg::FramePointer => 5,
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

impl Encoder for Amd64 {
    fn machine(&self) -> &'static Machine {
        &MACHINE
    }

    fn prologue(&self, out: &mut Emitted, frame: &Frame) {
        let (sp, fp) = (number(Reg::StackPointer), number(Reg::FramePointer));
        out.put(&[0x50 | fp]); // push rbp
        out.record_is_pushed(&MACHINE);
        two(out, &[STORE], sp, fp); // mov rbp, rsp
        out.cfi(CfaRegister(MACHINE.frame_pointer));
        out.put(&[prefix(0, sp)]);
        x86::subtract_immediate(out, sp, frame.bytes - MACHINE.record);
        for (saved, at) in frame.saved(&MACHINE) {
            memory(out, STORE, saved.number, fp, at);
            out.is_saved(&MACHINE, saved, at);
        }
    }

    fn epilogue(&self, out: &mut Emitted, frame: &Frame) {
        let (sp, fp) = (number(Reg::StackPointer), number(Reg::FramePointer));
        for (saved, at) in frame.saved(&MACHINE) {
            memory(out, LOAD, saved.number, fp, at);
        }
        two(out, &[STORE], fp, sp); // mov rsp, rbp
        out.put(&[0x58 | fp]); // pop rbp
        out.frame_is_gone(&MACHINE, frame, |out| out.put(&[0xc3])); // ret
    }

    fn constant(&self, out: &mut Emitted, to: Reg, value: usize) {
        let to = number(to);
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
        let callee = number(callee);
        if callee >= 8 {
            out.put(&[0x41]);
        }
        out.put(&[0xff, x86::registers(2, callee)]);
    }

    fn patch(&self, bytes: &mut [u8], at: usize, to: usize) {
        x86::patch(bytes, at, to);
    }
}
