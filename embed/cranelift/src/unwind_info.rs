//! The UNWIND_INFO of functions, by which Windows passes their frames.
//!
//! It is made of their CFI. Cranelift's own has registers at wrong places: it counts each in
//! sixteen bytes, and the general ones lie in words; and it loses the distance of the frame pointer
//! from where they lie, which has four bits.

use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::isa::unwind::systemv;
use gimli::write::{Address, EhFrame, EndianVec, FrameTable};
use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, LittleEndian, Register, UnwindSection, X86_64,
};

/// The version, and no flags.
const VERSION: u8 = 1;
const PUSH_NONVOL: u8 = 0;
const ALLOC_SMALL: u8 = 2;
const ALLOC_LARGE: u8 = 1;
const SET_FPREG: u8 = 3;
const SAVE_NONVOL: u8 = 4;
const RBP: u8 = 5;
/// The distance of the frame pointer is counted in these bytes.
const DISTANCE: u32 = 16;
/// The frame pointer lies so many bytes below the CFA.
const RECORD: u32 = 16;

/// What CFI says of a prologue. All offsets are of the ends of instructions.
#[derive(Default)]
struct Prologue {
    /// Where the frame pointer has been pushed.
    pushed: u8,
    /// Where it has been set.
    set: u8,
    /// The general registers saved otherwise, by the numbers of Windows: where they have been, and
    /// at which distance below the CFA.
    saved: Vec<(u8, u8, u32)>,
}

/// The UNWIND_INFO of a function with this CFI, of `isa`.
///
/// # Errors
/// A sentence: the prologue is none that has such information.
pub(crate) fn of(isa: &dyn TargetIsa, cfi: &systemv::UnwindInfo) -> Result<Vec<u8>, String> {
    let Prologue { pushed, set, saved } = prologue(isa, cfi)?;
    // The frame's base is as far below the frame pointer as registers are saved. They were saved
    // behind the instruction that sets it; until then the stack pointer is the frame pointer. So
    // that instruction counts as one that allocates these bytes first.
    let deepest = saved.iter().map(|(_, _, below)| below - RECORD).max().unwrap_or(0);
    let distance = deepest.next_multiple_of(DISTANCE);
    let in_four_bits = u8::try_from(distance / DISTANCE).ok().filter(|distance| *distance < 16);
    let counted = in_four_bits.ok_or("registers are saved too far from the frame pointer")?;
    let mut codes: Vec<[u8; 2]> = Vec::new();
    // Of the last instruction first.
    for (at, register, below) in saved.iter().rev() {
        let words = (RECORD + distance - below) / 8;
        codes.push([*at, SAVE_NONVOL | register << 4]);
        codes.push((words as u16).to_le_bytes());
    }
    codes.push([set, SET_FPREG]);
    match u16::from(counted) * (DISTANCE as u16 / 8) {
        0 => {}
        words @ 1..=16 => codes.push([set, ALLOC_SMALL | (words as u8 - 1) << 4]),
        words => codes.extend([[set, ALLOC_LARGE], words.to_le_bytes()]),
    }
    codes.push([pushed, PUSH_NONVOL | RBP << 4]);
    let ends = saved.last().map_or(set, |(at, _, _)| *at);
    let mut bytes = vec![VERSION, ends, codes.len() as u8, counted << 4 | RBP];
    codes.resize(codes.len().next_multiple_of(2), [0; 2]);
    bytes.extend(codes.as_flattened());
    Ok(bytes)
}

/// Reads the CFI again: Cranelift does not say what it has written.
fn prologue(isa: &dyn TargetIsa, cfi: &systemv::UnwindInfo) -> Result<Prologue, String> {
    let failed = |error: &dyn std::fmt::Display| format!("its CFI is not read: {error}");
    let mut table = FrameTable::default();
    let cie = table.add_cie(isa.create_systemv_cie().ok_or("it has no CFI")?);
    table.add_fde(cie, cfi.to_fde(Address::Constant(0)));
    let mut written = EhFrame::from(EndianVec::new(LittleEndian));
    table.write_eh_frame(&mut written).map_err(|error| failed(&error))?;
    let section = gimli::read::EhFrame::new(written.slice(), LittleEndian);
    let bases = BaseAddresses::default();
    let mut entries = section.entries(&bases);
    let mut prologue = Prologue::default();
    while let Some(entry) = entries.next().map_err(|error| failed(&error))? {
        let CieOrFde::Fde(entry) = entry else { continue };
        let entry = entry.parse(|section, bases, at| section.cie_from_offset(bases, at));
        let entry = entry.map_err(|error| failed(&error))?;
        let alignment = entry.cie().data_alignment_factor();
        let mut instructions = entry.instructions(&section, &bases);
        let mut at: u32 = 0;
        while let Some(instruction) = instructions.next().map_err(|error| failed(&error))? {
            let here = u8::try_from(at).map_err(|_| "its prologue is longer than 255 bytes");
            match instruction {
                CallFrameInstruction::AdvanceLoc { delta } => at += delta,
                CallFrameInstruction::DefCfaRegister { .. } => prologue.set = here?,
                CallFrameInstruction::Offset { register: X86_64::RBP, .. } => {
                    prologue.pushed = here?;
                }
                CallFrameInstruction::Offset { register, factored_offset } => {
                    let below = -(factored_offset as i64 * alignment) as u32;
                    let register = number(register).ok_or("it saves another register")?;
                    prologue.saved.push((here?, register, below));
                }
                _ => {}
            }
        }
    }
    Ok(prologue)
}

/// The number of a general register that functions keep, as Windows counts them.
fn number(register: Register) -> Option<u8> {
    match register {
        X86_64::RBX => Some(3),
        Register(12..=15) => Some(register.0 as u8),
        _ => None,
    }
}
