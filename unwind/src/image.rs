//! An image (an executable or a shared object): where its code lies, and the rule for each pc.
//!
//! An image costs little until a pc in it is looked up. The first look-up reads its CFI. For an
//! image of the running process it copies the CFI, which so outlives a `dlclose`. A look-up finds
//! the entry for the pc through the search table of `.eh_frame_hdr` and evaluates that entry alone.
//! [`Image::compile`] makes tables of all entries.

pub(crate) mod cfi_source;
pub(crate) mod contents;
pub(crate) mod debug_file;
pub(crate) mod elf_file;
pub(crate) mod error;
pub(crate) mod pe_file;
pub(crate) mod relocatable;
pub(crate) mod rule_source;
pub(crate) mod search_table;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::cfi::{CfiError, FunctionRows};
use crate::os_images::LoadedImage;
use crate::rule::{CfiRows, PackedRule, UnwindRule};
use crate::rule_table::RuleTable;
use cfi_source::CfiSource;
use elf_file::{cfi_sources, is_pe, parse, read};
pub use error::ImageError;
use relocatable::Layout;
use rule_source::RuleSource;

/// An executable or a shared object.
#[derive(Debug)]
pub struct Image {
    name: String,
    /// Where its executable segments lie in memory, ascending.
    code: Vec<Range<usize>>,
    loaded: Option<LoadedImage>,
    layout: Layout,
    /// The sections of CFI that are in memory, or those of a file that is no image of the process.
    sources: OnceLock<Vec<RuleSource>>,
    /// Those that only the file and the debug file of an image of the process have.
    more: OnceLock<Vec<RuleSource>>,
    /// One for each executable segment.
    tables: OnceLock<Vec<RuleTable>>,
}

impl Image {
    /// An image from the bytes of its ELF file. It lies `bias` bytes above the addresses in the
    /// file. `.eh_frame` and then `.debug_frame` are used, compressed or not, by section or by
    /// program headers. An object file is laid out and relocated first: see
    /// [`section_address`](Image::section_address).
    ///
    /// # Errors
    ///
    /// The file is malformed or for another architecture, or its CFI cannot be read.
    pub fn from_elf(
        name: impl Into<String>,
        bytes: &[u8],
        bias: usize,
    ) -> Result<Image, ImageError> {
        let name = name.into();
        let file = parse(&name, bytes)?;
        Image::from_files(name, &file, None, bias)
    }

    /// An image from the bytes of a file in Microsoft's format (PE32+), a DLL for example. It lies
    /// `bias` bytes above the addresses in the file, its image base included. Its table of
    /// functions (`.pdata`) is used, with their UNWIND_INFO of version 1 or 2, and their code,
    /// which says where epilogues are. Code without an entry there keeps all registers, and has
    /// its return address on top of the stack: so the format has it. CFI in such a file is not
    /// used.
    ///
    /// On a system with another convention of calls, the registers that only the format's keeps
    /// are known where a frame has saved them.
    ///
    /// # Errors
    ///
    /// The file is malformed or for another architecture.
    pub fn from_pe(
        name: impl Into<String>,
        bytes: &[u8],
        bias: usize,
    ) -> Result<Image, ImageError> {
        let name = name.into();
        let (code, functions) = pe_file::of_file(&name, bytes, bias)?;
        let mut image = Image::from_process(name, code, None);
        let sources: Vec<_> = functions.into_iter().map(RuleSource::Functions).collect();
        (image.sources, image.more) = (sources.into(), Vec::new().into());
        Ok(image)
    }

