//! ELF: the images and their CFI, as the loader has mapped them.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use gimli::{BaseAddresses, EhFrameHdr, EndianSlice, LittleEndian};
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{Object, ReadRef};

use crate::arch::ADDRESS_SIZE;
use crate::cfi::{CfiError, Entry, FunctionRows, Section};
use crate::image::cfi_source::CfiSource;
use crate::image::error::ImageError;
use crate::image::relocatable::Layout;
use crate::image::rule_source::{Extent, RuleSource};
use crate::image::{debug_file, elf_file, search_table};
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

/// The entries that cover `pcs`, in the image that holds `address`; `None` where there is none.
pub(crate) fn extents(address: usize, pcs: &[usize]) -> Result<Vec<Option<Extent>>, ImageError> {
    let mut result = Err(ImageError::NoImage { address });
    for_each_image(|image| {
        let found = image.segments(PT_LOAD).any(|segment| segment.contains(&address));
        if found {
            result = with_index(image, address, |index| {
                pcs.iter().map(|pc| index.extent(*pc as u64)).collect()
            });
        }
        found
    });
    result
}

fn functions_of(
    image: &MappedImage<'_>,
    range: &Range<usize>,
) -> Result<(Vec<FunctionRows>, CfiRows), ImageError> {
    with_index(image, range.start, |index| index.functions(range))
}

/// Calls `f` with the search table of the image, which holds `address`.
fn with_index<T>(
    image: &MappedImage<'_>,
    address: usize,
    f: impl FnOnce(&Index<'_, '_>) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let missing = ImageError::NoCfi { address };
    let header = image.segments(PT_GNU_EH_FRAME).next().ok_or(missing.clone())?;
    let header_bytes = image.bytes(header.clone()).ok_or(missing.clone())?;
    let malformed = |source| ImageError::Header { address, source };
    let bases = BaseAddresses::default().set_eh_frame_hdr(header.start as u64);
    let parsed = EhFrameHdr::new(&header_bytes, LittleEndian)
        .parse(&bases, ADDRESS_SIZE)
        .map_err(malformed)?;
    let section_start = parsed.eh_frame_ptr().direct().map_err(malformed)? as usize;
    let section = image.rest(section_start).ok_or(missing.clone())?;
    let section = Section::at(&section, section_start as u64);
    let table = parsed.table().ok_or(missing)?;
    let section_start = section_start as u64;
    let index = Index { table: &table, bases: &bases, section, section_start, address };
    // An entry has more than one byte. Offsets of entries cannot overflow then.
    if index.len() > header_bytes.len() {
        return Err(malformed(gimli::Error::OffsetOutOfBounds(index.len() as u64)));
    }
    f(&index)
}

/// The search table of a mapped image, and the section that it is for.
struct Index<'t, 'd> {
    table: &'t gimli::EhHdrTable<'t, EndianSlice<'d, LittleEndian>>,
    bases: &'t BaseAddresses,
    section: Section<'d>,
    section_start: u64,
    /// Names the image in errors.
    address: usize,
}

impl Index<'_, '_> {
    fn len(&self) -> usize {
        // The number may be larger than any length.
        self.table.iter(self.bases).size_hint().1.unwrap_or(usize::MAX)
    }

    fn malformed(&self, source: gimli::Error) -> ImageError {
        ImageError::Header { address: self.address, source }
    }

    fn failed(&self, source: CfiError) -> ImageError {
        ImageError::Cfi { address: self.address, source }
    }

    /// Where the code of the entry with this number begins, and the entry's offset in the section.
    fn entry(&self, i: usize) -> Result<(u64, usize), ImageError> {
        let found = self.table.iter(self.bases).nth(i).map_err(|e| self.malformed(e))?;
        let (start, entry) = found.ok_or(ImageError::NoCfi { address: self.address })?;
        let start = start.direct().map_err(|e| self.malformed(e))?;
        let entry = entry.direct().map_err(|e| self.malformed(e))?;
        let offset = entry.checked_sub(self.section_start);
        let outside = || self.malformed(gimli::Error::OffsetOutOfBounds(entry));
        Ok((start, offset.ok_or_else(outside)? as usize))
    }

    /// What the entry with this number covers.
    fn code(&self, i: usize) -> Result<Entry, ImageError> {
        self.section.entry(self.entry(i)?.1).map_err(|e| self.failed(e))
    }

    /// The number of the last entry that begins at `pc` or below. Empty ones do not count: they
    /// lie among the others. 0 if there is none.
    fn reaching(&self, pc: u64) -> Result<usize, ImageError> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.0 <= pc {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut last = low.saturating_sub(1);
        while last > 0 && self.code(last)?.is_empty() {
            last -= 1;
        }
        Ok(last)
    }

