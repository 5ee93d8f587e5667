//! The rule for one pc by an entry of the form that compilers write, without a table of rows.
//!
//! Whatever is unusual, and whatever is wrong, yields nothing: the entry is read as a whole then,
//! which says what is wrong. What is found here is what would be found there.

use crate::arch::{
    ADDRESS_BITS, ADDRESS_SIZE, CALLEE_SAVED, FRAME_POINTER, RETURN_ADDRESS, STACK_POINTER,
    address_behind,
};
use crate::rule::{Base, PackedRule};

/// Registers with numbers below this are looked for here.
const NUMBERS: usize = 128;
/// A register that has no place in a state.
const ELSEWHERE: u8 = u8::MAX;
/// The place of the return address in a state, behind those of [`CALLEE_SAVED`].
const RETURN: usize = CALLEE_SAVED.len();
/// The limit of states that are remembered at one time.
const DEPTH: usize = 4;

/// The place of each register in a state.
static PLACES: [u8; NUMBERS] = {
    let mut places = [ELSEWHERE; NUMBERS];
    let mut i = 0;
    while i < RETURN {
        places[CALLEE_SAVED[i].0 as usize] = i as u8;
        i += 1;
    }
    places[RETURN_ADDRESS.0 as usize] = RETURN as u8;
    places
};

/// The rule for `pc` by the entry at `offset` of the `.eh_frame` with these bytes, which lies at
/// `address`. `None` if the entry covers other code, is unusual, or is wrong.
pub(super) fn rule_at(
    bytes: &[u8],
    address: Option<u64>,
    offset: usize,
    pc: u64,
) -> Option<PackedRule> {
    let (mut fde, id_at) = entry(bytes, offset)?;
    let id = fde.word()?;
    let cie = Cie::at(bytes, id_at.checked_sub(id as usize).filter(|_| id != 0)?)?;
    let base = if cie.is_relative { address?.wrapping_add(fde.at as u64) } else { 0 };
    let start = base.wrapping_add(cie.pointer(&mut fde)?) & ADDRESS_BITS;
    let len = cie.pointer(&mut fde)? & ADDRESS_BITS;
    if pc < start || pc >= address_behind(start, len)? {
        return None;
    }
    let more = fde.number()?;
    if (more as usize) < cie.least_more {
        return None;
    }
    fde.skip(more as usize)?;
    let initial = cie.run(cie.instructions.clone(), State::default(), None, 0)?;
    cie.run(fde, initial, Some((&initial, start)), pc)?.rule()
}

/// The bytes of an entry behind its length, and where they begin.
fn entry(bytes: &[u8], offset: usize) -> Option<(Cursor<'_>, usize)> {
    let mut cursor = Cursor { bytes, at: offset };
    let len = cursor.word().filter(|len| *len < 0xffff_fff0)? as usize;
    let at = cursor.at;
    let bytes = bytes.get(..at.checked_add(len)?)?;
    Some((Cursor { bytes, at }, at))
}

/// What an entry's common part says.
struct Cie<'a> {
    code_factor: u64,
    data_factor: i64,
    /// Pointers are relative to where they stand.
    is_relative: bool,
    pointers: Pointers,
    /// The bytes of the pointer that each entry has besides.
    least_more: usize,
    instructions: Cursor<'a>,
}

/// How pointers are written.
#[derive(Clone, Copy)]
enum Pointers {
    Signed4,
    Unsigned4,
    Whole,
}

impl Pointers {
    /// From an encoding, and whether they are relative to themselves.
    fn of(encoding: u8) -> Option<(Pointers, bool)> {
        // DW_EH_PE_pcrel and DW_EH_PE_absptr.
        let is_relative = match encoding & 0x70 {
            0x10 => true,
            0x00 => false,
            _ => return None,
        };
        let pointers = match encoding & 0x0f {
            0x0b => Pointers::Signed4,
            0x03 => Pointers::Unsigned4,
            0x00 if ADDRESS_SIZE == 4 => Pointers::Unsigned4,
            0x00 | 0x04 | 0x0c if ADDRESS_SIZE == 8 => Pointers::Whole,
            _ => return None,
        };
        Some((pointers, is_relative))
    }

    fn size(self) -> usize {
        match self {
            Pointers::Signed4 | Pointers::Unsigned4 => 4,
            Pointers::Whole => 8,
        }
    }
}

