//! ELF files: reading them, where their code lies, and the sections of CFI in them.

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use gimli::BaseAddresses;
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{Object, ObjectSection, ObjectSegment, ReadCache, ReadRef, SectionKind, elf};

use super::cfi_source::CfiSource;
use super::error::ImageError;
use super::relocatable::Layout;
use super::search_table;
use crate::arch::OBJECT_ARCHITECTURE;
use crate::cfi::SectionFormat;

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(|error| ImageError::File { path: path.into(), kind: error.kind() })
}

/// A file of which only what is needed is read.
pub(crate) fn open(path: &Path) -> Result<ReadCache<File>, ImageError> {
    let failed = |error: std::io::Error| ImageError::File { path: path.into(), kind: error.kind() };
    File::open(path).map(ReadCache::new).map_err(failed)
}

/// An ELF file for this architecture.
pub(crate) fn parse<'a, R: ReadRef<'a>>(
    name: &str,
    bytes: R,
) -> Result<object::File<'a, R>, ImageError> {
    let file = object::File::parse(bytes)
        .map_err(|source| ImageError::Elf { image: name.into(), source })?;
    match (file.format(), file.architecture()) {
        (object::BinaryFormat::Elf, OBJECT_ARCHITECTURE) => Ok(file),
        _ => Err(ImageError::Machine { image: name.into() }),
    }
}

/// Whether a file is not ELF's but begins as one in Microsoft's format.
pub(crate) fn is_pe(bytes: &[u8]) -> bool {
    bytes.starts_with(b"MZ")
}

/// Where the code of a file lies: its executable segments or, in an object file, sections.
pub(crate) fn code<'a>(file: &object::File<'a>, layout: &Layout, bias: usize) -> Vec<Range<usize>> {
    let segments =
        file.segments().filter(|segment| segment.permissions().executable()).map(|segment| {
            // At most what the file holds: a malformed header may claim any size in memory.
            let len = segment.file_range().1 as usize;
            let len = len.min(segment.data().map_or(0, <[u8]>::len)).min(segment.size() as usize);
            (segment.address(), len)
        });
    let sections = file
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .filter_map(|section| Some((layout.of(section.index())?, section.data().ok()?.len())));
    let mut code: Vec<Range<usize>> = segments
        .chain(sections)
        .filter_map(|(start, len)| {
            let start = (start as usize).wrapping_add(bias);
            Some(start..start.checked_add(len)?)
        })
        .filter(|range| !range.is_empty())
        .collect();
    code.sort_by_key(|range| range.start);
    code
}

/// The best ratio of deflate. CFI shrinks to a third.
const RATIO: u64 = 1032;

/// The sections of CFI of a file: `.eh_frame`, unless `debug_only`, then `.debug_frame`. Sections
/// without contents, as in debug files, do not count. `address` names the image in errors.
pub(crate) fn cfi_sources<'a, R: ReadRef<'a>>(
    name: &str,
    file: &object::File<'a, R>,
    layout: &Layout,
    bias: usize,
    address: usize,
    debug_only: bool,
) -> Result<Vec<CfiSource>, ImageError> {
    let start =
        |section: &str| file.section_by_name(section).map_or(0, |section| layout.address(&section));
    let contents = |section: &str| -> Result<Option<Vec<u8>>, ImageError> {
        let Some(section) = file.section_by_name(section) else { return Ok(None) };
        if section.kind() == SectionKind::UninitializedData {
            return Ok(None);
        }
        let malformed = |source| ImageError::Elf { image: name.into(), source };
        let compressed = section.compressed_data().map_err(malformed)?;
        // The size in the file is allocated before it is found to be wrong.
        if compressed.uncompressed_size > compressed.data.len() as u64 * RATIO {
            return Err(ImageError::Compressed { image: name.into() });
        }
        let mut bytes = compressed.decompress().map_err(malformed)?.into_owned();
        layout.relocate(name, file, &section, &mut bytes)?;
        Ok((!bytes.is_empty()).then_some(bytes))
    };
    let bases = BaseAddresses::default()
        .set_text(start(".text"))
        .set_got(start(".got"))
        .set_eh_frame(start(".eh_frame"))
        .set_eh_frame_hdr(start(".eh_frame_hdr"));
    let mut sources = Vec::new();
    let mut add = |section, format, header| -> Result<(), ImageError> {
        if let Some(bytes) = contents(section)? {
            let source = CfiSource::new(bytes, format, bases.clone(), header, bias as u64);
            sources.push(source.map_err(|source| ImageError::Cfi { address, source })?);
        }
        Ok(())
    };
    if !debug_only {
        add(".eh_frame", SectionFormat::EhFrame, contents(".eh_frame_hdr")?)?;
    }
    add(".debug_frame", SectionFormat::DebugFrame, None)?;
    if !debug_only && file.section_by_name(".eh_frame").is_none() {
        let found = by_program_headers(file, bias, address)?;
        sources.splice(..0, found);
    }
    Ok(sources)
}

/// `.eh_frame` of a file without section headers.
fn by_program_headers<'a, R: ReadRef<'a>>(
    file: &object::File<'a, R>,
    bias: usize,
    address: usize,
) -> Result<Option<CfiSource>, ImageError> {
    match file {
        object::File::Elf32(file) => by_headers_of(file, bias, address),
        object::File::Elf64(file) => by_headers_of(file, bias, address),
        _ => Ok(None),
    }
}

fn by_headers_of<'a, E: FileHeader, R: ReadRef<'a>>(
    file: &ElfFile<'a, E, R>,
    bias: usize,
    address: usize,
) -> Result<Option<CfiSource>, ImageError> {
    let endian = file.endian();
    let headers = file.elf_program_headers();
    let of_table = headers.iter().find(|header| header.p_type(endian) == elf::PT_GNU_EH_FRAME);
    let Some(of_table) = of_table else { return Ok(None) };
    let Ok(table) = of_table.data(endian, file.data()) else { return Ok(None) };
    let rest = |start: u64| {
        let holds = |header: &&E::ProgramHeader| {
            header.p_type(endian) == elf::PT_LOAD
                && start.wrapping_sub(header.p_vaddr(endian).into())
                    < header.p_filesz(endian).into()
        };
        let header = headers.iter().find(holds)?;
        let bytes = header.data(endian, file.data()).ok()?;
        bytes.get((start - header.p_vaddr(endian).into()) as usize..).map(Cow::Borrowed)
    };
    search_table::section(table, of_table.p_vaddr(endian).into(), bias as u64, rest, address)
}
