//! ELF files: reading them, and the sections of CFI in them.

use std::path::Path;

use gimli::BaseAddresses;
use object::{Object, ObjectSection};

use super::cfi_source::CfiSource;
use super::error::ImageError;
use crate::arch::OBJECT_ARCHITECTURE;
use crate::cfi::SectionFormat;

/// The bytes of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(|error| ImageError::File { path: path.into(), kind: error.kind() })
}

/// An ELF file for this architecture.
pub(super) fn parse<'a>(name: &str, bytes: &'a [u8]) -> Result<object::File<'a>, ImageError> {
    let file = object::File::parse(bytes)
        .map_err(|source| ImageError::Elf { image: name.into(), source })?;
    match (file.format(), file.architecture()) {
        (object::BinaryFormat::Elf, OBJECT_ARCHITECTURE) => Ok(file),
        _ => Err(ImageError::Machine { image: name.into() }),
    }
}

/// The best ratio of deflate. CFI shrinks to a third.
const RATIO: u64 = 1032;

/// The sections of CFI of a file. Sections without contents, as in debug files, do not count.
pub(super) fn cfi_sources(
    name: &str,
    file: &object::File<'_>,
    bias: usize,
    address: usize,
) -> Result<Vec<CfiSource>, ImageError> {
    let section_start =
        |section: &str| file.section_by_name(section).map_or(0, |section| section.address());
    let contents = |section: &str| -> Result<Option<Vec<u8>>, ImageError> {
        let Some(section) = file.section_by_name(section) else { return Ok(None) };
        if section.kind() == object::SectionKind::UninitializedData {
            return Ok(None);
        }
        let malformed = |source| ImageError::Elf { image: name.into(), source };
        let compressed = section.compressed_data().map_err(malformed)?;
        // The size in the file is allocated before it is found to be wrong.
        if compressed.uncompressed_size > compressed.data.len() as u64 * RATIO {
            return Err(ImageError::Compressed { image: name.into() });
        }
        let bytes = compressed.decompress().map_err(malformed)?;
        Ok((!bytes.is_empty()).then(|| bytes.into_owned()))
    };
    let bases = BaseAddresses::default()
        .set_text(section_start(".text"))
        .set_got(section_start(".got"))
        .set_eh_frame(section_start(".eh_frame"))
        .set_eh_frame_hdr(section_start(".eh_frame_hdr"));
    let mut sources = Vec::new();
    for (section, format) in
        [(".eh_frame", SectionFormat::EhFrame), (".debug_frame", SectionFormat::DebugFrame)]
    {
        if let Some(bytes) = contents(section)? {
            let header =
                if format == SectionFormat::EhFrame { contents(".eh_frame_hdr")? } else { None };
            let source = CfiSource::new(bytes, format, bases.clone(), header, bias as u64);
            sources.push(source.map_err(|source| ImageError::Cfi { address, source })?);
        }
    }
    Ok(sources)
}
