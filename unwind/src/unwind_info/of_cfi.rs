//! UNWIND_INFO of functions whose CFI is known: of Cranelift's.

use gimli::write::{CommonInformationEntry, EhFrame, EndianVec, FrameDescriptionEntry, FrameTable};
use gimli::{BaseAddresses, CallFrameInstruction, CieOrFde, LittleEndian, Register, UnwindSection};

use super::registers;
use crate::arch::{FRAME_POINTER, FRAME_RECORD};

/// The version, and no flags.
const VERSION: u8 = 1;
const PUSH_NONVOL: u8 = 0;
const ALLOC_LARGE: u8 = 1;
const ALLOC_SMALL: u8 = 2;
const SET_FPREG: u8 = 3;
const SAVE_NONVOL: u8 = 4;
/// The distance of the frame pointer from the frame's base is counted in these bytes.
const DISTANCE: u32 = 16;
const RECORD: u32 = FRAME_RECORD as u32;

/// What CFI says of a prologue that makes a frame record. All offsets are of the ends of
/// instructions.
#[derive(Default)]
struct Prologue {
    /// Where the frame pointer has been pushed.
    pushed: u8,
    /// Where it has been set.
    set: u8,
    /// The registers that are saved otherwise, by their numbers here: where they have been, and how
    /// many bytes below the CFA.
    saved: Vec<(u8, u8, u32)>,
}

/// See [`unwind_info`](crate::stack_map::cranelift::unwind_info).
pub(crate) fn of_cfi(
    common: CommonInformationEntry,
    function: FrameDescriptionEntry,
) -> Option<Vec<u8>> {
    let mut table = FrameTable::default();
    let common = table.add_cie(common);
    table.add_fde(common, function);
    let mut written = EhFrame::from(EndianVec::new(LittleEndian));
    table.write_eh_frame(&mut written).ok()?;
    let Prologue { pushed, set, saved } = prologue(written.slice())?;
    let pointer = number(FRAME_POINTER)?;
    // The frame's base is as far below the frame pointer as registers are saved. They are saved
    // behind the instruction that sets it; until then the stack pointer is the frame pointer. So
    // that instruction counts as one that allocates these bytes first.
    let deepest = saved.iter().map(|(_, _, below)| below - RECORD).max().unwrap_or(0);
    let distance = deepest.next_multiple_of(DISTANCE);
    // It has four bits.
    let counted = u8::try_from(distance / DISTANCE).ok().filter(|distance| *distance < 16)?;
    let mut codes: Vec<[u8; 2]> = Vec::new();
    // Of the last instruction first.
    for (at, register, below) in saved.iter().rev() {
        codes.push([*at, SAVE_NONVOL | register << 4]);
        codes.push((((RECORD + distance - below) / 8) as u16).to_le_bytes());
    }
    codes.push([set, SET_FPREG]);
    match (distance / 8) as u16 {
        0 => {}
        words @ 1..=16 => codes.push([set, ALLOC_SMALL | (words as u8 - 1) << 4]),
        words => codes.extend([[set, ALLOC_LARGE], words.to_le_bytes()]),
    }
    codes.push([pushed, PUSH_NONVOL | pointer << 4]);
    let ends = saved.last().map_or(set, |(at, _, _)| *at);
    let mut bytes = vec![VERSION, ends, codes.len() as u8, counted << 4 | pointer];
    codes.resize(codes.len().next_multiple_of(2), [0; 2]);
    bytes.extend(codes.as_flattened());
    Some(bytes)
}

/// The number of a register that functions keep.
fn number(register: Register) -> Option<u8> {
    (0..16).find(|number| registers::register(*number) == register && registers::is_kept(*number))
}

