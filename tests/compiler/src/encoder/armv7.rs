//! armv7, with the AAPCS convention and vectors for floating-point numbers, in either state of the
//! processor. The goroutine is in r10, the frame pointer is r11 in both states.

use gimli::Arm;
use gimli::write::CallFrameInstruction::CfaRegister;

use super::{Emitted, Encoder, Frame, Machine, Reg, Saved, Test, saved};

/// The state of the processor: how instructions are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Arm,
    Thumb,
}

#[derive(Debug)]
pub(crate) struct Armv7 {
    pub(crate) state: State,
}

static GENERAL: [Saved; 6] = saved(Arm::R0, [4, 5, 6, 7, 8, 9]);
static VECTORS: [Saved; 8] = saved(Arm::D0, [8, 9, 10, 11, 12, 13, 14, 15]);

const fn machine(code_bit: usize) -> Machine {
    Machine {
        word: 4,
        alignment: 8,
        call_pushes: 0,
        record: 8,
        arguments: 4,
        shadow: 0,
        saved: &GENERAL,
        vectors: &VECTORS,
        switch_keeps_goroutine: false,
        code_bit,
        stack_pointer: Arm::R13,
        frame_pointer: Arm::R11,
        return_address: Arm::R14,
    }
}

static ARM: Machine = machine(0);
static THUMB: Machine = machine(1);

const SP: u32 = 13;
const FP: u32 = 11;

fn number(reg: Reg) -> u32 {
    match reg {
        Reg::A | Reg::Callee => 12,
        Reg::B => 14,
        Reg::Argument(index) | Reg::Landed(index) => index as u32,
        Reg::Result => 0,
        Reg::Goroutine => 10,
        Reg::Kept(index) => GENERAL[index].number.into(),
        Reg::StackPointer => SP,
        Reg::FramePointer => FP,
    }
}

/// Twelve bits that stand for an immediate of arithmetic in the state Arm.
fn rotated(value: u32) -> Option<u32> {
    let rotation = (0..32).step_by(2).find(|by| value.rotate_left(*by) < 1 << 8)?;
    Some(rotation << 7 | value.rotate_left(rotation))
}

impl Armv7 {
    /// An instruction of 32 bits.
    fn put(&self, out: &mut Emitted, instruction: u32) {
        match self.state {
            State::Arm => out.put(&instruction.to_le_bytes()),
            State::Thumb => {
                out.put(&(instruction.rotate_right(16)).to_le_bytes());
            }
        }
    }

    /// One of two instructions.
    fn either(&self, out: &mut Emitted, arm: u32, thumb: u32) {
        self.put(out, if self.state == State::Arm { arm } else { thumb });
    }

    fn three(&self, out: &mut Emitted, opcodes: [u32; 2], to: u32, a: u32, b: u32) {
        let [arm, thumb] = opcodes;
        self.either(out, arm | a << 16 | to << 12 | b, thumb | a << 16 | to << 8 | b);
    }

    fn move_(&self, out: &mut Emitted, to: u32, from: u32) {
        match self.state {
            State::Arm => self.put(out, 0xe1a0_0000 | to << 12 | from),
            State::Thumb => {
                let short = 0x4600 | (to & 8) << 4 | from << 3 | to & 7;
                out.put(&(short as u16).to_le_bytes());
            }
        }
    }

    /// A load (1) or store (0) of a word.
    fn memory(&self, out: &mut Emitted, load: u32, register: u32, base: u32, offset: i32) {
        let (words, at) = (base << 16 | register << 12, offset.unsigned_abs());
        assert!(at < 1 << 12, "offset {offset}");
        let (arm, thumb) = match offset {
            0.. => (0xe580_0000, 0xf8c0_0000),
            _ => {
                assert!(at < 1 << 8, "offset {offset}");
                (0xe500_0000, 0xf840_0c00)
            }
        };
        self.either(out, arm | load << 20 | words | at, thumb | load << 20 | words | at);
    }

