//! What only the file of a loaded image says: where its sections lie, and its symbols.

use std::ops::Range;
use std::path::PathBuf;

use object::{Object, ObjectSection, ObjectSymbol, ReadRef, SectionFlags, SymbolKind, elf};

use super::error::ImageError;
use super::{debug_file, elf_file};
use crate::os::DEBUG_DIRECTORY;
use crate::os_images::LoadedImage;

/// Sections and symbols of a loaded image.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The name of its file.
    pub(crate) name: String,
    /// Copies of the sections asked for, as they lie relocated in memory.
    pub(crate) sections: Vec<(&'static str, Vec<u8>)>,
    /// Its functions, by ascending addresses. None if the image is stripped.
    symbols: Vec<(Range<usize>, String)>,
}

impl Contents {
    /// Those of the image that holds `address`. Sections that it does not have are left out.
    pub(crate) fn read(address: usize, sections: &[&'static str]) -> Result<Contents, ImageError> {
        let loaded = LoadedImage::at(address)?;
        let path = loaded.file();
        let name = path.display().to_string();
        let bytes = elf_file::open(&path)?;
        if (&bytes).read_bytes_at(0, 2).is_ok_and(elf_file::is_pe) {
            return Err(ImageError::MapsOfFormat { image: name });
        }
        let file = elf_file::parse(&name, &bytes)?;
        if !loaded.is_of(&file) {
            return Err(ImageError::Changed { image: name });
        }
        let mut found = Vec::new();
        for section in file.sections() {
            let is = |wanted: &&&'static str| section.name() == Ok(**wanted);
            let Some(wanted) = sections.iter().find(is) else { continue };
            found.push((*wanted, copy(&loaded, &section, &name, wanted)?));
        }
        let mut symbols = functions(file.symbols(), loaded.base());
        let debug = [PathBuf::from(DEBUG_DIRECTORY)];
        if symbols.is_empty()
            && let Some(path) = debug_file::find(&file, &path, &debug)
        {
            let (name, bytes) = (path.display().to_string(), elf_file::open(&path)?);
            let file = elf_file::parse(&name, &bytes)?;
            symbols = functions(file.symbols(), loaded.base());
        }
        if symbols.is_empty() {
            symbols = functions(file.dynamic_symbols(), loaded.base());
        }
        symbols.sort_by_key(|(range, _)| range.start);
        Ok(Contents { name, sections: found, symbols })
    }

    /// The name of the function that holds `pc`.
    pub(crate) fn symbol(&self, pc: usize) -> Option<&str> {
        let behind = self.symbols.partition_point(|(range, _)| range.start <= pc);
        let (range, name) = self.symbols.get(behind.checked_sub(1)?)?;
        range.contains(&pc).then_some(name)
    }
}

fn copy<'a, R: ReadRef<'a>>(
    loaded: &LoadedImage,
    section: &object::Section<'a, '_, R>,
    image: &str,
    name: &str,
) -> Result<Vec<u8>, ImageError> {
    let start = loaded.base().wrapping_add(section.address() as usize);
    let is_loaded = match section.flags() {
        SectionFlags::Elf { sh_flags, .. } => sh_flags & elf::SHF_ALLOC != elf::SectionFlags(0),
        _ => false,
    };
    let bytes = start
        .checked_add(section.size() as usize)
        .filter(|_| is_loaded)
        .and_then(|end| loaded.copy(start..end));
    bytes.ok_or_else(|| ImageError::NotMapped { image: image.into(), section: name.into() })
}

fn functions<'a>(
    symbols: impl Iterator<Item = impl ObjectSymbol<'a>>,
    base: usize,
) -> Vec<(Range<usize>, String)> {
    symbols
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        .filter_map(|symbol| {
            let start = base.wrapping_add(symbol.address() as usize);
            // Assembly may leave out the size.
            let end = start.checked_add((symbol.size() as usize).max(1))?;
            Some((start..end, symbol.name().ok()?.to_owned()))
        })
        .collect()
}
