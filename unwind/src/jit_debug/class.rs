//! The structures of ELF files with words of the target's size.

use object::elf::SectionFlags;
use object::endian::LittleEndian;

#[cfg(target_pointer_width = "32")]
mod structures {
    pub(super) use object::elf::{
        FileHeader32 as FileHeader, SectionHeader32 as SectionHeader, Sym32 as Sym,
    };
    pub(super) use object::endian::U32 as Word;
}
#[cfg(target_pointer_width = "64")]
mod structures {
    pub(super) use object::elf::{
        FileHeader64 as FileHeader, SectionHeader64 as SectionHeader, Sym64 as Sym,
    };
    pub(super) use object::endian::U64 as Word;
}

pub(super) type FileHeader = structures::FileHeader<LittleEndian>;
pub(super) type SectionHeader = structures::SectionHeader<LittleEndian>;
pub(super) type Sym = structures::Sym<LittleEndian>;
pub(super) type Word = structures::Word<LittleEndian>;

/// A word of a file.
pub(super) fn word(value: usize) -> Word {
    Word::new(LittleEndian, value as _)
}

/// The flags of a section, as its header has them. The first word has all that are used.
pub(super) fn flags(flags: SectionFlags) -> structures::Word<LittleEndian, SectionFlags> {
    #[cfg(target_pointer_width = "32")]
    return structures::Word::new_u64_truncate(LittleEndian, flags);
    #[cfg(target_pointer_width = "64")]
    structures::Word::new(LittleEndian, flags)
}