    /// A load (1) or store (0) of a vector, below the base.
    fn vector(&self, out: &mut Emitted, load: u32, register: u8, base: u32, offset: i32) {
        let words = offset.unsigned_abs() / 4;
        assert!(offset < 0 && words < 1 << 8, "offset {offset}");
        let register = u32::from(register) << 12;
        self.put(out, 0xed00_0b00 | load << 20 | base << 16 | register | words);
    }

    /// `to = a + value`, or `a - value`.
    fn arithmetic(&self, out: &mut Emitted, subtract: bool, to: u32, a: u32, value: u32) {
        if self.state == State::Thumb {
            assert!(value < 1 << 12, "{value}");
            let opcode = if subtract { 0xf2a0_0000 } else { 0xf200_0000 };
            self.put(out, opcode | spread(value) | a << 16 | to << 8);
            return;
        }
        if let Some(bits) = rotated(value) {
            let opcode = if subtract { 0xe240_0000 } else { 0xe280_0000 };
            self.put(out, opcode | a << 16 | to << 12 | bits);
            return;
        }
        let by = number(Reg::A);
        assert_ne!(by, a);
        self.constant(out, Reg::A, value as usize);
        self.three(out, if subtract { SUBTRACT } else { ADD }, to, a, by);
    }
}

/// Twelve bits of an immediate, as Thumb has them.
fn spread(value: u32) -> u32 {
    (value & 0x800) << 15 | (value & 0x700) << 4 | value & 0xff
}

const ADD: [u32; 2] = [0xe080_0000, 0xeb00_0000];
const SUBTRACT: [u32; 2] = [0xe040_0000, 0xeba0_0000];

