//! The images of the running process and their CFI, as the loader has mapped them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use gimli::{BaseAddresses, EhFrameHdr, EndianSlice, LittleEndian};

use super::cfi_source::CfiSource;
use super::error::ImageError;
use super::relocatable::Layout;
use super::{debug_file, elf_file, search_table};
use crate::arch::ADDRESS_SIZE;
use crate::cfi::{FunctionRows, Section};
use crate::os::{
    self, DEBUG_DIRECTORY, MappedImage, PT_GNU_EH_FRAME, PT_LOAD, PT_NOTE, for_each_image,
};
use crate::rule::CfiRows;

/// The rows of the functions in `range`, from the image that holds it. Rows outside of it are cut
/// off. With them the rows that their rules name.
pub(crate) fn functions(range: Range<usize>) -> Result<(Vec<FunctionRows>, CfiRows), ImageError> {
    let address = range.start;
    let mut result = Err(ImageError::NoImage { address });
    for_each_image(|image| {
        let found = image.segments(PT_LOAD).any(|segment| segment.contains(&address));
        if found {
            result = functions_of(image, &range);
        }
        found
    });
    result
}

/// Whether a loaded image holds any of `range`.
pub(crate) fn holds_any(range: Range<usize>) -> bool {
    let mut found = false;
    for_each_image(|image| {
        found |= image
            .segments(PT_LOAD)
            .any(|segment| segment.start < range.end && range.start < segment.end);
        found
    });
    found
}

fn functions_of(
    image: &MappedImage<'_>,
    range: &Range<usize>,
) -> Result<(Vec<FunctionRows>, CfiRows), ImageError> {
    let address = range.start;
    let missing = ImageError::NoCfi { address };
    let header = image.segments(PT_GNU_EH_FRAME).next().ok_or(missing.clone())?;
    let header_bytes = image.bytes(header.start).ok_or(missing.clone())?;
    let malformed = |source| ImageError::Header { address, source };
    let bases = BaseAddresses::default().set_eh_frame_hdr(header.start as u64);
    let parsed = EhFrameHdr::new(header_bytes, LittleEndian)
        .parse(&bases, ADDRESS_SIZE)
        .map_err(malformed)?;
    let section_start = parsed.eh_frame_ptr().direct().map_err(malformed)? as usize;
    let section =
        Section::at(image.bytes(section_start).ok_or(missing.clone())?, section_start as u64);
    let table = parsed.table().ok_or(missing)?;
    collect(&table, &bases, &section, section_start as u64, range)
}

type Table<'a, 'd> = gimli::EhHdrTable<'a, EndianSlice<'d, LittleEndian>>;

fn collect(
    table: &Table<'_, '_>,
    bases: &BaseAddresses,
    section: &Section<'_>,
    section_start: u64,
    range: &Range<usize>,
) -> Result<(Vec<FunctionRows>, CfiRows), ImageError> {
    let address = range.start;
    let malformed = |source| ImageError::Header { address, source };
    let range = range.start as u64..range.end as u64;
    let entry = |i: usize| -> Result<(u64, gimli::Pointer), ImageError> {
        let found = table.iter(bases).nth(i).map_err(malformed)?;
        let (start, entry) = found.ok_or(ImageError::NoCfi { address })?;
        Ok((start.direct().map_err(malformed)?, entry))
    };
    // The first entry behind the range's start; the one before it may reach into the range.
    let (mut low, mut high) = (0, table.iter(bases).size_hint().0);
    let count = high;
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(middle)?.0 <= range.start {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let mut functions = Vec::new();
    let mut unpacked = CfiRows::default();
    let failed = |source| ImageError::Cfi { address, source };
    let offset = |pointer: gimli::Pointer| {
        let entry = pointer.direct().map_err(malformed)?;
        let offset = entry.checked_sub(section_start);
        offset.ok_or(malformed(gimli::Error::OffsetOutOfBounds(entry))).map(|at| at as usize)
    };
    let is_empty = |at: usize| section.entry(at).map(|entry| entry.is_empty()).map_err(failed);
    // Entries of empty functions lie among the others.
    let mut first = low.saturating_sub(1);
    while first > 0 && is_empty(offset(entry(first)?.1)?)? {
        first -= 1;
    }
    for i in first..count {
        let (start, pointer) = entry(i)?;
        if start >= range.end {
            break;
        }
        let offset = offset(pointer)?;
        if is_empty(offset)? {
            continue;
        }
        let function = section.function_at(offset, &mut unpacked).map_err(failed)?;
        functions.extend(function.clipped(&range));
    }
    Ok((functions, unpacked))
}

/// An image as the loader knows it. Two are equal only if they are the same mapping of the same
/// file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadedImage {
    base: usize,
    path: String,
    /// The program headers, as address, size and type.
    segments: Vec<(usize, usize, u32)>,
    /// The notes, which hold the build id, if there is one.
    notes: Vec<u8>,
}

