//! The CFI of the program's own images, as the loader has mapped them.

use std::ops::Range;

use gimli::{BaseAddresses, EhFrameHdr, EndianSlice, LittleEndian};

use crate::cfi::{CfiError, FunctionRows, Section};

/// Why the CFI of a range of native code was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No image that the loader knows has code at the address.
    #[error("no loaded image holds {address:#x}")]
    NoImage {
        /// The address.
        address: usize,
    },
    /// The image has no `.eh_frame_hdr`, or one without a search table.
    #[error("the image that holds {address:#x} has no table of its CFI")]
    NoCfi {
        /// The address.
        address: usize,
    },
    /// The image's `.eh_frame_hdr` cannot be read.
    #[error("the table of CFI of the image that holds {address:#x} is malformed: {source}")]
    Header {
        /// The address.
        address: usize,
        /// What the reader found.
        source: gimli::Error,
    },
    /// The image's CFI cannot be read.
    #[error("the CFI of the image that holds {address:#x}: {source}")]
    Cfi {
        /// The address.
        address: usize,
        /// What is wrong.
        source: CfiError,
    },
}

/// The rows of the functions that lie in `range`, from the image that holds it; rows outside of it are cut off.
pub(crate) fn functions(range: Range<usize>) -> Result<Vec<FunctionRows>, ImageError> {
    let mut search = Search { result: Err(ImageError::NoImage { address: range.start }), range };
    // SAFETY: `visit` has the type that `dl_iterate_phdr` calls, it does not unwind out (nothing in it panics on any
    // input; if it did, `extern "C"` aborts), and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.result
}

/// Whether a loaded image holds any of `range`.
pub(crate) fn loaded(range: Range<usize>) -> bool {
    let mut search = (range, false);
    // SAFETY: as in `functions`.
    unsafe { libc::dl_iterate_phdr(Some(visit_loaded), (&raw mut search).cast()) };
    search.1
}

unsafe extern "C" fn visit_loaded(info: *mut libc::dl_phdr_info, _size: usize, data: *mut libc::c_void) -> i32 {
    // SAFETY: `loaded` passes this type, and nobody else refers to it during the call.
    let (range, found) = unsafe { &mut *data.cast::<(Range<usize>, bool)>() };
    // SAFETY: the loader passes a valid structure.
    let image = unsafe { Image::new(&*info) };
    *found |= image.segments(libc::PT_LOAD).any(|segment| segment.start < range.end && range.start < segment.end);
    i32::from(*found)
}

/// The program headers of a loaded image.
struct Image<'a> {
    base: usize,
    headers: &'a [libc::Elf64_Phdr],
}

impl<'a> Image<'a> {
    /// # Safety
    ///
    /// `info` is what the loader passes to a callback that is running for all of `'a`.
    unsafe fn new(info: &'a libc::dl_phdr_info) -> Image<'a> {
        let headers = match info.dlpi_phdr.is_null() {
            true => &[],
            // SAFETY: the loader's own array of program headers, valid for the call.
            false => unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) },
        };
        Image { base: info.dlpi_addr as usize, headers }
    }

    /// Where its segments of a type lie.
    fn segments(&self, kind: u32) -> impl Iterator<Item = Range<usize>> {
        self.headers.iter().filter(move |header| header.p_type == kind).map(|header| {
            let start = self.base.wrapping_add(header.p_vaddr as usize);
            start..start.wrapping_add(header.p_memsz as usize)
        })
    }

    /// The bytes from `start` to the end of the segment that holds it.
    fn bytes(&self, start: usize) -> Option<&'a [u8]> {
        let segment = self.segments(libc::PT_LOAD).find(|segment| segment.contains(&start))?;
        // SAFETY: a loaded segment that holds read-only tables is mapped, readable and unchanging; it stays so while
        // the loader's lock is held, which it is during the callback, that is for `'a`.
        Some(unsafe { std::slice::from_raw_parts(start as *const u8, segment.end - start) })
    }
}

struct Search {
    range: Range<usize>,
    result: Result<Vec<FunctionRows>, ImageError>,
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, data: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `functions` passes a `Search` that nobody else refers to during the call.
    let search = unsafe { &mut *data.cast::<Search>() };
    // SAFETY: the loader passes a valid structure, and keeps the image mapped while the callback runs.
    let image = unsafe { Image::new(&*info) };
    let address = search.range.start;
    if !image.segments(libc::PT_LOAD).any(|segment| segment.contains(&address)) {
        return 0;
    }
    search.result = (|| {
        let missing = ImageError::NoCfi { address };
        let header = image.segments(libc::PT_GNU_EH_FRAME).next().ok_or(missing.clone())?;
        let header_bytes = image.bytes(header.start).ok_or(missing.clone())?;
        let malformed = |source| ImageError::Header { address, source };
        let bases = BaseAddresses::default().set_eh_frame_hdr(header.start as u64);
        let parsed = EhFrameHdr::new(header_bytes, LittleEndian).parse(&bases, 8).map_err(malformed)?;
        let section_start = parsed.eh_frame_ptr().direct().map_err(malformed)? as usize;
        let section = Section::at(image.bytes(section_start).ok_or(missing.clone())?, section_start as u64);
        let table = parsed.table().ok_or(missing)?;
        collect(&table, &bases, &section, &search.range)
    })();
    1
}

type Table<'a, 'd> = gimli::EhHdrTable<'a, EndianSlice<'d, LittleEndian>>;

fn collect(
    table: &Table<'_, '_>,
    bases: &BaseAddresses,
    section: &Section<'_>,
    range: &Range<usize>,
) -> Result<Vec<FunctionRows>, ImageError> {
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
    for i in low.saturating_sub(1)..count {
        let (start, pointer) = entry(i)?;
        if start >= range.end {
            break;
        }
        let offset = table.pointer_to_offset(pointer).map_err(malformed)?.0;
        let function = section.function_at(offset).map_err(|source| ImageError::Cfi { address, source })?;
        functions.extend(function.clipped(&range));
    }
    Ok(functions)
}