    fn extent(&self, pc: u64) -> Result<Option<Extent>, ImageError> {
        if self.len() == 0 {
            return Ok(None);
        }
        let number = self.reaching(pc)?;
        let Entry { start, end, .. } = self.code(number)?;
        let code = start as usize..end as usize;
        Ok((start..end).contains(&pc).then_some(Extent { number, code }))
    }

    fn functions(&self, range: &Range<usize>) -> Result<(Vec<FunctionRows>, CfiRows), ImageError> {
        let range = range.start as u64..range.end as u64;
        let mut functions = Vec::new();
        let mut unpacked = CfiRows::default();
        // The last entry that begins before the range may reach into it.
        for i in self.reaching(range.start)?..self.len() {
            let (start, offset) = self.entry(i)?;
            if start >= range.end {
                break;
            }
            if self.code(i)?.is_empty() {
                continue;
            }
            let function = self.section.function_at(offset, &mut unpacked);
            functions.extend(function.map_err(|e| self.failed(e))?.clipped(&range));
        }
        Ok((functions, unpacked))
    }
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
        let notes = image.segments(PT_NOTE).filter_map(|range| image.bytes(range));
        let notes = notes.flat_map(Cow::into_owned).collect();
        LoadedImage { base: image.base, path: image.path(), segments: segments.collect(), notes }
    }

    /// The image that holds `address`.
    pub(crate) fn at(address: usize) -> Result<LoadedImage, ImageError> {
        let mut found = Err(ImageError::NoImage { address });
        for_each_image(|image| {
            let holds = image.segments(PT_LOAD).any(|segment| segment.contains(&address));
            if holds {
                found = Ok(LoadedImage::new(image));
            }
            holds
        });
        found
    }

    /// What the loader has added to the addresses in the image's file.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// The path of its file. The program itself has no name of its own.
    pub(crate) fn file(&self) -> PathBuf {
        match &*self.path {
            "" => os::program_path().unwrap_or_default(),
            path => path.into(),
        }
    }

    /// Whether `file` is what was loaded.
    pub(crate) fn is_of<'a, R: ReadRef<'a>>(&self, file: &object::File<'a, R>) -> bool {
        let same_id =
            |id: &[u8]| id.is_empty() || self.notes.windows(id.len()).any(|bytes| bytes == id);
        let id = file.build_id().unwrap_or_default();
        program_headers(file) == self.segments && id.is_none_or(same_id)
    }

    /// A copy of what is in memory. `None` if it does not lie in one segment, or the image has gone
    /// meanwhile.
    pub(crate) fn copy(&self, range: Range<usize>) -> Option<Vec<u8>> {
        let mut found = None;
        for_each_image(|image| {
            if image.base != self.base || LoadedImage::new(image) != *self {
                return false;
            }
            found = image.bytes(range.clone()).map(Cow::into_owned);
            true
        });
        found
    }

    /// Copies the CFI that is in memory. The image may have gone meanwhile.
    pub(crate) fn mapped_source(&self) -> Result<Option<RuleSource>, ImageError> {
        let address = self.base;
        let mut found = Err(ImageError::NoImage { address });
        for_each_image(|image| {
            if image.base != self.base || LoadedImage::new(image) != *self {
                return false;
            }
            found = copied(image, address);
            true
        });
        Ok(found?.map(RuleSource::Cfi))
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
        if program_headers(&file) != self.segments {
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

/// The program headers of a file, as address, size in memory and type.
fn program_headers<'a, R: ReadRef<'a>>(file: &object::File<'a, R>) -> Vec<(usize, usize, u32)> {
    fn of<'a, E: FileHeader, R: ReadRef<'a>>(file: &ElfFile<'a, E, R>) -> Vec<(usize, usize, u32)> {
        let endian = file.endian();
        let header = |header: &E::ProgramHeader| {
            let (address, size) = (header.p_vaddr(endian).into(), header.p_memsz(endian).into());
            (address as usize, size as usize, header.p_type(endian).0)
        };
        file.elf_program_headers().iter().map(header).collect()
    }
    match file {
        object::File::Elf32(file) => of(file),
        object::File::Elf64(file) => of(file),
        _ => Vec::new(),
    }
}

/// Copies of `.eh_frame` and its search table; `None` if the image has none.
fn copied(image: &MappedImage<'_>, address: usize) -> Result<Option<CfiSource>, ImageError> {
    let Some(header) = image.segments(PT_GNU_EH_FRAME).next() else { return Ok(None) };
    let Some(table) = image.bytes(header.clone()) else { return Ok(None) };
    let rest = |start: u64| image.rest(start as usize);
    search_table::section(&table, header.start as u64, 0, rest, address)
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
        images.push(
            known(&loaded)
                .unwrap_or_else(|| new(loaded.file().display().to_string(), image.code(), loaded)),
        );
        false
    });
    (images, generation)
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests;