    /// An image from an ELF file and its separate debug file, if there is one. The debug file is
    /// found by build id or `.gnu_debuglink`, below `debug_directories` (usually `/usr/lib/debug`)
    /// or beside the file. A file in Microsoft's format is taken as by [`from_pe`](Image::from_pe).
    ///
    /// # Errors
    ///
    /// A file cannot be read, is malformed or for another architecture, or has unreadable CFI.
    pub fn open(
        path: &Path,
        bias: usize,
        debug_directories: &[PathBuf],
    ) -> Result<Image, ImageError> {
        let name = path.display().to_string();
        let bytes = read(path)?;
        if is_pe(&bytes) {
            return Image::from_pe(name, &bytes, bias);
        }
        let file = parse(&name, &*bytes)?;
        let Some(debug_path) = debug_file::find(&file, path, debug_directories) else {
            return Image::from_files(name, &file, None, bias);
        };
        let debug_bytes = read(&debug_path)?;
        let debug = parse(&debug_path.display().to_string(), &*debug_bytes)?;
        Image::from_files(name, &file, Some(&debug), bias)
    }

    fn from_files(
        name: String,
        file: &object::File<'_>,
        debug: Option<&object::File<'_>>,
        bias: usize,
    ) -> Result<Image, ImageError> {
        let layout = Layout::new(file);
        let code = elf_file::code(file, &layout, bias);
        let address = code.first().map_or(0, |range| range.start);
        let mut sources = cfi_sources(&name, file, &layout, bias, address, false)?;
        if let Some(debug) = debug {
            sources.extend(cfi_sources(&name, debug, &layout, bias, address, false)?);
        }
        let sources: Vec<_> = sources.into_iter().map(RuleSource::Cfi).collect();
        let mut image = Image::from_process(name, code, None);
        (image.layout, image.sources, image.more) = (layout, sources.into(), Vec::new().into());
        Ok(image)
    }