impl Encoder for Armv7 {
    fn machine(&self) -> &'static Machine {
        if self.state == State::Arm { &ARM } else { &THUMB }
    }

    fn prologue(&self, out: &mut Emitted, frame: &Frame) {
        self.put(out, 0xe92d_4800); // push {r11, lr}
        out.record_is_pushed(&ARM);
        self.move_(out, FP, SP);
        out.cfi(CfaRegister(ARM.frame_pointer));
        self.arithmetic(out, true, SP, SP, frame.bytes - ARM.record);
        for (saved, at) in frame.saved(&ARM) {
            self.memory(out, 0, saved.number.into(), FP, at);
            out.is_saved(&ARM, saved, at);
        }
        for (saved, at) in frame.vectors(&ARM) {
            self.vector(out, 0, saved.number, FP, at);
            out.is_saved(&ARM, saved, at);
        }
    }

    fn epilogue(&self, out: &mut Emitted, frame: &Frame) {
        for (saved, at) in frame.saved(&ARM) {
            self.memory(out, 1, saved.number.into(), FP, at);
        }
        for (saved, at) in frame.vectors(&ARM) {
            self.vector(out, 1, saved.number, FP, at);
        }
        self.move_(out, SP, FP);
        self.put(out, 0xe8bd_8800); // pop {r11, pc}
    }

    fn constant(&self, out: &mut Emitted, to: Reg, value: usize) {
        let (to, value) = (number(to), u32::try_from(value).expect("a word of 32 bits"));
        let [low, high] = [value & 0xffff, value >> 16];
        let arm = |half: u32| (half & 0xf000) << 4 | to << 12 | half & 0xfff;
        let thumb = |half: u32| (half & 0xf000) << 4 | spread(half & 0xfff) | to << 8;
        self.either(out, 0xe300_0000 | arm(low), 0xf240_0000 | thumb(low)); // movw
        if high != 0 {
            self.either(out, 0xe340_0000 | arm(high), 0xf2c0_0000 | thumb(high)); // movt
        }
    }

    fn copy(&self, out: &mut Emitted, to: Reg, from: Reg) {
        self.move_(out, number(to), number(from));
    }

    fn address(&self, out: &mut Emitted, to: Reg, base: Reg, offset: u32) {
        self.arithmetic(out, false, number(to), number(base), offset);
    }

    fn load(&self, out: &mut Emitted, to: Reg, base: Reg, offset: u32) {
        self.memory(out, 1, number(to), number(base), offset as i32);
    }

    fn store(&self, out: &mut Emitted, from: Reg, base: Reg, offset: u32) {
        self.memory(out, 0, number(from), number(base), offset as i32);
    }

    fn add(&self, out: &mut Emitted, to: Reg, by: Reg) {
        self.three(out, ADD, number(to), number(to), number(by));
    }

    fn subtract(&self, out: &mut Emitted, to: Reg, by: Reg) {
        self.three(out, SUBTRACT, number(to), number(to), number(by));
    }

    fn multiply(&self, out: &mut Emitted, to: Reg, by: Reg) {
        let (to, by) = (number(to), number(by));
        let arm = 0xe000_0090 | to << 16 | by << 8 | to;
        self.either(out, arm, 0xfb00_f000 | to << 16 | to << 8 | by);
    }

    fn compare(&self, out: &mut Emitted, a: Reg, b: Reg) {
        let (a, b) = (number(a) << 16, number(b));
        self.either(out, 0xe150_0000 | a | b, 0xebb0_0f00 | a | b);
    }

    fn branch(&self, out: &mut Emitted, test: Test) -> usize {
        let condition = match test {
            Test::Equal => 0,
            Test::Differ => 1,
            Test::Below => 3,
        };
        let at = out.bytes.len();
        self.either(out, 0x0a00_0000 | condition << 28, THUMB_BRANCH | condition << 22);
        at
    }

    fn jump(&self, out: &mut Emitted) -> usize {
        let at = out.bytes.len();
        self.either(out, 0xea00_0000, 0xf000_9000);
        at
    }

    fn call(&self, out: &mut Emitted) -> usize {
        let at = out.bytes.len();
        self.either(out, 0xeb00_0000, 0xf000_d000);
        at
    }

    fn call_at(&self, out: &mut Emitted, callee: Reg) {
        let callee = number(callee);
        match self.state {
            State::Arm => self.put(out, 0xe12f_ff30 | callee),
            State::Thumb => out.put(&(0x4780 | (callee as u16) << 3).to_le_bytes()),
        }
    }

    fn patch(&self, bytes: &mut [u8], at: usize, to: usize) {
        let instruction = &mut bytes[at..at + 4];
        let word = u32::from_le_bytes(instruction.try_into().expect("four bytes"));
        // An instruction sees the pc two instructions ahead.
        let word = match self.state {
            State::Arm => {
                let distance = (to as i64 - at as i64 - 8) / 4;
                assert!((-1 << 23..1 << 23).contains(&distance), "{distance} words");
                word | distance as u32 & 0x00ff_ffff
            }
            State::Thumb => {
                let distance = (to as i64 - at as i64 - 4) / 2;
                let word = word.rotate_right(16);
                (word | thumb_distance(word, distance)).rotate_right(16)
            }
        };
        instruction.copy_from_slice(&word.to_le_bytes());
    }
}

const THUMB_BRANCH: u32 = 0xf000_8000;

/// The bits of a distance in halves of words, for a branch, or a jump or call.
fn thumb_distance(word: u32, distance: i64) -> u32 {
    let bits = distance as u32;
    let (sign, low) = (bits >> 31, bits & 0x7ff);
    if word & 0xd000 == THUMB_BRANCH & 0xd000 {
        assert!((-1 << 19..1 << 19).contains(&distance), "a branch of {distance} halves");
        let [j1, j2] = [bits >> 17 & 1, bits >> 18 & 1];
        return sign << 26 | (bits >> 11 & 0x3f) << 16 | j1 << 13 | j2 << 11 | low;
    }
    assert!((-1 << 23..1 << 23).contains(&distance), "a jump of {distance} halves");
    let j = |bit: u32| !(bits >> bit ^ sign) & 1;
    sign << 26 | (bits >> 11 & 0x3ff) << 16 | j(22) << 13 | j(21) << 11 | low
}
