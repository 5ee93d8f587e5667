//! Invented regions and stacks. Only the tables of a region are used; no code of it runs.
#![allow(dead_code, reason = "each test file uses its part")]

use gimli::write::{
    Address, CallFrameInstruction as Cfi, CommonInformationEntry, EhFrame, EndianVec,
    FrameDescriptionEntry, FrameTable,
};
use gimli::{Encoding, Format, LittleEndian, Register};
use stackmark_unwind::{Function, Region, Safepoint};

pub(crate) mod arch;

use arch::{CALL_PUSHES, FP, RA, SP, W, WORD};

/// A CIE: the return address a word below the CFA. Where a call pushes it, this is what compilers
/// emit. Where a call does not, every function counts as one that has stored a frame record
/// already: the rules are packed ones then.
pub(crate) fn cie() -> CommonInformationEntry {
    let encoding = Encoding { format: Format::Dwarf32, version: 1, address_size: WORD as u8 };
    let mut cie = CommonInformationEntry::new(encoding, 1, -(WORD as i8), RA);
    if CALL_PUSHES == 0 {
        cie.add_instruction(Cfi::Cfa(SP, 2 * W));
        cie.add_instruction(Cfi::Offset(FP, -2 * W));
    } else {
        cie.add_instruction(Cfi::Cfa(SP, W));
    }
    cie.add_instruction(Cfi::Offset(RA, -W));
    cie
}

/// The CFA of a function with that CIE and no instructions, in bytes above the stack pointer.
pub(crate) const CFA: usize = if CALL_PUSHES == 0 { 2 * WORD } else { WORD };

/// How the rule of such a function prints whose CFA is that far up.
pub(crate) fn shown(cfa: usize) -> String {
    let record = match CALL_PUSHES {
        0 => format!(" {}=[cfa-{}]", arch::name(FP), 2 * WORD),
        _ => String::new(),
    };
    format!("cfa=sp+{cfa}{record} ra=[cfa-{WORD}]")
}

/// `.eh_frame` of functions, given as start, length, and instructions at offsets.
pub(crate) fn eh_frame(
    functions: impl IntoIterator<Item = (usize, u32, Vec<(u32, Cfi)>)>,
) -> Vec<u8> {
    eh_frame_with(cie(), functions)
}

/// As [`eh_frame`], with this common entry.
pub(crate) fn eh_frame_with(
    cie: CommonInformationEntry,
    functions: impl IntoIterator<Item = (usize, u32, Vec<(u32, Cfi)>)>,
) -> Vec<u8> {
    let mut table = FrameTable::default();
    let cie = table.add_cie(cie);
    for (start, len, instructions) in functions {
        let mut fde = FrameDescriptionEntry::new(Address::Constant(start as u64), len);
        for (offset, instruction) in instructions {
            fde.add_instruction(offset, instruction);
        }
        table.add_fde(cie, fde);
    }
    let mut section = EhFrame::from(EndianVec::new(LittleEndian));
    table.write_eh_frame(&mut section).expect("CFI that gimli can write");
    section.0.into_vec()
}

/// A frame record and a frame pointer to it, as Cranelift makes them.
pub(crate) fn frame_record() -> Vec<(u32, Cfi)> {
    vec![(1, Cfi::CfaOffset(2 * W)), (1, Cfi::Offset(FP, -2 * W)), (4, Cfi::CfaRegister(FP))]
}

/// A frame of `size` that keeps the frame pointer as it is, with one register pushed first.
pub(crate) fn plain_frame(pushed: Register, size: i32) -> Vec<(u32, Cfi)> {
    vec![(2, Cfi::CfaOffset(2 * W)), (2, Cfi::Offset(pushed, -2 * W)), (8, Cfi::CfaOffset(size))]
}

/// The length of each function of [`region`].
pub(crate) const FUNCTION: usize = 0x100;

/// A region of functions of `FUNCTION` bytes in Cranelift's layout. `frames[i]` are the safepoints
/// of function `i`: offset in the function, distance from sp to fp, slots.
pub(crate) fn region(start: usize, frames: &[&[(usize, u32, &[u32])]]) -> Region {
    let at = |i: usize| start + i * FUNCTION;
    Region {
        name: format!("region at {start:#x}"),
        start,
        len: frames.len() * FUNCTION,
        eh_frame: eh_frame((0..frames.len()).map(|i| (at(i), FUNCTION as u32, frame_record()))),
        functions: (0..frames.len())
            .map(|i| Function {
                name: format!("f{i}"),
                start: at(i),
                len: FUNCTION,
                ..Function::default()
            })
            .collect(),
        safepoints: frames
            .iter()
            .enumerate()
            .flat_map(|(i, safepoints)| {
                safepoints.iter().map(move |(offset, span, slots)| Safepoint {
                    return_address: at(i) + offset,
                    cfa_offset: span + 2 * W as u32,
                    slots: slots.to_vec(),
                })
            })
            .collect(),
        max_frame: None,
        ..Region::default()
    }
}
