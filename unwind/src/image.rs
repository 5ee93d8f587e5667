//! One image, that is an executable or a shared object: where its code lies, and the rule for each
//! pc of it.
//!
//! An image costs little until a pc in it is looked up. Then its CFI is read (for an image of the
//! running process: copied, so that it outlives a `dlclose`), the entry for the pc is found through
//! the search table of `.eh_frame_hdr`, and that entry alone is evaluated. [`Image::compile`] makes
//! tables of all of it.

pub(crate) mod debug_file;
pub(crate) mod process;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gimli::BaseAddresses;
use object::{Object, ObjectSection, ObjectSegment};

use crate::cfi::{CfiError, Entry, FunctionRows, Section, SectionFormat};
use crate::rule::Rule;
use crate::slow::{SlowRules, UnwindRule};
use crate::table::Table;

/// Why the CFI of an image was not found or cannot be used.
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
    /// The CFI has not been read yet, and where it is asked for it cannot be.
    #[error("the CFI of image {image} has not been read yet")]
    NotRead {
        /// The image's name.
        image: String,
    },
    /// The file cannot be read.
    #[error("{path}: {kind}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        kind: std::io::ErrorKind,
    },
    /// The file is no ELF file for x86-64, or a malformed one.
    #[error("image {image}: {source}")]
    Elf {
        /// The image's name.
        image: String,
        /// What the reader found.
        source: object::Error,
    },
    /// A compressed section says that it is far larger than its contents can be.
    #[error("image {image} has a compressed section of an impossible size")]
    Compressed {
        /// The image's name.
        image: String,
    },
    /// The file is for another machine.
    #[error("image {image} is not for x86-64")]
    Machine {
        /// The image's name.
        image: String,
    },
}

/// One section of CFI, and how entries in it are found.
#[derive(Debug)]
pub(crate) struct Source {
    bytes: Vec<u8>,
    format: SectionFormat,
    bases: BaseAddresses,
    index: Index,
    /// What has to be added to an address in the section to get one in memory.
    bias: u64,
}

#[derive(Debug)]
enum Index {
    /// The search table of `.eh_frame_hdr`: start and entry, both relative to the address of the
    /// header.
    Header { address: u64, entries: Vec<(i32, i32)> },
    /// All entries, by start.
    Sorted(Vec<Entry>),
}

impl Source {
    /// A section whose entries are found through `header`, if that has a search table, or by
    /// reading all of them.
    pub(crate) fn new(
        bytes: Vec<u8>,
        format: SectionFormat,
        bases: BaseAddresses,
        header: Option<Vec<u8>>,
        bias: u64,
    ) -> Result<Source, CfiError> {
        let address = bases.eh_frame_hdr.section;
        let index = match header.and_then(|header| Some((address?, search_table(&header)?))) {
            Some((address, entries)) => Index::Header { address, entries },
            None => {
                let mut entries = Section::new(&bytes, format, bases.clone()).entries()?;
                // Linkers leave entries of code that they have dropped, at 0.
                entries.retain(|entry| entry.start < entry.end && entry.start != 0);
                entries.sort();
                Index::Sorted(entries)
            }
        };
        Ok(Source { bytes, format, bases, index, bias })
    }

