//! Epilogues, recognised by their instructions. Nothing else says where they lie in images with
//! UNWIND_INFO of version 1.

use super::codes::Undoing;
use super::registers::STACK_POINTER;

/// The most bytes of an epilogue that are looked at: a function pops each register once.
pub(super) const LONGEST: usize = 48;

/// What is left to do where an epilogue goes on with `code`: the stack pointer is moved, registers
/// are popped, control leaves. `None` where code is that of no epilogue. `leaves` says whether an
/// address, so many bytes behind the beginning of `code`, lies in another function.
pub(super) fn rest(
    code: &[u8],
    frame_register: Option<u8>,
    leaves: impl FnOnce(i64) -> bool,
) -> Option<Undoing> {
    let code = &code[..code.len().min(LONGEST)];
    let mut left = Undoing::new();
    let long = |at: usize| code.get(at..)?.first_chunk().map(|bytes| i32::from_le_bytes(*bytes));
    let short = |at: usize| code.get(at).map(|byte| i32::from(byte.cast_signed()));
    let mut at = match *code {
        // add rsp, ...
        [0x48, 0x83, 0xc4, ..] => {
            left.free(short(3)?.into());
            4
        }
        [0x48, 0x81, 0xc4, ..] => {
            left.free(long(3)?.into());
            7
        }
        // lea rsp, [frame register + ...]
        [wide @ (0x48 | 0x49), 0x8d, place, ..]
            if place & 7 != 4 && frame_register == Some((wide & 1) << 3 | place & 7) =>
        {
            let register = (wide & 1) << 3 | place & 7;
            let (offset, length) = match place & 0xf8 {
                0x60 => (short(3)?, 4),
                0xa0 => (long(3)?, 7),
                _ => return None,
            };
            left.count_from(register, offset.into());
            length
        }
        _ => 0,
    };
    loop {
        let (register, length) = match *code.get(at..)? {
            [pop @ 0x58..0x60, ..] => (pop & 7, 1),
            [prefix @ 0x40..0x50, pop @ 0x58..0x60, ..] => ((prefix & 1) << 3 | pop & 7, 2),
            _ => break,
        };
        if register == STACK_POINTER {
            return None;
        }
        left.pop(register);
        at += length;
    }
    if code.get(at) == Some(&0xf2) {
        at += 1;
    }
    let behind = |length: usize, offset: i32| at as i64 + length as i64 + i64::from(offset);
    let ends = match *code.get(at..)? {
        [0xc2 | 0xc3, ..] | [0xf3, 0xc3, ..] => true,
        [0xeb, ..] => leaves(behind(2, short(at + 1)?)),
        [0xe9, ..] => leaves(behind(5, long(at + 1)?)),
        // A jump by a word in memory, as those to other images are.
        [0xff, 0x25, ..] => true,
        // A jump by a register or a word, with the prefix that says that it leaves the function.
        [0x48..0x50, 0xff, place, ..] => place & 0x38 == 0x20,
        _ => false,
    };
    ends.then_some(left)
}
