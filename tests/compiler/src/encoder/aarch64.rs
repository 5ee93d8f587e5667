//! arm64, with the AAPCS64 convention. The goroutine is in x21.

use gimli::AArch64;
use gimli::write::CallFrameInstruction::{CfaRegister, NegateRaState};

use super::{Emitted, Encoder, Frame, Machine, Reg, Saved, Test, saved};

#[derive(Debug)]
pub(crate) struct Arm64 {
    /// Whether functions sign their return addresses.
    pub(crate) signs: bool,
}

static GENERAL: [Saved; 9] = saved(AArch64::X0, [19, 20, 22, 23, 24, 25, 26, 27, 28]);
static VECTORS: [Saved; 8] = saved(AArch64::V0, [8, 9, 10, 11, 12, 13, 14, 15]);

static MACHINE: Machine = Machine {
    word: 8,
    alignment: 16,
    call_pushes: 0,
    record: 16,
    arguments: 4,
    shadow: 0,
    saved: &GENERAL,
    vectors: &VECTORS,
    switch_keeps_goroutine: true,
    code_bit: 0,
    stack_pointer: AArch64::SP,
    frame_pointer: AArch64::X29,
    return_address: AArch64::X30,
};

const SP: u32 = 31;
const FP: u32 = 29;
const LR: u32 = 30;
const ZERO: u32 = 31;

fn number(reg: Reg) -> u32 {
    match reg {
        Reg::A => 9,
        Reg::B => 10,
        Reg::Callee => 16,
        Reg::Argument(index) | Reg::Landed(index) => index as u32,
        Reg::Result => 0,
        Reg::Goroutine => 21,
        Reg::Kept(index) => GENERAL[index].number.into(),
        Reg::StackPointer => SP,
        Reg::FramePointer => FP,
    }
}

fn put(out: &mut Emitted, instruction: u32) {
    out.put(&instruction.to_le_bytes());
}

/// A load or store with a signed offset of nine bits.
fn near(out: &mut Emitted, opcode: u32, register: u8, base: u32, offset: i32) {
    assert!((-256..256).contains(&offset), "offset {offset}");
    put(out, opcode | (offset as u32 & 0x1ff) << 12 | base << 5 | u32::from(register));
}

/// A load or store with an offset in words.
fn memory(out: &mut Emitted, opcode: u32, register: Reg, base: Reg, offset: u32) {
    assert!(offset.is_multiple_of(8) && offset < 1 << 15, "offset {offset}");
    put(out, opcode | (offset / 8) << 10 | number(base) << 5 | number(register));
}

/// An instruction with three registers.
fn three(out: &mut Emitted, opcode: u32, to: u32, a: u32, b: u32) {
    put(out, opcode | b << 16 | a << 5 | to);
}