    fn section(&self) -> Section<'_> {
        Section::new(&self.bytes, self.format, self.bases.clone())
    }

    /// The rule for a pc in memory. Nothing is allocated.
    fn rule(&self, pc: u64) -> Result<Option<UnwindRule<'_>>, ImageError> {
        let address = pc as usize;
        let pc = pc.wrapping_sub(self.bias);
        let offset = match &self.index {
            Index::Header { address: header, entries } => {
                let Ok(relative) = i32::try_from(pc.wrapping_sub(*header) as i64) else {
                    return Ok(None);
                };
                let i = entries.partition_point(|entry| entry.0 <= relative);
                let Some((_, entry)) = i.checked_sub(1).map(|i| entries[i]) else {
                    return Ok(None);
                };
                let start = self.bases.eh_frame.section.unwrap_or(0);
                let entry = header.wrapping_add_signed(entry.into());
                let malformed =
                    ImageError::Header { address, source: gimli::Error::OffsetOutOfBounds(entry) };
                entry.checked_sub(start).ok_or(malformed)? as usize
            }
            Index::Sorted(entries) => {
                let i = entries.partition_point(|entry| entry.start <= pc);
                match i.checked_sub(1).map(|i| entries[i]).filter(|entry| pc < entry.end) {
                    Some(entry) => entry.offset,
                    None => return Ok(None),
                }
            }
        };
        self.section().rule_at(offset, pc).map_err(|source| ImageError::Cfi { address, source })
    }

    /// All functions, at their addresses in memory; those whose instructions are malformed without
    /// rows.
    fn functions(
        &self,
        slow: &mut SlowRules,
        mut each: impl FnMut(FunctionRows),
    ) -> Result<(), CfiError> {
        let mut add = |function: Result<FunctionRows, CfiError>, offset| {
            match function {
                Ok(function) => each(function.moved(self.bias)),
                Err(CfiError::Instructions { .. } | CfiError::Empty { .. }) => {
                    let Entry { start, end, .. } = self.section().entry(offset)?;
                    each(
                        FunctionRows { start, end, rows: vec![(start, Rule::NONE)] }
                            .moved(self.bias),
                    );
                }
                Err(error) => return Err(error),
            }
            Ok(())
        };
        match &self.index {
            Index::Header { .. } => self.section().functions(slow, add),
            Index::Sorted(entries) => {
                let section = self.section();
                entries.iter().try_for_each(|entry| {
                    add(section.function_at(entry.offset, slow), entry.offset)
                })
            }
        }
    }
}

/// The table of an `.eh_frame_hdr` in the one form that linkers write: version 1, a pc-relative
/// pointer, a count of four bytes, entries of two signed words relative to the header. In any other
/// form the section itself is gone through.
fn search_table(header: &[u8]) -> Option<Vec<(i32, i32)>> {
    let (fixed, table) = header.split_first_chunk::<12>()?;
    let [1, 0x1b, 0x03, 0x3b, _, _, _, _, count @ ..] = *fixed else { return None };
    let (words, _) = table.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    let pairs = pairs.get(..u32::from_le_bytes(count) as usize)?;
    Some(
        pairs
            .iter()
            .map(|[start, entry]| (i32::from_le_bytes(*start), i32::from_le_bytes(*entry)))
            .collect(),
    )
}

/// An executable or a shared object.
#[derive(Debug)]
pub struct Image {
    name: String,
    /// Where its executable segments lie in memory, ascending.
    code: Vec<Range<usize>>,
    loaded: Option<process::Loaded>,
    sources: OnceLock<Vec<Source>>,
    /// One for each executable segment.
    tables: OnceLock<Vec<Table>>,
}

impl Image {
    /// An image from the bytes of its ELF file, as it would lie in memory `bias` bytes above the
    /// addresses that the file has. Both kinds of CFI are used, compressed or not; `.eh_frame`
    /// first.
    pub fn from_elf(
        name: impl Into<String>,
        bytes: &[u8],
        bias: usize,
    ) -> Result<Image, ImageError> {
        let name = name.into();
        let file = parse(&name, bytes)?;
        Image::from_files(name, &file, None, bias)
    }

    /// An image from an ELF file, and from the separate debug file that belongs to it by build id
    /// or by `.gnu_debuglink`, if there is one below `debug_directories` (usually `/usr/lib/debug`)
    /// or beside the file.
    pub fn open(
        path: &Path,
        bias: usize,
        debug_directories: &[PathBuf],
    ) -> Result<Image, ImageError> {
        let name = path.display().to_string();
        let bytes = read(path)?;
        let file = parse(&name, &bytes)?;
        let Some(debug_path) = debug_file::find(&file, path, debug_directories) else {
            return Image::from_files(name, &file, None, bias);
        };
        let debug_bytes = read(&debug_path)?;
        let debug = parse(&debug_path.display().to_string(), &debug_bytes)?;
        Image::from_files(name, &file, Some(&debug), bias)
    }

