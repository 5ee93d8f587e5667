//! How long an instruction is. A search for epilogues goes through a function instruction by
//! instruction, so that it takes no byte within another instruction for one.

/// The longest instruction, in bytes.
pub(super) const LONGEST: usize = 15;

/// What follows the opcode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operands {
    None,
    /// So many bytes.
    Bytes(usize),
    /// Four bytes, two with the prefix for operands of 16 bits.
    Word,
    /// Such an immediate of 64 bits if the prefix for that is there.
    Wide,
    /// An address: eight bytes, four with the prefix for addresses.
    Address,
    /// A byte that says where an operand lies, with what belongs to it, and then so many bytes.
    Place(usize),
    /// The same with four bytes, or two.
    PlaceWord,
    /// The same with a byte, but only for the first two of the instructions that share the opcode.
    PlaceTest,
    /// The same with four bytes, or two.
    PlaceTestWord,
    Invalid,
}

use Operands::{Address, Bytes, Invalid, Place, PlaceTest, PlaceTestWord, PlaceWord, Wide, Word};

/// The operands of instructions with one byte of opcode.
fn of_first_map(opcode: u8) -> Operands {
    match opcode {
        0x00..=0x3f => match opcode & 7 {
            0..4 => Place(0),
            4 => Bytes(1),
            5 => Word,
            _ => Invalid,
        },
        0x50..=0x5f => Operands::None,
        0x63 | 0x84..=0x8f | 0xd0..=0xd3 | 0xd8..=0xdf | 0xfe | 0xff => Place(0),
        0x68 | 0xa9 => Word,
        0x69 | 0x81 | 0xc7 => PlaceWord,
        0x6a | 0x70..=0x7f | 0xa8 | 0xb0..=0xb7 | 0xcd | 0xe0..=0xe7 | 0xeb => Bytes(1),
        0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => Place(1),
        0xa0..=0xa3 => Address,
        0xb8..=0xbf => Wide,
        0xc2 | 0xca => Bytes(2),
        0xc8 => Bytes(3),
        0xe8 | 0xe9 => Bytes(4),
        0xf6 => PlaceTest,
        0xf7 => PlaceTestWord,
        0x60..=0x62 | 0x82 | 0x9a | 0xc4 | 0xc5 | 0xce | 0xd4..=0xd6 | 0xea => Invalid,
        _ => Operands::None,
    }
}

/// The operands of those behind 0x0f.
fn of_second_map(opcode: u8) -> Operands {
    match opcode {
        0x05..=0x09
        | 0x0b
        | 0x0e
        | 0x30..=0x37
        | 0x77
        | 0xa0..=0xa2
        | 0xa8..=0xaa
        | 0xc8..=0xcf => Operands::None,
        0x80..=0x8f => Bytes(4),
        0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => Place(1),
        0x04 | 0x0a | 0x0c | 0x24..=0x27 | 0x39 | 0x3b..=0x3f => Invalid,
        _ => Place(0),
    }
}

/// The operands of instructions with a long prefix, by the number of their map.
fn of_map(map: u8, opcode: u8) -> Operands {
    match map {
        1 if opcode == 0x77 => Operands::None,
        1 => match of_second_map(opcode) {
            Place(bytes) => Place(bytes),
            _ => Place(0),
        },
        2 | 5 | 6 | 9 => Place(0),
        3 | 8 => Place(1),
        10 => Place(4),
        _ => Invalid,
    }
}

/// The bytes of an instruction, from one to the next.
struct Reader<'c> {
    code: &'c [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.code.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// The operands of an instruction with a map, behind the prefix and `skipped` bytes more.
    fn mapped(&mut self, map: u8, skipped: usize) -> Option<Operands> {
        self.at += skipped;
        Some(of_map(map, self.next()?))
    }
}

/// The length of the instruction that `code` begins with, in bytes; `None` if it is none, or not
/// all of it is there.
pub(super) fn length(code: &[u8]) -> Option<usize> {
    let mut reader = Reader { code, at: 0 };
    let (mut small_operand, mut small_address, mut wide) = (false, false, false);
    let mut opcode = loop {
        match reader.next()? {
            0x66 => small_operand = true,
            0x67 => small_address = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3 => {}
            other => break other,
        }
    };
    if opcode & 0xf0 == 0x40 {
        wide = opcode & 8 != 0;
        opcode = reader.next()?;
    }
    let operands = match opcode {
        0x0f => match reader.next()? {
            0x38 => reader.next().map(|_| Place(0))?,
            0x3a => reader.next().map(|_| Place(1))?,
            other => of_second_map(other),
        },
        0xc5 => reader.mapped(1, 1)?,
        0xc4 => {
            let map = reader.next()? & 0x1f;
            reader.mapped(map, 1)?
        }
        0x62 => {
            let map = reader.next()? & 7;
            reader.mapped(map, 2)?
        }
        // There a map is named where other instructions say where an operand lies, with numbers
        // that no such place has.
        0x8f if reader.peek()? & 0x1f >= 8 => {
            let map = reader.next()? & 0x1f;
            reader.mapped(map, 1)?
        }
        other => of_first_map(other),
    };
    let word = if small_operand { 2 } else { 4 };
    let immediate = match operands {
        Operands::None => 0,
        Invalid => return None,
        Bytes(bytes) => bytes,
        Word => word,
        Wide => {
            if wide {
                8
            } else {
                word
            }
        }
        Address => {
            if small_address {
                4
            } else {
                8
            }
        }
        Place(_) | PlaceWord | PlaceTest | PlaceTestWord => {
            let place = reader.next()?;
            let (form, which, memory) = (place >> 6, place >> 3 & 7, place & 7);
            let base = if form != 3 && memory == 4 { reader.next()? & 7 } else { memory };
            reader.at += match form {
                0 if base == 5 => 4,
                1 => 1,
                2 => 4,
                _ => 0,
            };
            match operands {
                Place(bytes) => bytes,
                PlaceTest if which < 2 => 1,
                PlaceTestWord if which < 2 => word,
                PlaceWord => word,
                _ => 0,
            }
        }
    };
    let length = reader.at + immediate;
    (length <= LONGEST && length <= code.len()).then_some(length)
}
