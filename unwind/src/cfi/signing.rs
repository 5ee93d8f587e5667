//! Ways to sign return addresses that are refused, by their names. The reader of CFI knows neither.

use crate::arch::SIGN_STATE;

/// `DW_CFA_AARCH64_negate_ra_state_with_pc`.
const NEGATE_WITH_PC: gimli::DwCfa = gimli::DwCfa(0x2c);
/// What the augmentation of an entry says of key B.
const KEY_B: u8 = b'B';

/// Whether an instruction that signs with a pc was found.
pub(super) fn is_with_pc(source: &gimli::Error) -> bool {
    SIGN_STATE.is_some() && *source == gimli::Error::UnknownCallFrameInstruction(NEGATE_WITH_PC)
}

/// Where the common entry with the augmentation of key B lies, if that is what was found at
/// `offset` or in the entry behind it.
pub(super) fn of_key_b(section: &[u8], is_eh_frame: bool, offset: usize) -> Option<usize> {
    SIGN_STATE?;
    let entry = Entry::at(section, offset);
    let next = entry.as_ref().and_then(|entry| Entry::at(section, entry.end));
    let common = [entry, next].into_iter().flatten().filter_map(|entry| match entry.id {
        0 if is_eh_frame => Some(entry),
        id if is_eh_frame => Entry::at(section, entry.id_at.checked_sub(id as usize)?),
        u32::MAX => Some(entry),
        id => Entry::at(section, id as usize),
    });
    let mut of_key_b = common.filter(|entry| {
        // Behind the identifier and a version of one byte, to a zero.
        let text = section.get(entry.id_at + 5..entry.end).unwrap_or(&[]);
        text.iter().take_while(|byte| **byte != 0).any(|byte| *byte == KEY_B)
    });
    of_key_b.next().map(|entry| entry.offset)
}

/// The bounds of an entry in the 32-bit format, and its identifier.
struct Entry {
    offset: usize,
    id_at: usize,
    id: u32,
    end: usize,
}

impl Entry {
    fn at(section: &[u8], offset: usize) -> Option<Entry> {
        let word = |at: usize| {
            let bytes = section.get(at..at.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let (id_at, length) = (offset.checked_add(4)?, word(offset)?);
        let end = id_at.checked_add(length as usize)?;
        let id = word(id_at)?;
        (length >= 4).then_some(Entry { offset, id_at, id, end })
    }
}