impl<'a> Cie<'a> {
    fn at(bytes: &'a [u8], offset: usize) -> Option<Cie<'a>> {
        let (mut cie, _) = entry(bytes, offset)?;
        let id = cie.word()?;
        let version = cie.byte()?;
        if id != 0 || !matches!(version, 1 | 3) || cie.byte()? != b'z' {
            return None;
        }
        let text = cie.at;
        while cie.byte()? != 0 {}
        let code_factor = u64::from(cie.number()?);
        let data_factor = i64::from(cie.signed()?);
        // The register of the return address is fixed for each architecture.
        let register = if version == 1 { u32::from(cie.byte()?) } else { cie.number()? };
        if register != u32::from(RETURN_ADDRESS.0) {
            return None;
        }
        let more = cie.number()? as usize;
        let mut data = Cursor { bytes: cie.bytes.get(..cie.at.checked_add(more)?)?, at: cie.at };
        cie.skip(more)?;
        let (mut pointers, mut is_relative) = Pointers::of(0)?;
        let mut least_more = 0;
        for letter in bytes[text..].iter().take_while(|letter| **letter != 0) {
            match letter {
                b'R' => {
                    // Without indirection.
                    let encoding = data.byte().filter(|encoding| encoding & 0x80 == 0)?;
                    (pointers, is_relative) = Pointers::of(encoding)?;
                }
                b'P' => {
                    let (pointers, _) = Pointers::of(data.byte()?)?;
                    data.skip(pointers.size())?;
                }
                b'L' => least_more = Pointers::of(data.byte()?)?.0.size(),
                _ => return None,
            }
        }
        Some(Cie { code_factor, data_factor, is_relative, pointers, least_more, instructions: cie })
    }

    #[inline]
    fn pointer(&self, cursor: &mut Cursor<'_>) -> Option<u64> {
        Some(match self.pointers {
            Pointers::Signed4 => i64::from(cursor.word()? as i32) as u64,
            Pointers::Unsigned4 => u64::from(cursor.word()?),
            Pointers::Whole => u64::from(cursor.word()?) | u64::from(cursor.word()?) << 32,
        })
    }

    /// Runs instructions up to `pc`, or those of the common part. `entry` has the state behind the
    /// common part, and the entry's start.
    #[inline]
    fn run(
        &self,
        mut from: Cursor<'_>,
        mut state: State,
        entry: Option<(&State, u64)>,
        pc: u64,
    ) -> Option<State> {
        let (initial, mut at) = entry.unwrap_or((&State::INITIAL, 0));
        let is_common = entry.is_none();
        let mut remembered = [State::INITIAL; DEPTH];
        let mut depth = 0;
        while from.at < from.bytes.len() {
            let operation = from.byte()?;
            let operand = operation & 0x3f;
            let delta = match operation >> 6 {
                // DW_CFA_advance_loc
                1 => u64::from(operand),
                // DW_CFA_offset
                2 => {
                    let offset = i64::from(from.number()?).checked_mul(self.data_factor)?;
                    state.save(u32::from(operand), offset)?;
                    continue;
                }
                // DW_CFA_restore
                3 if !is_common => {
                    let place = place(u32::from(operand))?;
                    state.saved[place] = initial.saved[place];
                    continue;
                }
                0 => match operand {
                    // DW_CFA_nop
                    0x00 => continue,
                    // DW_CFA_advance_loc1, 2 and 4
                    0x02 => u64::from(from.byte()?),
                    0x03 => u64::from(from.byte()?) | u64::from(from.byte()?) << 8,
                    0x04 => u64::from(from.word()?),
                    // DW_CFA_same_value
                    0x08 => {
                        let place = place(from.number()?).filter(|place| *place != RETURN)?;
                        state.saved[place] = 0;
                        continue;
                    }
                    // DW_CFA_remember_state
                    0x0a if !is_common => {
                        *remembered.get_mut(depth)? = state;
                        depth += 1;
                        continue;
                    }
                    // DW_CFA_restore_state
                    0x0b if !is_common => {
                        depth = depth.checked_sub(1)?;
                        state = remembered[depth];
                        continue;
                    }
                    // DW_CFA_def_cfa
                    0x0c => {
                        (state.base, state.offset) = (from.register()?, from.number()?);
                        continue;
                    }
                    // DW_CFA_def_cfa_register
                    0x0d => {
                        state.base = from.register()?;
                        continue;
                    }
                    // DW_CFA_def_cfa_offset
                    0x0e => {
                        state.offset = from.number()?;
                        continue;
                    }
                    // DW_CFA_GNU_args_size
                    0x2e => {
                        from.number()?;
                        continue;
                    }
                    _ => return None,
                },
                _ => return None,
            };
            if is_common {
                return None;
            }
            at = address_behind(at, delta.checked_mul(self.code_factor)?)?;
            if at > pc {
                break;
            }
        }
        Some(state)
    }
}

/// The place of a register in a state.
#[inline]
fn place(register: u32) -> Option<usize> {
    let place = *PLACES.get(register as usize)?;
    (place != ELSEWHERE).then_some(usize::from(place))
}

/// A row of the one form: the CFA by a register, all else at offsets from the CFA.
#[derive(Clone, Copy)]
struct State {
    base: u32,
    offset: u32,
    /// From the CFA, in bytes; 0: not saved.
    saved: [i32; RETURN + 1],
}

impl Default for State {
    fn default() -> State {
        State::INITIAL
    }
}

impl State {
    /// Before any instruction. The register is none that a CFA is relative to.
    const INITIAL: State = State { base: u32::MAX, offset: 0, saved: [0; RETURN + 1] };

