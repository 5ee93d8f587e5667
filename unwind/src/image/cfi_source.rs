//! One section of an image's CFI, and the search for a pc's entry in it.

use gimli::BaseAddresses;

use super::error::ImageError;
use crate::cfi::{CfiError, Entry, FunctionRows, Section, SectionFormat};
use crate::rule::{CfiRows, PackedRule, UnwindRule};

/// One section of CFI, and how entries in it are found.
#[derive(Debug)]
pub(crate) struct CfiSource {
    bytes: Vec<u8>,
    format: SectionFormat,
    bases: BaseAddresses,
    index: Index,
    /// An address in memory minus the same address in the section.
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

impl CfiSource {
    /// A section. Its entries are found through the search table of `header`, or, without one, by
    /// reading all of them.
    pub(crate) fn new(
        bytes: Vec<u8>,
        format: SectionFormat,
        bases: BaseAddresses,
        header: Option<Vec<u8>>,
        bias: u64,
    ) -> Result<CfiSource, CfiError> {
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
        Ok(CfiSource { bytes, format, bases, index, bias })
    }

    /// Bytes of the section.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn section(&self) -> Section<'_> {
        Section::new(&self.bytes, self.format, self.bases.clone())
    }

    /// The rule for a pc in memory. Nothing is allocated.
    pub(super) fn rule(&self, pc: u64) -> Result<Option<UnwindRule<'_>>, ImageError> {
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

    /// All functions, at their addresses in memory. A function with malformed instructions has no
    /// rows.
    pub(super) fn functions(
        &self,
        unpacked: &mut CfiRows,
        mut each: impl FnMut(FunctionRows),
    ) -> Result<(), CfiError> {
        let mut add = |function: Result<FunctionRows, CfiError>, offset| {
            match function {
                Ok(function) => each(function.moved(self.bias)),
                Err(CfiError::Instructions { .. } | CfiError::Empty { .. }) => {
                    let Entry { start, end, .. } = self.section().entry(offset)?;
                    each(
                        FunctionRows { start, end, rows: vec![(start, PackedRule::NONE)] }
                            .moved(self.bias),
                    );
                }
                Err(error) => return Err(error),
            }
            Ok(())
        };
        match &self.index {
            Index::Header { .. } => self.section().functions(unpacked, add),
            Index::Sorted(entries) => {
                let section = self.section();
                entries.iter().try_for_each(|entry| {
                    add(section.function_at(entry.offset, unpacked), entry.offset)
                })
            }
        }
    }
}

/// The table of an `.eh_frame_hdr` in the one form that linkers write: version 1, a pc-relative
/// pointer, a count of four bytes, entries of two signed words relative to the header. `None` for
/// any other form; the section itself is read then.
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
