//! Microsoft's format: the images that the loader has mapped. All of it is read by calls that fail
//! where nothing is mapped: an image may go while it is read. What was read of it then is not used,
//! unless its headers are still the same afterwards.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::path::PathBuf;

use object::ReadRef;

use crate::cfi::FunctionRows;
use crate::image::cfi_source::CfiSource;
use crate::image::error::ImageError;
use crate::image::pe_file::Headers;
use crate::image::rule_source::{Extent, RuleSource};
use crate::os;
use crate::rule::CfiRows;
use crate::unwind_info::{CodeSource, FunctionTable, Piece};

/// Bytes of headers that are read at once. Sections begin behind them.
const PAGE: usize = 4096;
/// The most that headers take.
const LARGEST_HEADERS: usize = 16 * PAGE;

/// An image as the loader knows it. Two are equal only if they are the same mapping of the same
/// file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadedImage {
    base: usize,
    headers: Headers,
}

impl LoadedImage {
    /// The one that begins at `base`; `None` if there is none any more, or none of this machine.
    fn new(base: usize) -> Option<LoadedImage> {
        let page = copy(base, PAGE)?;
        let headers = Headers::parse("", &page).or_else(|error| {
            let more = copy(base, LARGEST_HEADERS).ok_or(error)?;
            Headers::parse("", &more)
        });
        Some(LoadedImage { base, headers: headers.ok()? })
    }

    fn all() -> impl Iterator<Item = LoadedImage> {
        os::modules().into_iter().filter_map(LoadedImage::new)
    }

    /// The image that holds `address`.
    pub(crate) fn at(address: usize) -> Result<LoadedImage, ImageError> {
        let found = LoadedImage::all().find(|image| image.range().contains(&address));
        found.ok_or(ImageError::NoImage { address })
    }

    fn range(&self) -> Range<usize> {
        self.base..self.base.saturating_add(self.headers.stamp[1] as usize)
    }

    /// Where it lies in memory.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// The path of its file.
    pub(crate) fn file(&self) -> PathBuf {
        os::module_path(self.base)
    }

    /// Whether `file` is what was loaded: no file that is read for sections is of this format.
    pub(crate) fn is_of<'a, R: ReadRef<'a>>(&self, _file: &object::File<'a, R>) -> bool {
        false
    }

    /// A copy of what is in memory. `None` if it does not lie in the image, or the image has gone
    /// meanwhile.
    pub(crate) fn copy(&self, range: Range<usize>) -> Option<Vec<u8>> {
        let image = self.range();
        if range.start < image.start || range.end > image.end {
            return None;
        }
        let found = copy(range.start, range.end.checked_sub(range.start)?);
        found.filter(|_| self.is_there())
    }

    fn is_there(&self) -> bool {
        LoadedImage::new(self.base).as_ref() == Some(self)
    }

    /// Where its code lies in it, ascending.
    fn code(&self) -> Vec<Range<u32>> {
        let code = self.headers.sections.iter().filter(|section| section.is_code);
        code.map(|section| section.memory.clone()).filter(|range| !range.is_empty()).collect()
    }

    /// Where its code lies in memory, ascending.
    fn code_in_memory(&self) -> Vec<Range<usize>> {
        let place =
            |range: Range<u32>| self.base + range.start as usize..self.base + range.end as usize;
        self.code().into_iter().map(place).collect()
    }

    /// A copy of its table of functions, and of what it says of them.
    fn function_table(&self, source: CodeSource) -> Result<Option<FunctionTable>, ImageError> {
        let address = self.base;
        let piece = |range: Range<u32>| copy(address + range.start as usize, range.len());
        let table = self.headers.function_table("", address as u64, self.code(), source, piece);
        if self.is_there() { table } else { Err(ImageError::NoImage { address }) }
    }

    /// A copy of its code, for one who reads all of it: a look at each place takes much longer.
    /// What cannot be read is left out.
    fn copied_code(&self) -> CodeSource {
        let piece = |range: Range<u32>| {
            let bytes = copy(self.base + range.start as usize, range.len())?;
            Some(Piece { start: range.start, bytes })
        };
        CodeSource::Copied(self.code().into_iter().filter_map(piece).collect())
    }