/// Reads CFI with one function.
fn prologue(eh_frame: &[u8]) -> Option<Prologue> {
    let section = gimli::read::EhFrame::new(eh_frame, LittleEndian);
    let bases = BaseAddresses::default();
    let mut entries = section.entries(&bases);
    let mut prologue = Prologue::default();
    while let Some(entry) = entries.next().ok()? {
        let CieOrFde::Fde(entry) = entry else { continue };
        let entry = entry.parse(|section, bases, at| section.cie_from_offset(bases, at)).ok()?;
        let alignment = entry.cie().data_alignment_factor();
        let mut instructions = entry.instructions(&section, &bases);
        let mut at: u32 = 0;
        while let Some(instruction) = instructions.next().ok()? {
            let here = || u8::try_from(at).ok();
            match instruction {
                CallFrameInstruction::AdvanceLoc { delta } => at = at.checked_add(delta)?,
                CallFrameInstruction::DefCfaRegister { register: FRAME_POINTER } => {
                    prologue.set = here()?;
                }
                CallFrameInstruction::Offset { register: FRAME_POINTER, .. } => {
                    prologue.pushed = here()?;
                }
                CallFrameInstruction::Offset { register, factored_offset } => {
                    let offset = i64::try_from(factored_offset).ok()?.checked_mul(alignment)?;
                    let below = u32::try_from(-offset).ok().filter(|below| *below > RECORD)?;
                    prologue.saved.push((here()?, number(register)?, below));
                }
                CallFrameInstruction::DefCfaOffset { .. } | CallFrameInstruction::Nop => {}
                _ => return None,
            }
        }
    }
    (prologue.pushed != 0 && prologue.set > prologue.pushed).then_some(prologue)
}

#[cfg(test)]
mod tests {
    use super::of_cfi;
    use crate::arch::{FRAME_POINTER, HAS_UNWIND_INFO, STACK_POINTER};
    use gimli::write::{
        Address, CallFrameInstruction, CommonInformationEntry, FrameDescriptionEntry,
    };
    use gimli::{Encoding, Format, Register};

    const RBX: Register = Register(3);
    const RAX: Register = Register(0);

    /// That of `push rbp; mov rbp, rsp`, and of what follows behind: registers saved, so far below
    /// the CFA, by instructions of five bytes.
    fn saving(saved: &[(Register, i32)]) -> Option<Vec<u8>> {
        let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 1 };
        let mut common = CommonInformationEntry::new(encoding, 1, -8, Register(16));
        common.add_instruction(CallFrameInstruction::Cfa(STACK_POINTER, 8));
        let mut function = FrameDescriptionEntry::new(Address::Constant(0x1000), 0x100);
        function.add_instruction(1, CallFrameInstruction::CfaOffset(16));
        function.add_instruction(1, CallFrameInstruction::Offset(FRAME_POINTER, -16));
        function.add_instruction(4, CallFrameInstruction::CfaRegister(FRAME_POINTER));
        for (at, (register, below)) in saved.iter().enumerate() {
            let at = 8 + 5 * (at as u32 + 1);
            function.add_instruction(at, CallFrameInstruction::Offset(*register, -below));
        }
        of_cfi(common, function)
    }

    #[test]
    fn a_frame_record_is_a_push_and_a_frame_pointer() {
        if !HAS_UNWIND_INFO {
            return;
        }
        let info = [1, 4, 2, 5, 4, 3, 1, 0x50];
        assert_eq!(saving(&[]).as_deref(), Some(&info[..]));
    }

    #[test]
    fn saved_registers_lie_above_a_base_that_the_frame_pointer_is_far_from() {
        if !HAS_UNWIND_INFO {
            return;
        }
        // rbx at the base and r12 eight bytes above it, sixteen bytes below the frame pointer.
        let info = [
            [1, 18, 7, 1 << 4 | 5],
            // Both saves, with their words.
            [18, 12 << 4 | 4, 1, 0],
            [13, 3 << 4 | 4, 0, 0],
            // The frame pointer, and the bytes that count as allocated before.
            [4, 3, 4, 1 << 4 | 2],
            [1, 0x50, 0, 0],
        ];
        let found = saving(&[(RBX, 32), (Register(12), 24)]);
        assert_eq!(found.as_deref(), Some(info.as_flattened()));
    }

    #[test]
    fn what_cannot_be_said_has_none() {
        if !HAS_UNWIND_INFO {
            return;
        }
        // Farther than four bits tell, in the frame record, and a register that nobody keeps.
        for saved in [(RBX, 16 + 16 * 16), (RBX, 16), (RAX, 32)] {
            assert_eq!(saving(&[saved]), None);
        }
        assert!(saving(&[(RBX, 16 + 15 * 16)]).is_some());
        assert_eq!(saving(&[(RBX, 32); 60]), None, "a prologue of more than 255 bytes");
    }
}
