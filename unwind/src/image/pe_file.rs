//! Images in Microsoft's format, PE32+: where their code lies, and the table of their functions.

use std::ops::Range;

use object::pe;
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader};

use super::error::ImageError;
use crate::arch::HAS_UNWIND_INFO;
use crate::unwind_info::{CodeSource, FunctionEntry, FunctionTable, Piece};

/// The most bytes that belong to one UNWIND_INFO, and a few more.
const LARGEST_INFO: u32 = 1024;

/// What the headers of an image say. Addresses are relative to the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Headers {
    /// The address in memory that its file names.
    pub(crate) base: u64,
    /// What tells it from other images: time stamp, size in memory, checksum.
    pub(crate) stamp: [u32; 3],
    pub(crate) sections: Vec<Section>,
    /// Where the table of its functions lies; nowhere if it has none.
    functions: Range<u32>,
}

/// A section, by address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) memory: Range<u32>,
    /// Where in the file its contents lie.
    file: Range<u32>,
    pub(crate) is_code: bool,
}

impl Headers {
    /// Those that `bytes` begin with.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Headers, ImageError> {
        let malformed = |source| ImageError::Elf { image: name.into(), source };
        let dos = pe::ImageDosHeader::parse(bytes).map_err(malformed)?;
        let mut offset = u64::from(dos.nt_headers_offset());
        let machine = bytes.get(offset as usize + 4..).and_then(|rest| rest.first_chunk());
        if machine.map(|machine| u16::from_le_bytes(*machine))
            != Some(pe::IMAGE_FILE_MACHINE_AMD64.0)
            || !HAS_UNWIND_INFO
        {
            return Err(ImageError::Machine { image: name.into() });
        }
        let (headers, directories) =
            pe::ImageNtHeaders64::parse(bytes, &mut offset).map_err(malformed)?;
        let table = headers.sections(bytes, offset).map_err(malformed)?;
        let section = |header: &pe::ImageSectionHeader| {
            let word = |word: object::U32<object::LittleEndian>| word.get(object::LittleEndian);
            let (start, file) = (word(header.virtual_address), word(header.pointer_to_raw_data));
            let raw = word(header.size_of_raw_data);
            // Some linkers leave out the size in memory.
            let size = Some(word(header.virtual_size)).filter(|size| *size != 0).unwrap_or(raw);
            let flags = header.characteristics.get(object::LittleEndian);
            Some(Section {
                memory: start..start.checked_add(size)?,
                file: file..file.checked_add(raw.min(size))?,
                is_code: flags.contains(pe::IMAGE_SCN_MEM_EXECUTE),
            })
        };
        let mut sections: Vec<Section> = table.iter().filter_map(section).collect();
        sections.sort_by_key(|section| section.memory.start);
        let functions = directories.get(pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION);
        let functions = functions.map_or((0, 0), |directory| directory.address_range());
        let end = functions.0.checked_add(functions.1);
        let outside = ImageError::Outside { image: name.into(), what: "table of functions" };
        let optional = headers.optional_header();
        Ok(Headers {
            base: optional.image_base(),
            stamp: [
                headers.file_header().time_date_stamp.get(object::LittleEndian),
                optional.size_of_image(),
                optional.check_sum(),
            ],
            sections,
            functions: functions.0..end.ok_or(outside)?,
        })
    }

    /// The table of its functions, for an image at `base`; `None` if it has none. `copy` yields
    /// what it has of a range.
    pub(crate) fn function_table(
        &self,
        name: &str,
        base: u64,
        code: Vec<Range<u32>>,
        source: CodeSource,
        copy: impl Fn(Range<u32>) -> Option<Vec<u8>>,
    ) -> Result<Option<FunctionTable>, ImageError> {
        if self.functions.is_empty() {
            return Ok(None);
        }
        let what = "table of functions";
        let outside = || ImageError::Outside { image: name.into(), what };
        let table = copy(self.functions.clone()).ok_or_else(outside)?;
        if table.len() != self.functions.len() {
            return Err(outside());
        }
        let entries: Vec<FunctionEntry> =
            table.chunks(12).filter_map(FunctionEntry::parse).collect();
        let infos = self.sections.iter().filter_map(|section| {
            let within = entries.iter().map(|entry| entry.info & !1);
            let within = within.filter(|info| section.memory.contains(info));
            let (start, last) =
                within.fold((u32::MAX, 0), |(start, last), info| (start.min(info), last.max(info)));
            let end = last.saturating_add(LARGEST_INFO).min(section.memory.end);
            let bytes = (start <= last).then(|| copy(start..end))?;
            Some(Piece { start, bytes: bytes? })
        });
        let infos = infos.collect();
        Ok(Some(FunctionTable::new(base, code, entries, infos, source)))
    }
}

/// The code and the functions of a file that lies `bias` bytes above the address that it names.
pub(super) fn of_file(
    name: &str,
    bytes: &[u8],
    bias: usize,
) -> Result<(Vec<Range<usize>>, Option<FunctionTable>), ImageError> {
    let headers = Headers::parse(name, bytes)?;
    // At most what the file holds: malformed headers may claim any size in memory.
    let contents = |section: &Section| {
        let file = section.file.start as usize..section.file.end as usize;
        let file = file.start.min(bytes.len())..file.end.min(bytes.len());
        &bytes[file]
    };
    let copy = |range: Range<u32>| {
        let section =
            headers.sections.iter().find(|section| section.memory.contains(&range.start))?;
        let rest = contents(section).get((range.start - section.memory.start) as usize..)?;
        Some(rest[..rest.len().min(range.len())].to_vec())
    };
    let code = headers.sections.iter().filter(|section| section.is_code);
    let code = code.map(|section| (section.memory.start, contents(section)));
    let pieces: Vec<Piece> = code
        .filter(|(_, bytes)| !bytes.is_empty())
        .map(|(start, bytes)| Piece { start, bytes: bytes.to_vec() })
        .collect();
    let within: Vec<Range<u32>> =
        pieces.iter().map(|piece| piece.start..piece.start + piece.bytes.len() as u32).collect();
    let base = headers.base.wrapping_add(bias as u64);
    let in_memory = |range: &Range<u32>| {
        let start = base.wrapping_add(range.start.into()) as usize;
        Some(start..start.checked_add(range.len())?)
    };
    let code = within.iter().filter_map(in_memory).collect();
    let source = CodeSource::Copied(pieces);
    let table = headers.function_table(name, base, within, source, copy)?;
    Ok((code, table))
}