    #[inline]
    fn save(&mut self, register: u32, offset: i64) -> Option<()> {
        self.saved[place(register)?] = i32::try_from(offset).ok().filter(|offset| *offset != 0)?;
        Some(())
    }

    #[inline]
    fn rule(&self) -> Option<PackedRule> {
        let base = match self.base {
            base if base == u32::from(STACK_POINTER.0) => Base::StackPointer,
            base if base == u32::from(FRAME_POINTER.0) => Base::FramePointer,
            _ => return None,
        };
        let (saved, return_at) = self.saved.split_first_chunk()?;
        PackedRule::plain(base, self.offset, return_at[0], saved)
    }
}

/// Reads forward through an entry.
#[derive(Clone)]
struct Cursor<'a> {
    /// The section up to the end of the entry.
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn word(&mut self) -> Option<u32> {
        let word = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 4;
        Some(u32::from_le_bytes(*word))
    }

    #[inline]
    fn skip(&mut self, len: usize) -> Option<()> {
        self.at = self.at.checked_add(len).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    /// An unsigned LEB128 number of at most four bytes.
    #[inline]
    fn number(&mut self) -> Option<u32> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(u32::from(first));
        }
        self.long(u32::from(first & 0x7f)).map(|(number, _)| number)
    }

    /// The number of a register. One that none has is wrong.
    #[inline]
    fn register(&mut self) -> Option<u32> {
        self.number().filter(|number| *number <= u16::MAX.into())
    }

    /// A signed one.
    #[inline]
    fn signed(&mut self) -> Option<i32> {
        let first = self.byte()?;
        let (number, bits) =
            if first < 0x80 { (u32::from(first), 7) } else { self.long(u32::from(first & 0x7f))? };
        let unused = u32::BITS - bits;
        Some((number << unused) as i32 >> unused)
    }

    /// The rest of a number, and how many bits it has.
    #[cold]
    fn long(&mut self, mut number: u32) -> Option<(u32, u32)> {
        for shift in [7, 14, 21] {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((number, shift + 7));
            }
        }
        None
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use object::{Object, ObjectSection};

    use crate::arch::{CALL_PUSHES, FRAME_POINTER, RETURN_ADDRESS, STACK_POINTER, WORD};
    use crate::cfi::{Entry, Section};
    use crate::rule::UnwindRule;

    /// Numbers that are the same in each run.
    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 16) as usize
    }

    /// Of entries with wrong bytes, too: a rule that is said at once is the one that the whole
    /// entry says. Most entries as compilers write them say it at once. Where calls leave the
    /// return address in a register, the rows before it is saved do not.
    #[test]
    #[cfg_attr(
        any(target_arch = "arm", windows),
        ignore = "compilers write no CFI there that is loaded"
    )]
    fn a_quick_rule_is_that_of_the_whole_entry() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let file = object::File::parse(&*file).unwrap();
        let section = file.section_by_name(".eh_frame").unwrap();
        let (mut bytes, address) = (section.data().unwrap().to_vec(), section.address());
        let entries = Section::at(&bytes, address).entries().unwrap();
        let check = |bytes: &[u8], entry: &Entry, pc: u64| {
            let quick = super::rule_at(bytes, Some(address), entry.offset, pc);
            if let Some(rule) = quick {
                let whole = Section::at(bytes, address).rule_by_program(entry.offset, pc);
                let rule = UnwindRule::packed(rule);
                assert_eq!(whole, Ok(Some(rule)), "pc {pc:#x}, entry {:#x}", entry.offset);
            }
            quick.is_some()
        };
        let (mut quick, mut all) = (0, 0);
        for entry in entries.iter().filter(|entry| entry.start < entry.end) {
            for pc in [entry.start, entry.start + (entry.end - entry.start) / 2, entry.end - 1] {
                let whole = Section::at(&bytes, address).rule_by_program(entry.offset, pc);
                let is_saved = matches!(whole, Ok(Some(rule)) if rule.as_packed().is_some());
                if CALL_PUSHES > 0 || is_saved {
                    (quick, all) = (quick + usize::from(check(&bytes, entry, pc)), all + 1);
                }
            }
        }
        assert!(all > 1000 && quick * 10 > all * 9, "{quick} of {all}");
        let word = |bytes: &[u8], at: usize| {
            u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize
        };
        let (mut state, mut quick) = (0x9e37_79b9_7f4a_7c15, 0);
        for _ in 0..100_000 {
            let entry = entries[random(&mut state) % entries.len()];
            let common = entry.offset + 4 - word(&bytes, entry.offset + 4);
            let changed = [entry.offset, common].map(|from| {
                let len = 4 + word(&bytes, from);
                let at = from + random(&mut state) % len;
                (at, bytes[at])
            });
            for (at, _) in changed.iter().take(1 + random(&mut state) % 2) {
                bytes[*at] = match random(&mut state) % 3 {
                    0 => bytes[*at] ^ 1 << (random(&mut state) % 8),
                    1 => random(&mut state) as u8,
                    // An instruction, as often as not.
                    _ => {
                        let fp = FRAME_POINTER.0 as u8;
                        let fp = [0x80 | fp, 0xc0 | fp];
                        let rest = [0x0a, 0x0b, 0x0e, 0x41, 0x80, 0x07];
                        *fp.iter().chain(&rest).nth(random(&mut state) % 8).expect("eight")
                    }
                };
            }
            let len = entry.end.wrapping_sub(entry.start).max(1);
            for pc in [entry.start, entry.start + random(&mut state) as u64 % len, entry.end - 1] {
                quick += usize::from(check(&bytes, &entry, pc));
            }
            for (at, was) in changed.iter().rev() {
                bytes[*at] = *was;
            }
        }
        assert!(quick > 10_000, "{quick} changes did no harm");
    }

    /// An entry whose CFA is relative to `register` at first, and then to the stack pointer.
    fn entry(register: [u8; 3]) -> (Vec<u8>, Entry) {
        let [sp, fp, ra] = [STACK_POINTER, FRAME_POINTER, RETURN_ADDRESS].map(|r| r.0 as u8);
        let mut common = vec![0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x80 - WORD as u8, ra, 1, 0x1b];
        common.extend([0x0c, sp, 2 * WORD as u8, 0x80 | ra, 1, 0x80 | fp, 2]);
        let mut bytes = (common.len() as u32).to_le_bytes().to_vec();
        bytes.extend(common);
        let offset = bytes.len();
        let mut own = (offset as u32 + 4).to_le_bytes().to_vec();
        own.extend([0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0x0d]);
        own.extend(register);
        own.extend([0x0d, sp]);
        bytes.extend((own.len() as u32).to_le_bytes());
        bytes.extend(own);
        let entries = Section::at(&bytes, 0).entries().unwrap();
        (bytes, *entries.iter().find(|entry| entry.offset == offset).unwrap())
    }

    #[test]
    fn a_number_that_no_register_has_is_left_to_the_whole_entry_which_refuses_it() {
        let (bytes, entry) = self::entry([0xff, 0xff, 0x03]);
        assert!(super::rule_at(&bytes, Some(0), entry.offset, entry.start).is_some());
        let (bytes, entry) = self::entry([0x80, 0x80, 0x04]);
        assert_eq!(super::rule_at(&bytes, Some(0), entry.offset, entry.start), None);
        assert!(Section::at(&bytes, 0).rule_by_program(entry.offset, entry.start).is_err());
    }
}