    /// The name of its file; empty if it is not known.
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
    ///
    /// # Errors
    ///
    /// The image's CFI, or the entry for the pc, cannot be used.
    pub fn rule(&self, pc: usize) -> Result<Option<UnwindRule<'_>>, ImageError> {
        self.read_mapped()?;
        match self.rule_if_read(pc) {
            // Files are opened only for code that the loaded CFI leaves out.
            Ok(None) if self.more.get().is_none() && self.holds(pc) => {
                self.read()?;
                self.rule_if_read(pc)
            }
            found => found,
        }
    }

    /// The rule for a pc, if the CFI has been read and says it at once: a simple rule, by an entry
    /// of the form that compilers write. Nothing is allocated, and no lock is taken.
    pub(crate) fn quick_rule(&self, pc: usize) -> Option<PackedRule> {
        let pc = pc as u64;
        if let Some(tables) = self.tables.get() {
            let mut rules = tables.iter().map(|table| table.rule(pc));
            return rules.find(|rule| rule.simple().is_some());
        }
        // A later source counts only where the first says nothing.
        self.sources.get()?.first()?.quick_rule(pc)
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
            // No entry covers it, or its entry is malformed. The search below tells which.
        }
        // The name is not copied: a signal handler may not allocate.
        self.sources.get().ok_or(ImageError::NotRead { image: String::new() })?;
        let mut failure = None;
        for source in self.all_sources() {
            match source.rule(pc) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Reads the image's CFI, if that has not been done yet. Later look-ups, in a signal handler
    /// for example, then need neither memory nor a lock.
    ///
    /// # Errors
    ///
    /// The image is gone, or its CFI cannot be read.
    pub fn read(&self) -> Result<(), ImageError> {
        self.read_mapped()?;
        if self.more.get().is_none() {
            let is_mapped = self.sources.get().is_some_and(|sources| !sources.is_empty());
            let more = match &self.loaded {
                Some(loaded) => loaded.file_sources(&self.name, is_mapped),
                None => Ok(Vec::new()),
            };
            // With CFI in memory, a broken file is as good as none.
            let more = if is_mapped { more.unwrap_or_default() } else { more? };
            let more = more.into_iter().map(RuleSource::Cfi).collect();
            // Another thread may have been faster. Both have read the same, and neither waits.
            let _ = self.more.set(more);
        }
        Ok(())
    }

    /// Copies the CFI that is in memory.
    fn read_mapped(&self) -> Result<(), ImageError> {
        if self.sources.get().is_none() {
            let source = match &self.loaded {
                Some(loaded) => loaded.mapped_source()?,
                None => None,
            };
            let _ = self.sources.set(source.into_iter().collect());
        }
        Ok(())
    }

    fn all_sources(&self) -> impl Iterator<Item = &RuleSource> {
        self.sources.get().into_iter().chain(self.more.get()).flatten()
    }

    /// Whether the two are the same mapping of the same file.
    pub(crate) fn is(&self, loaded: &LoadedImage) -> bool {
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
        loaded: Option<LoadedImage>,
    ) -> Image {
        Image {
            name,
            code,
            loaded,
            layout: Layout::default(),
            sources: OnceLock::new(),
            more: OnceLock::new(),
            tables: OnceLock::new(),
        }
    }

    /// Where a section of an object file lies, the bias not added. `None` for other files, whose
    /// sections have addresses of their own, and for sections that are not loaded. The sections lie
    /// one behind the other, from 0x1000 on.
    pub fn section_address(&self, index: usize) -> Option<usize> {
        self.layout.of(object::SectionIndex(index)).map(|address| address as usize)
    }

    /// The sections of CFI: bytes, whether it is a `.debug_frame`, where things lie, and the bias.
    /// For `inspect`, which compares them with what they have become.
    #[doc(hidden)]
    pub fn cfi_sections(
        &self,
    ) -> impl Iterator<Item = (&[u8], bool, &gimli::BaseAddresses, usize)> {
        self.all_sources().filter_map(RuleSource::cfi).map(CfiSource::parts)
    }

    /// Bytes of CFI or of UNWIND_INFO that the image has, search tables not counted.
    pub fn cfi_bytes(&self) -> usize {
        self.all_sources().map(RuleSource::bytes).sum()
    }

    /// The functions that the CFI describes, by address. Where two sections describe the same
    /// function, the earlier one counts.
    ///
    /// # Errors
    ///
    /// The image's CFI cannot be read.
    pub fn functions(&self) -> Result<Vec<Range<usize>>, ImageError> {
        let functions = self.all_functions(&mut CfiRows::default())?;
        Ok(functions
            .iter()
            .map(|function| function.start as usize..function.end as usize)
            .collect())
    }

    /// Compiles all of the image's CFI into tables, which later look-ups use. Yields their size in
    /// bytes. It pays where traces meet very many distinct functions. A function with a malformed
    /// entry is left out; a look-up in it still says what is wrong.
    ///
    /// # Errors
    ///
    /// The image's CFI cannot be read, or its functions overlap.
    pub fn compile(&self) -> Result<usize, ImageError> {
        self.read()?;
        if self.tables.get().is_none() {
            let mut unpacked = CfiRows::default();
            let functions = self.all_functions(&mut unpacked)?;
            let address = self.code.first().map_or(0, |range| range.start);
            let tables: Result<Vec<RuleTable>, CfiError> = self
                .code
                .iter()
                .map(|range| {
                    let range = range.start as u64..range.end as u64;
                    let clipped = functions
                        .iter()
                        .filter_map(|function| function.clone().clipped(&range))
                        .collect();
                    RuleTable::build(clipped, unpacked.clone())
                })
                .collect();
            let _ = self.tables.set(tables.map_err(|source| ImageError::Cfi { address, source })?);
        }
        Ok(self.tables.get().map_or(0, |tables| tables.iter().map(RuleTable::bytes).sum()))
    }

    fn all_functions(&self, unpacked: &mut CfiRows) -> Result<Vec<FunctionRows>, ImageError> {
        self.read()?;
        let address = self.code.first().map_or(0, |range| range.start);
        let mut functions: Vec<FunctionRows> = Vec::new();
        for source in self.all_sources() {
            let mut more = Vec::new();
            source
                .functions(unpacked, |function| more.push(function))
                .map_err(|source| ImageError::Cfi { address, source })?;
            // A later source does not change what an earlier one describes.
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