    fn from_files(
        name: String,
        file: &object::File<'_>,
        debug: Option<&object::File<'_>>,
        bias: usize,
    ) -> Result<Image, ImageError> {
        let mut code: Vec<Range<usize>> = file
            .segments()
            .filter(|segment| segment.permissions().executable())
            .filter_map(|segment| {
                // The file's part of it alone: what a malformed header says of memory bounds
                // nothing.
                let (start, len) = (segment.address() as usize, segment.file_range().1 as usize);
                let len =
                    len.min(segment.data().map_or(0, <[u8]>::len)).min(segment.size() as usize);
                let start = start.wrapping_add(bias);
                Some(start..start.checked_add(len)?)
            })
            .filter(|range| !range.is_empty())
            .collect();
        code.sort_by_key(|range| range.start);
        let address = code.first().map_or(0, |range| range.start);
        let mut sources = Vec::new();
        for file in [Some(file), debug].into_iter().flatten() {
            sources.extend(file_sources(&name, file, bias, address)?);
        }
        Ok(Image { name, code, loaded: None, sources: sources.into(), tables: OnceLock::new() })
    }

    /// The name of its file, as far as it is known.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its executable segments lie.
    pub fn code(&self) -> &[Range<usize>] {
        &self.code
    }

    /// Whether one of its executable segments holds `pc`.
    pub fn holds(&self, pc: usize) -> bool {
        self.code.iter().any(|range| range.contains(&pc))
    }

