//! The images of the running process and their CFI, as the loader has mapped them.

use std::ffi::CStr;
use std::ops::Range;
use std::path::Path;

use gimli::{BaseAddresses, EhFrameHdr, EndianSlice, LittleEndian};

use super::{Image, ImageError, Source};
use crate::cfi::{FunctionRows, Section, SectionFormat};
use crate::slow::SlowRules;

/// The rows of the functions that lie in `range`, from the image that holds it; rows outside of it
/// are cut off. With them the slow rules that they name.
pub(crate) fn functions(range: Range<usize>) -> Result<(Vec<FunctionRows>, SlowRules), ImageError> {
    let address = range.start;
    let mut result = Err(ImageError::NoImage { address });
    for_each_image(|image, _| {
        let found = image.segments(libc::PT_LOAD).any(|segment| segment.contains(&address));
        if found {
            result = functions_of(image, &range);
        }
        found
    });
    result
}

/// Whether a loaded image holds any of `range`.
pub(crate) fn loaded(range: Range<usize>) -> bool {
    let mut found = false;
    for_each_image(|image, _| {
        found |= image
            .segments(libc::PT_LOAD)
            .any(|segment| segment.start < range.end && range.start < segment.end);
        found
    });
    found
}

/// The program headers of a loaded image.
struct Headers<'a> {
    base: usize,
    headers: &'a [libc::Elf64_Phdr],
}

impl<'a> Headers<'a> {
    /// # Safety
    ///
    /// `info` is what the loader passes to a callback that is running for all of `'a`.
    unsafe fn new(info: &'a libc::dl_phdr_info) -> Headers<'a> {
        let headers = match info.dlpi_phdr.is_null() {
            true => &[],
            // SAFETY: the loader's own array of program headers, valid for the call.
            false => unsafe {
                std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum))
            },
        };
        Headers { base: info.dlpi_addr as usize, headers }
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
        // SAFETY: a loaded segment that holds read-only tables is mapped, readable and unchanging;
        // it stays so while the loader's lock is held, which it is during the callback, that is for
        // `'a`.
        Some(unsafe { std::slice::from_raw_parts(start as *const u8, segment.end - start) })
    }
}

fn functions_of(
    image: &Headers<'_>,
    range: &Range<usize>,
) -> Result<(Vec<FunctionRows>, SlowRules), ImageError> {
    let address = range.start;
    let missing = ImageError::NoCfi { address };
    let header = image.segments(libc::PT_GNU_EH_FRAME).next().ok_or(missing.clone())?;
    let header_bytes = image.bytes(header.start).ok_or(missing.clone())?;
    let malformed = |source| ImageError::Header { address, source };
    let bases = BaseAddresses::default().set_eh_frame_hdr(header.start as u64);
    let parsed = EhFrameHdr::new(header_bytes, LittleEndian).parse(&bases, 8).map_err(malformed)?;
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
) -> Result<(Vec<FunctionRows>, SlowRules), ImageError> {
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
    let mut slow = SlowRules::default();
    for i in low.saturating_sub(1)..count {
        let (start, pointer) = entry(i)?;
        if start >= range.end {
            break;
        }
        let entry = pointer.direct().map_err(malformed)?;
        let offset = entry
            .checked_sub(section_start)
            .ok_or(malformed(gimli::Error::OffsetOutOfBounds(entry)))?
            as usize;
        let function = section.function_at(offset, &mut slow);
        let function = function.map_err(|source| ImageError::Cfi { address, source })?;
        functions.extend(function.clipped(&range));
    }
    Ok((functions, slow))
}

/// How the loader knows an image. Equal for two images only if they are the same mapping of the
/// same file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    base: usize,
    path: String,
    /// The program headers, as address, size and type.
    segments: Vec<(usize, usize, u32)>,
    /// The notes, which hold the build id, if there is one.
    notes: Vec<u8>,
}

impl Loaded {
    fn new(image: &Headers<'_>, info: &libc::dl_phdr_info) -> Loaded {
        let path = match info.dlpi_name.is_null() {
            true => String::new(),
            // SAFETY: the loader's own string, valid for the call.
            false => unsafe { CStr::from_ptr(info.dlpi_name) }.to_string_lossy().into_owned(),
        };
        let segments = image
            .headers
            .iter()
            .map(|header| (header.p_vaddr as usize, header.p_memsz as usize, header.p_type));
        let note =
            |range: Range<usize>| Some(image.bytes(range.start)?.get(..range.len())?.to_vec());
        let notes = image.segments(libc::PT_NOTE).filter_map(note).flatten().collect();
        Loaded { base: image.base, path, segments: segments.collect(), notes }
    }

