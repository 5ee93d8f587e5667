//! General registers, as UNWIND_INFO and instructions number them.

use gimli::Register;

/// The DWARF number of a general register, which unwind information counts as instructions do.
pub(super) fn register(number: u8) -> Register {
    const NUMBERS: [u16; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];
    Register(NUMBERS[usize::from(number & 15)])
}

/// The number of the stack pointer among the general registers.
pub(super) const STACK_POINTER: u8 = 4;

/// Whether functions keep a register by the convention of these images, by its number.
pub(super) fn is_kept(number: u8) -> bool {
    const KEPT: u16 = 0b1111_0000_1110_1000;
    KEPT >> (number & 15) & 1 != 0
}

/// The column of the pc.
pub(super) const RETURN_ADDRESS: Register = Register(16);