    /// The rule for a pc; `None` if no CFI covers it. Reads the image's CFI if that has not been
    /// done yet.
    pub fn rule(&self, pc: usize) -> Result<Option<UnwindRule<'_>>, ImageError> {
        self.read()?;
        self.rule_if_read(pc)
    }

    /// The rule for a pc, without allocation and without a lock: an error if the CFI has not been
    /// read.
    pub(crate) fn rule_if_read(&self, pc: usize) -> Result<Option<UnwindRule<'_>>, ImageError> {
        let pc = pc as u64;
        if let Some(tables) = self.tables.get() {
            let rule = tables.iter().find_map(|table| table.unwind_rule(pc));
            if rule.is_some() {
                return Ok(rule);
            }
            // Nothing covers it, or its entry is malformed: that is said below.
        }
        // The name is not copied: an error may be made where nothing may be allocated.
        let sources = self.sources.get().ok_or(ImageError::NotRead { image: String::new() })?;
        let mut failure = None;
        for source in sources {
            match source.rule(pc) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Reads the image's CFI, if that has not been done yet: a later look-up, in a signal handler
    /// say, needs neither memory nor a lock.
    pub fn read(&self) -> Result<(), ImageError> {
        if self.sources.get().is_none() {
            let sources = match &self.loaded {
                Some(loaded) => loaded.sources(&self.name)?,
                None => Vec::new(),
            };
            // Another thread may have been faster; both have read the same. Nobody waits for
            // anybody.
            let _ = self.sources.set(sources);
        }
        Ok(())
    }

    /// Whether the two are the same mapping of the same file.
    pub(crate) fn is(&self, loaded: &process::Loaded) -> bool {
        self.loaded.as_ref() == Some(loaded)
    }

    /// Whether it is an image of the running process.
    pub(crate) fn is_of_process(&self) -> bool {
        self.loaded.is_some()
    }

    /// Where it lies and how the loader knows it, for an image of the running process.
    pub(crate) fn from_process(
        name: String,
        code: Vec<Range<usize>>,
        loaded: process::Loaded,
    ) -> Image {
        Image {
            name,
            code,
            loaded: Some(loaded),
            sources: OnceLock::new(),
            tables: OnceLock::new(),
        }
    }

    /// Bytes of CFI that the image has, search tables not counted.
    pub fn cfi_bytes(&self) -> usize {
        self.sources
            .get()
            .map_or(0, |sources| sources.iter().map(|source| source.bytes.len()).sum())
    }

    /// The functions that the CFI describes, by address, the earlier source first where two
    /// describe the same.
    pub fn functions(&self) -> Result<Vec<Range<usize>>, ImageError> {
        let functions = self.all_functions(&mut SlowRules::default())?;
        Ok(functions
            .iter()
            .map(|function| function.start as usize..function.end as usize)
            .collect())
    }

    /// Compiles all of the image's CFI into tables, which later look-ups use, and yields their size
    /// in bytes. It pays where very many distinct functions are met. A function whose entry is
    /// malformed is left out; a look-up in it still says what is wrong.
    pub fn compile(&self) -> Result<usize, ImageError> {
        self.read()?;
        if self.tables.get().is_none() {
            let mut slow = SlowRules::default();
            let functions = self.all_functions(&mut slow)?;
            let address = self.code.first().map_or(0, |range| range.start);
            let tables: Result<Vec<Table>, CfiError> = self
                .code
                .iter()
                .map(|range| {
                    let range = range.start as u64..range.end as u64;
                    let clipped = functions
                        .iter()
                        .filter_map(|function| function.clone().clipped(&range))
                        .collect();
                    Table::build(clipped, slow.clone())
                })
                .collect();
            let _ = self.tables.set(tables.map_err(|source| ImageError::Cfi { address, source })?);
        }
        Ok(self.tables.get().map_or(0, |tables| tables.iter().map(Table::bytes).sum()))
    }

    fn all_functions(&self, slow: &mut SlowRules) -> Result<Vec<FunctionRows>, ImageError> {
        self.read()?;
        let address = self.code.first().map_or(0, |range| range.start);
        let mut functions: Vec<FunctionRows> = Vec::new();
        for source in self.sources.get().into_iter().flatten() {
            let mut more = Vec::new();
            source
                .functions(slow, |function| more.push(function))
                .map_err(|source| ImageError::Cfi { address, source })?;
            // What an earlier source describes, a later one does not change.
            more.retain(|function: &FunctionRows| {
                let i = functions.partition_point(|known| known.end <= function.start);
                functions.get(i).is_none_or(|known| function.end <= known.start)
            });
            more.retain(|function| function.start < function.end);
            functions.append(&mut more);
            functions.sort_by_key(|function| function.start);
            functions.dedup_by_key(|function| function.start);
        }
        Ok(functions)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(|error| ImageError::File { path: path.into(), kind: error.kind() })
}

fn parse<'a>(name: &str, bytes: &'a [u8]) -> Result<object::File<'a>, ImageError> {
    let file = object::File::parse(bytes)
        .map_err(|source| ImageError::Elf { image: name.into(), source })?;
    match (file.format(), file.architecture()) {
        (object::BinaryFormat::Elf, object::Architecture::X86_64) => Ok(file),
        _ => Err(ImageError::Machine { image: name.into() }),
    }
}

/// What deflate can compress at best; CFI is compressed to a third.
const RATIO: u64 = 1032;

/// The sections of CFI of a file; sections without contents, as debug files have them, do not
/// count.
fn file_sources(
    name: &str,
    file: &object::File<'_>,
    bias: usize,
    address: usize,
) -> Result<Vec<Source>, ImageError> {
    let section_start =
        |section: &str| file.section_by_name(section).map_or(0, |section| section.address());
    let contents = |section: &str| -> Result<Option<Vec<u8>>, ImageError> {
        let Some(section) = file.section_by_name(section) else { return Ok(None) };
        if section.kind() == object::SectionKind::UninitializedData {
            return Ok(None);
        }
        let malformed = |source| ImageError::Elf { image: name.into(), source };
        let compressed = section.compressed_data().map_err(malformed)?;
        // What is written there is allocated before it is found to be wrong.
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
            let source = Source::new(bytes, format, bases.clone(), header, bias as u64);
            sources.push(source.map_err(|source| ImageError::Cfi { address, source })?);
        }
    }
    Ok(sources)
}