    /// Copies the image's CFI. The image may have gone meanwhile.
    pub(crate) fn sources(&self, name: &str) -> Result<Vec<Source>, ImageError> {
        let address = self.base;
        let mut found = Err(ImageError::NoImage { address });
        for_each_image(|image, info| {
            if image.base != self.base || Loaded::new(image, info) != *self {
                return false;
            }
            found = copied(image, address);
            true
        });
        match found? {
            Some(source) => Ok(vec![source]),
            // No table of its own: its file may have other CFI.
            None => {
                let Ok(bytes) = super::read(Path::new(name)) else { return Ok(Vec::new()) };
                let file = super::parse(name, &bytes)?;
                super::file_sources(name, &file, self.base, address)
            }
        }
    }
}

/// Copies of `.eh_frame` and its search table; `None` if the image has none.
fn copied(image: &Headers<'_>, address: usize) -> Result<Option<Source>, ImageError> {
    let Some(header) = image.segments(libc::PT_GNU_EH_FRAME).next() else { return Ok(None) };
    let header_bytes = image.bytes(header.start).and_then(|bytes| bytes.get(..header.len()));
    let Some(header_bytes) = header_bytes else { return Ok(None) };
    let malformed = |source| ImageError::Header { address, source };
    let bases = BaseAddresses::default().set_eh_frame_hdr(header.start as u64);
    let parsed = EhFrameHdr::new(header_bytes, LittleEndian).parse(&bases, 8).map_err(malformed)?;
    let start = parsed.eh_frame_ptr().direct().map_err(malformed)? as usize;
    let Some(rest) = image.bytes(start) else { return Ok(None) };
    let bytes = rest[..section_len(rest)].to_vec();
    let bases = bases.set_eh_frame(start as u64);
    let source = Source::new(bytes, SectionFormat::EhFrame, bases, Some(header_bytes.to_vec()), 0);
    source.map(Some).map_err(|source| ImageError::Cfi { address, source })
}

/// The length of an `.eh_frame` section that something else follows: up to its closing zero.
fn section_len(bytes: &[u8]) -> usize {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let mut at = 0;
    loop {
        let len = match word(at) {
            None | Some(0) => return at,
            Some(u32::MAX) => match (word(at + 4), word(at + 8)) {
                (Some(low), Some(high)) => {
                    (u64::from(high) << 32 | u64::from(low)).saturating_add(12)
                }
                _ => return bytes.len(),
            },
            Some(len) => u64::from(len) + 4,
        };
        at = usize::try_from(len)
            .ok()
            .and_then(|len| at.checked_add(len))
            .unwrap_or(bytes.len())
            .min(bytes.len());
    }
}

/// How many images the loader has added and removed so far: it changes with each `dlopen` and
/// `dlclose`.
pub(crate) fn generation() -> (u64, u64) {
    let mut generation = (0, 0);
    for_each_image(|_, info| {
        generation = (info.dlpi_adds, info.dlpi_subs);
        true
    });
    generation
}

/// All images of the process, and the generation that they belong to. Those that `known` finds are
/// taken over.
pub(crate) fn images<T>(
    known: impl Fn(&Loaded) -> Option<T>,
    new: impl Fn(Image) -> T,
) -> (Vec<T>, (u64, u64)) {
    let mut images = Vec::new();
    let mut generation = (0, 0);
    for_each_image(|image, info| {
        generation = (info.dlpi_adds, info.dlpi_subs);
        let loaded = Loaded::new(image, info);
        let executable = image
            .headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0);
        let mut code: Vec<Range<usize>> = executable
            .map(|header| {
                let start = image.base.wrapping_add(header.p_vaddr as usize);
                start..start.saturating_add(header.p_memsz as usize)
            })
            .collect();
        code.sort_by_key(|range| range.start);
        images.push(known(&loaded).unwrap_or_else(|| {
            let name = match &*loaded.path {
                // The program itself has no name.
                "" => std::fs::read_link("/proc/self/exe")
                    .map_or_else(|_| String::new(), |p| p.display().to_string()),
                path => path.into(),
            };
            new(Image::from_process(name, code, loaded))
        }));
        false
    });
    (images, generation)
}

/// Calls `each` for every image, until it says that it has seen enough. The loader's lock is held
/// meanwhile.
fn for_each_image<F: FnMut(&Headers<'_>, &libc::dl_phdr_info) -> bool>(mut each: F) {
    unsafe extern "C" fn call<F: FnMut(&Headers<'_>, &libc::dl_phdr_info) -> bool>(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut libc::c_void,
    ) -> i32 {
        // SAFETY: `for_each_image` passes a callback of this type, which nobody else refers to
        // during the call; the loader passes a valid structure, and keeps the image mapped while
        // the callback runs.
        let (each, info) = unsafe { (&mut *data.cast::<F>(), &*info) };
        // SAFETY: as above.
        let image = unsafe { Headers::new(info) };
        i32::from(each(&image, info))
    }
    // SAFETY: `call` has the type that `dl_iterate_phdr` calls, what panics in it aborts, and
    // `each` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(call::<F>), (&raw mut each).cast()) };
}
