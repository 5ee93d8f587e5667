//! Object files: laid out and relocated as a linker would, so that each function has an address of
//! its own.
//!
//! The sections lie one behind the other, in the order of the file, from [`FIRST`] on.

use object::{
    Architecture, Object, ObjectKind, ObjectSection, ObjectSymbol, ReadRef, RelocationFlags,
    RelocationKind, RelocationTarget, SectionFlags, SectionIndex, elf,
};

use super::error::ImageError;

/// The address of the first section. Not 0: there linkers leave the CFI of code that they drop.
const FIRST: u64 = 0x1000;

/// The sections of an object file that are loaded, with their addresses.
#[derive(Debug, Default)]
pub(crate) struct Layout(Vec<(SectionIndex, u64)>);

impl Layout {
    /// That of `file`; empty if it is no object file, and so has addresses already.
    pub(crate) fn new<'a, R: ReadRef<'a>>(file: &object::File<'a, R>) -> Layout {
        if file.kind() != ObjectKind::Relocatable {
            return Layout::default();
        }
        let mut next = FIRST;
        let is_loaded = |section: &object::Section<'a, '_, R>| match section.flags() {
            SectionFlags::Elf { sh_flags, .. } => sh_flags.contains(elf::SHF_ALLOC),
            _ => false,
        };
        let placed = file.sections().filter(is_loaded).filter_map(|section| {
            let at = next.checked_next_multiple_of(section.align().max(1))?;
            next = at.checked_add(section.size())?;
            Some((section.index(), at))
        });
        Layout(placed.collect())
    }

    /// Where a section lies: by this layout, or as the file says.
    pub(crate) fn address<'a>(&self, section: &impl ObjectSection<'a>) -> u64 {
        self.of(section.index()).unwrap_or(section.address())
    }

    pub(crate) fn of(&self, section: SectionIndex) -> Option<u64> {
        self.0.iter().find(|placed| placed.0 == section).map(|placed| placed.1)
    }

    /// Applies the relocations of `section` to its contents. An undefined symbol is 0.
    pub(crate) fn relocate<'a, R: ReadRef<'a>>(
        &self,
        name: &str,
        file: &object::File<'a, R>,
        section: &impl ObjectSection<'a>,
        contents: &mut [u8],
    ) -> Result<(), ImageError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let here = self.address(section);
        for (at, relocation) in section.relocations() {
            let target = match relocation.target() {
                RelocationTarget::Section(index) => self.of(index).unwrap_or(0),
                RelocationTarget::Symbol(index) => {
                    let symbol = file.symbol_by_index(index);
                    symbol.map_or(0, |symbol| {
                        let section = symbol.section_index().and_then(|index| self.of(index));
                        section.unwrap_or(0).wrapping_add(symbol.address())
                    })
                }
                _ => 0,
            };
            let (kind, size) = match relocation.flags() {
                // The crate `object` has no kind for it.
                RelocationFlags::Elf { r_type: elf::R_ARM_REL32 }
                    if file.architecture() == Architecture::Arm =>
                {
                    (RelocationKind::Relative, u32::BITS as u8)
                }
                _ => (relocation.kind(), relocation.size()),
            };
            if kind == RelocationKind::None {
                continue;
            }
            let failed = || ImageError::Relocation { image: name.into(), at };
            let len = usize::from(size / 8);
            let place =
                usize::try_from(at).ok().and_then(|at| contents.get_mut(at..)?.get_mut(..len));
            let place = place.filter(|place| place.len() <= size_of::<u64>()).ok_or_else(failed)?;
            // Files of 32 bits have it where its sum belongs.
            let addend = match relocation.has_implicit_addend() {
                true => signed(place),
                false => relocation.addend(),
            };
            let value = target.wrapping_add_signed(addend);
            let value = match kind {
                RelocationKind::Absolute => value,
                RelocationKind::Relative | RelocationKind::PltRelative => {
                    value.wrapping_sub(here.wrapping_add(at))
                }
                _ => return Err(failed()),
            };
            place.copy_from_slice(&value.to_le_bytes()[..len]);
        }
        Ok(())
    }
}

/// The number in at most eight bytes.
fn signed(bytes: &[u8]) -> i64 {
    let unsigned = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let unused = u64::BITS.saturating_sub(8 * bytes.len() as u32);
    (unsigned.unbounded_shl(unused) as i64).unbounded_shr(unused)
}