    /// Copies what it says of its frames. The image may have gone meanwhile.
    pub(crate) fn mapped_source(&self) -> Result<Option<RuleSource>, ImageError> {
        let live = CodeSource::Live(os::read_bytes);
        Ok(self.function_table(live)?.map(RuleSource::Functions))
    }

    /// Nothing is in a file alone.
    pub(crate) fn file_sources(
        &self,
        _name: &str,
        _is_mapped: bool,
    ) -> Result<Vec<CfiSource>, ImageError> {
        Ok(Vec::new())
    }
}

/// A copy of memory of this process; `None` if not all of it can be read.
fn copy(address: usize, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    (os::read_bytes(address, &mut bytes) == len).then_some(bytes)
}

/// The rows of the functions in `range`, from the image that holds it. Rows outside of it are cut
/// off. With them the rows that their rules name.
pub(crate) fn functions(range: Range<usize>) -> Result<(Vec<FunctionRows>, CfiRows), ImageError> {
    let mut unpacked = CfiRows::default();
    let functions = all_functions(range.start, &mut unpacked)?;
    let range = range.start as u64..range.end as u64;
    let clipped = functions.into_iter().filter_map(|function| function.clipped(&range));
    Ok((clipped.collect(), unpacked))
}

fn all_functions(address: usize, unpacked: &mut CfiRows) -> Result<Vec<FunctionRows>, ImageError> {
    let image = LoadedImage::at(address)?;
    let table = image.function_table(image.copied_code())?;
    let table = table.ok_or(ImageError::NoCfi { address })?;
    let mut functions = Vec::new();
    table.functions(unpacked, |function| functions.push(function));
    Ok(functions)
}

/// Whether a loaded image holds any of `range`.
pub(crate) fn holds_any(range: Range<usize>) -> bool {
    let overlaps = |image: LoadedImage| {
        let image = image.range();
        image.start < range.end && range.start < image.end
    };
    LoadedImage::all().any(overlaps)
}

/// The entries that cover `pcs`, in the image that holds `address`; `None` where there is none.
pub(crate) fn extents(address: usize, pcs: &[usize]) -> Result<Vec<Option<Extent>>, ImageError> {
    let functions = all_functions(address, &mut CfiRows::default())?;
    let extent = |pc: &usize| {
        let pc = *pc as u64;
        let number = functions.partition_point(|function| function.start <= pc).checked_sub(1)?;
        let code = functions[number].start as usize..functions[number].end as usize;
        code.contains(&(pc as usize)).then_some(Extent { number, code })
    };
    Ok(pcs.iter().map(extent).collect())
}

/// What is loaded now: how many images, and a number made of all of them. The loader counts
/// nothing.
pub(crate) fn generation() -> (u64, u64) {
    generation_of(&LoadedImage::all().collect::<Vec<_>>())
}

fn generation_of(images: &[LoadedImage]) -> (u64, u64) {
    let mut hasher = DefaultHasher::new();
    for image in images {
        (image.base, image.headers.stamp).hash(&mut hasher);
    }
    (images.len() as u64, hasher.finish())
}

/// All images of the process, and the generation that they belong to. Those that `known` finds are
/// taken over; the others are made by `new` from name, code and image.
pub(crate) fn images<T>(
    known: impl Fn(&LoadedImage) -> Option<T>,
    new: impl Fn(String, Vec<Range<usize>>, LoadedImage) -> T,
) -> (Vec<T>, (u64, u64)) {
    let loaded: Vec<LoadedImage> = LoadedImage::all().collect();
    let generation = generation_of(&loaded);
    let images = loaded.into_iter().map(|image| {
        known(&image).unwrap_or_else(|| {
            new(image.file().display().to_string(), image.code_in_memory(), image)
        })
    });
    (images.collect(), generation)
}
