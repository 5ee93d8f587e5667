//! What the two encoders for x86 share: operands.

use super::{Emitted, Test};

/// The byte of a register and the bytes of an operand in memory, `[base + offset]`, without the
/// bits of a prefix. An offset that is no byte has four.
pub(super) fn memory(register: u8, base: u8, offset: i32) -> Vec<u8> {
    let (register, low) = ((register & 7) << 3, base & 7);
    // The stack pointer is a base in a byte of its own; the frame pointer has an offset always.
    let (mode, tail) = match i8::try_from(offset) {
        Ok(0) if low != 5 => (0, vec![]),
        Ok(byte) => (0x40, vec![byte as u8]),
        Err(_) => (0x80, offset.to_le_bytes().to_vec()),
    };
    let mut bytes = vec![mode | register | low];
    if low == 4 {
        bytes.push(0x24);
    }
    bytes.extend(tail);
    bytes
}

/// The byte of two registers, the second of which is the operand that may be in memory.
pub(super) fn registers(register: u8, operand: u8) -> u8 {
    0xc0 | (register & 7) << 3 | operand & 7
}

/// Writes the distance of a branch, a jump or a call, whose four bytes are at `at`.
pub(super) fn patch(bytes: &mut [u8], at: usize, to: usize) {
    let distance = to.wrapping_sub(at + 4) as u32;
    bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
}

/// Four bytes that are patched.
pub(super) fn distance(out: &mut Emitted) -> usize {
    let at = out.bytes.len();
    out.put(&[0; 4]);
    at
}

/// The second byte of a branch.
pub(super) fn condition(test: Test) -> u8 {
    match test {
        Test::Below => 0x82,
        Test::Equal => 0x84,
        Test::Differ => 0x85,
    }
}

/// `sub` of an immediate: opcode, register and immediate, without a prefix.
pub(super) fn subtract_immediate(out: &mut Emitted, from: u8, value: u32) {
    immediate(out, registers(5, from), value);
}

/// The same of `add`.
pub(super) fn add_immediate(out: &mut Emitted, to: u8, value: u32) {
    immediate(out, registers(0, to), value);
}

fn immediate(out: &mut Emitted, operand: u8, value: u32) {
    match i8::try_from(value) {
        Ok(byte) => out.put(&[0x83, operand, byte as u8]),
        Err(_) => {
            out.put(&[0x81, operand]);
            out.put(&value.to_le_bytes());
        }
    }
}