impl LoadedImage {
    fn new(image: &MappedImage<'_>) -> LoadedImage {
        let segments = image
            .headers
            .iter()
            .map(|header| (header.p_vaddr as usize, header.p_memsz as usize, header.p_type));
        let note =
            |range: Range<usize>| Some(image.bytes(range.start)?.get(..range.len())?.to_vec());
        let notes = image.segments(PT_NOTE).filter_map(note).flatten().collect();
        LoadedImage { base: image.base, path: image.path(), segments: segments.collect(), notes }
    }

    /// Copies the CFI that is in memory. The image may have gone meanwhile.
    pub(crate) fn mapped_source(&self) -> Result<Option<CfiSource>, ImageError> {
        let address = self.base;
        let mut found = Err(ImageError::NoImage { address });
        for_each_image(|image| {
            if image.base != self.base || LoadedImage::new(image) != *self {
                return false;
            }
            found = copied(image, address);
            true
        });
        found
    }

    /// The CFI that only the image's file and its debug file have. None if the file is not there
    /// any more, or is another one.
    pub(crate) fn file_sources(
        &self,
        name: &str,
        is_mapped: bool,
    ) -> Result<Vec<CfiSource>, ImageError> {
        let path = Path::new(name);
        // The system's own image has no file.
        if !path.is_absolute() {
            return Ok(Vec::new());
        }
        let Ok(bytes) = elf_file::open(path) else { return Ok(Vec::new()) };
        let file = elf_file::parse(name, &bytes)?;
        if elf_file::program_headers(&file) != self.segments {
            return Ok(Vec::new());
        }
        let layout = Layout::default();
        let (base, address) = (self.base, self.base);
        let mut sources = elf_file::cfi_sources(name, &file, &layout, base, address, is_mapped)?;
        if let Some(path) = debug_file::find(&file, path, &[PathBuf::from(DEBUG_DIRECTORY)]) {
            let (name, bytes) = (path.display().to_string(), elf_file::open(&path)?);
            let file = elf_file::parse(&name, &bytes)?;
            sources.extend(elf_file::cfi_sources(&name, &file, &layout, base, address, is_mapped)?);
        }
        Ok(sources)
    }
}

/// Copies of `.eh_frame` and its search table; `None` if the image has none.
fn copied(image: &MappedImage<'_>, address: usize) -> Result<Option<CfiSource>, ImageError> {
    let Some(header) = image.segments(PT_GNU_EH_FRAME).next() else { return Ok(None) };
    let table = image.bytes(header.start).and_then(|bytes| bytes.get(..header.len()));
    let Some(table) = table else { return Ok(None) };
    let rest = |start: u64| image.bytes(start as usize);
    search_table::section(table, header.start as u64, 0, rest, address)
}

/// How many images the loader has added and removed so far. It changes with each `dlopen` and
/// `dlclose`.
pub(crate) fn generation() -> (u64, u64) {
    let mut generation = (0, 0);
    for_each_image(|image| {
        generation = image.generation();
        true
    });
    generation
}

/// All images of the process, and the generation that they belong to. Those that `known` finds are
/// taken over; the others are made by `new` from name, code and image.
pub(crate) fn images<T>(
    known: impl Fn(&LoadedImage) -> Option<T>,
    new: impl Fn(String, Vec<Range<usize>>, LoadedImage) -> T,
) -> (Vec<T>, (u64, u64)) {
    let mut images = Vec::new();
    let mut generation = (0, 0);
    for_each_image(|image| {
        generation = image.generation();
        let loaded = LoadedImage::new(image);
        images.push(known(&loaded).unwrap_or_else(|| {
            let name = match &*loaded.path {
                // The program itself has no name.
                "" => os::program_path().map_or_else(String::new, |p| p.display().to_string()),
                path => path.into(),
            };
            new(name, image.code(), loaded)
        }));
        false
    });
    (images, generation)
}