impl Encoder for Arm64 {
    fn machine(&self) -> &'static Machine {
        &MACHINE
    }

    // The instruction that signs is one.
    fn has_pads(&self) -> bool {
        self.signs
    }

    fn prologue(&self, out: &mut Emitted, frame: &Frame) {
        if self.signs {
            put(out, 0xd503_233f); // paciasp
            out.cfi(NegateRaState);
        }
        put(out, 0xa9bf_0000 | LR << 10 | SP << 5 | FP); // stp x29, x30, [sp, #-16]!
        out.record_is_pushed(&MACHINE);
        put(out, 0x9100_0000 | SP << 5 | FP); // mov x29, sp
        out.cfi(CfaRegister(MACHINE.frame_pointer));
        let bytes = frame.bytes - MACHINE.record;
        assert!(bytes < 1 << 12, "a frame of {bytes} bytes");
        put(out, 0xd100_0000 | bytes << 10 | SP << 5 | SP); // sub sp, sp, #BYTES
        for (saved, at) in frame.saved(&MACHINE) {
            near(out, 0xf800_0000, saved.number, FP, at); // stur
            out.is_saved(&MACHINE, saved, at);
        }
        for (saved, at) in frame.vectors(&MACHINE) {
            near(out, 0xfc00_0000, saved.number, FP, at); // stur of a vector
            out.is_saved(&MACHINE, saved, at);
        }
    }

    fn epilogue(&self, out: &mut Emitted, frame: &Frame) {
        for (saved, at) in frame.saved(&MACHINE) {
            near(out, 0xf840_0000, saved.number, FP, at); // ldur
        }
        for (saved, at) in frame.vectors(&MACHINE) {
            near(out, 0xfc40_0000, saved.number, FP, at); // ldur of a vector
        }
        put(out, 0x9100_0000 | FP << 5 | SP); // mov sp, x29
        put(out, 0xa8c1_0000 | LR << 10 | SP << 5 | FP); // ldp x29, x30, [sp], #16
        out.frame_is_gone(&MACHINE, frame, |out| {
            if self.signs {
                put(out, 0xd503_23bf); // autiasp
                out.cfi(NegateRaState);
            }
            put(out, 0xd65f_03c0); // ret
        });
    }

    fn constant(&self, out: &mut Emitted, to: Reg, value: usize) {
        let to = number(to);
        put(out, 0xd280_0000 | (value as u32 & 0xffff) << 5 | to); // movz
        for part in 1..4 {
            let bits = (value as u64 >> (16 * part)) as u32 & 0xffff;
            if bits != 0 {
                put(out, 0xf280_0000 | part << 21 | bits << 5 | to); // movk
            }
        }
    }

    fn copy(&self, out: &mut Emitted, to: Reg, from: Reg) {
        three(out, 0xaa00_0000, number(to), ZERO, number(from));
    }

    fn address(&self, out: &mut Emitted, to: Reg, base: Reg, offset: u32) {
        assert!(offset < 1 << 12, "offset {offset}");
        put(out, 0x9100_0000 | offset << 10 | number(base) << 5 | number(to));
    }

    fn load(&self, out: &mut Emitted, to: Reg, base: Reg, offset: u32) {
        memory(out, 0xf940_0000, to, base, offset);
    }

    fn store(&self, out: &mut Emitted, from: Reg, base: Reg, offset: u32) {
        memory(out, 0xf900_0000, from, base, offset);
    }

    fn add(&self, out: &mut Emitted, to: Reg, by: Reg) {
        three(out, 0x8b00_0000, number(to), number(to), number(by));
    }

    fn subtract(&self, out: &mut Emitted, to: Reg, by: Reg) {
        three(out, 0xcb00_0000, number(to), number(to), number(by));
    }

    fn multiply(&self, out: &mut Emitted, to: Reg, by: Reg) {
        three(out, 0x9b00_7c00, number(to), number(to), number(by));
    }

    fn compare(&self, out: &mut Emitted, a: Reg, b: Reg) {
        three(out, 0xeb00_0000, ZERO, number(a), number(b));
    }

    fn branch(&self, out: &mut Emitted, test: Test) -> usize {
        let condition = match test {
            Test::Equal => 0,
            Test::Differ => 1,
            Test::Below => 3,
        };
        patched(out, 0x5400_0000 | condition)
    }

    fn jump(&self, out: &mut Emitted) -> usize {
        patched(out, JUMP)
    }

    fn call(&self, out: &mut Emitted) -> usize {
        patched(out, CALL)
    }

    fn call_at(&self, out: &mut Emitted, callee: Reg) {
        put(out, 0xd63f_0000 | number(callee) << 5); // blr
    }

    fn patch(&self, bytes: &mut [u8], at: usize, to: usize) {
        let instruction = &mut bytes[at..at + 4];
        let word = u32::from_le_bytes(instruction.try_into().expect("four bytes"));
        let distance = (to as i64 - at as i64) / 4;
        let bits = match word & 0xfc00_0000 {
            JUMP | CALL => {
                assert!((-1 << 25..1 << 25).contains(&distance), "a jump of {distance} words");
                distance as u32 & 0x03ff_ffff
            }
            _ => {
                assert!((-1 << 18..1 << 18).contains(&distance), "a branch of {distance} words");
                (distance as u32 & 0x7_ffff) << 5
            }
        };
        instruction.copy_from_slice(&(word | bits).to_le_bytes());
    }
}

const JUMP: u32 = 0x1400_0000;
const CALL: u32 = 0x9400_0000;

fn patched(out: &mut Emitted, instruction: u32) -> usize {
    let at = out.bytes.len();
    put(out, instruction);
    at
}
