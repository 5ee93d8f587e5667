//! One section of an image's CFI, and the search for a pc's entry in it.

use gimli::BaseAddresses;

use super::error::ImageError;
use crate::arch::ADDRESS_BITS;
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
    Header { address: u64, entries: Vec<(i32, i32)>, pages: Pages },
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
            Some((address, entries)) => {
                let pages = Pages::of(&entries);
                Index::Header { address, entries, pages }
            }
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

    /// The section, whether it is a `.debug_frame`, its bases and its bias.
    pub(crate) fn parts(&self) -> (&[u8], bool, &BaseAddresses, usize) {
        let is_debug = self.format == SectionFormat::DebugFrame;
        (&self.bytes, is_debug, &self.bases, self.bias as usize)
    }

    fn section(&self) -> Section<'_> {
        Section::new(&self.bytes, self.format, self.bases.clone())
    }

    /// The address in the section of an address in memory. Biases may be negative.
    fn in_section(&self, address: u64) -> u64 {
        address.wrapping_sub(self.bias) & ADDRESS_BITS
    }

    /// The rule for a pc in memory, if that can be said at once: see
    /// [`Section::quick_rule_at`]. Nothing is allocated.
    pub(crate) fn quick_rule(&self, pc: u64) -> Option<PackedRule> {
        let pc = self.in_section(pc);
        let offset = match &self.index {
            Index::Header { address, entries, pages } => {
                let relative = i32::try_from(pc.wrapping_sub(*address) as i64).ok()?;
                let last = pages.behind(entries, relative).checked_sub(1)?;
                let entry = from_header(*address, entries.get(last)?.1);
                entry.checked_sub(self.bases.eh_frame.section?)? as usize
            }
            Index::Sorted(entries) => {
                let i = entries.partition_point(|entry| entry.start <= pc);
                entries[i.checked_sub(1)?].offset
            }
        };
        Section::quick_rule_at(&self.bytes, self.format, &self.bases, offset, pc)
    }

    /// The rule for a pc in memory. Nothing is allocated.
    pub(crate) fn rule(&self, pc: u64) -> Result<Option<UnwindRule<'_>>, ImageError> {
        let address = pc as usize;
        let failed = |source| ImageError::Cfi { address, source };
        let pc = self.in_section(pc);
        let offset = match &self.index {
            Index::Header { address: header, entries, pages } => {
                let Ok(relative) = i32::try_from(pc.wrapping_sub(*header) as i64) else {
                    return Ok(None);
                };
                let behind = pages.behind(entries, relative);
                let start = self.bases.eh_frame.section.unwrap_or(0);
                for (_, entry) in entries[..behind].iter().rev() {
                    let entry = from_header(*header, *entry);
                    let source = gimli::Error::OffsetOutOfBounds(entry);
                    let malformed = ImageError::Header { address, source };
                    let offset = entry.checked_sub(start).ok_or(malformed)? as usize;
                    let rule = self.section().rule_at(offset, pc).map_err(failed)?;
                    // An empty function's entry may lie in front of the one that covers the pc.
                    if rule.is_some() || !self.section().entry(offset).map_err(failed)?.is_empty() {
                        return Ok(rule);
                    }
                }
                return Ok(None);
            }
            Index::Sorted(entries) => {
                let i = entries.partition_point(|entry| entry.start <= pc);
                match i.checked_sub(1).map(|i| entries[i]).filter(|entry| pc < entry.end) {
                    Some(entry) => entry.offset,
                    None => return Ok(None),
                }
            }
        };
        self.section().rule_at(offset, pc).map_err(failed)
    }

    /// All functions, at their addresses in memory. A function with malformed instructions has no
    /// rows.
    pub(crate) fn functions(
        &self,
        unpacked: &mut CfiRows,
        mut each: impl FnMut(FunctionRows),
    ) -> Result<(), CfiError> {
        let mut add = |function: Result<FunctionRows, CfiError>, offset| {
            match function {
                Ok(function) => each(function.moved(self.bias)),
                Err(
                    CfiError::Instructions { .. }
                    | CfiError::SignedWithPc { .. }
                    | CfiError::Empty { .. },
                ) => {
                    let Entry { start, end, .. } = self.section().entry(offset)?;
                    let rows = vec![(start, PackedRule::NONE)];
                    each(FunctionRows { start, end, rows, signing: vec![] }.moved(self.bias));
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

/// The address of what a search table says lies so far from its header.
fn from_header(header: u64, relative: i32) -> u64 {
    header.wrapping_add_signed(i64::from(relative)) & ADDRESS_BITS
}

/// How many entries of a search table begin below each page of code. A search then has a few
/// entries to look at. Without pages it looks at all.
#[derive(Debug, Default)]
struct Pages {
    first: i32,
    shift: u32,
    below: Box<[u32]>,
}

/// Entries on a page, on average.
const ENTRIES: usize = 4;

impl Pages {
    /// Those of a table. A table that does not ascend has none.
    fn of(entries: &[(i32, i32)]) -> Pages {
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else {
            return Pages::default();
        };
        if entries.len() < 4 * ENTRIES || !entries.is_sorted_by_key(|entry| entry.0) {
            return Pages::default();
        }
        let size = last.wrapping_sub(*first) as u32;
        let least = size / (entries.len() / ENTRIES) as u32;
        let shift = u32::BITS - least.leading_zeros();
        let count = (u64::from(size) >> shift) as usize + 1;
        let mut below = Vec::with_capacity(count + 1);
        let mut so_far = 0;
        for page in 0..=count as u64 {
            let begins = |entry: &(i32, i32)| u64::from(entry.0.wrapping_sub(*first) as u32);
            while entries.get(so_far).is_some_and(|entry| begins(entry) < page << shift) {
                so_far += 1;
            }
            below.push(so_far as u32);
        }
        Pages { first: *first, shift, below: below.into_boxed_slice() }
    }

    /// How many entries begin at `relative` or below.
    #[inline]
    fn behind(&self, entries: &[(i32, i32)], relative: i32) -> usize {
        let page = (u64::from(relative.wrapping_sub(self.first) as u32) >> self.shift) as usize;
        let bounds = match self.below.get(page..) {
            Some([low, high, ..]) if relative >= self.first => *low as usize..*high as usize,
            _ => 0..entries.len(),
        };
        let low = bounds.start;
        let on_page = entries.get(bounds).unwrap_or(&[]);
        low + on_page.partition_point(|entry| entry.0 <= relative)
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

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use gimli::write::{
        Address, CallFrameInstruction as Cfi, CommonInformationEntry, EhFrame, EndianVec,
        FrameDescriptionEntry, FrameTable,
    };
    use gimli::{Encoding, Format, LittleEndian};

    use super::*;
    use crate::arch::{ADDRESS_SIZE, RETURN_ADDRESS, STACK_POINTER, WORD};

    const HEADER: u64 = 0x8000;
    const SECTION: u64 = 0x9000;

    /// Some linkers leave the entries of empty functions in the search table, before or behind the
    /// entry of the function that lies there.
    #[test]
    fn entries_of_no_bytes_in_the_search_table_hide_no_function() {
        // Start and length; in the table in this order.
        let functions = [
            (0x1000, 0x100),
            (0x1000, 0),
            (0x1080, 0),
            (0x1100, 0),
            (0x1100, 0x100),
            (0x1200, 0),
            (0x1200, 0),
        ];
        let mut table = FrameTable::default();
        let encoding = Encoding { format: Format::Dwarf32, version: 1, address_size: ADDRESS_SIZE };
        let mut cie = CommonInformationEntry::new(encoding, 1, -(WORD as i8), RETURN_ADDRESS);
        cie.add_instruction(Cfi::Cfa(STACK_POINTER, WORD as i32));
        cie.add_instruction(Cfi::Offset(RETURN_ADDRESS, -(WORD as i32)));
        let cie = table.add_cie(cie);
        for (start, len) in functions {
            table.add_fde(cie, FrameDescriptionEntry::new(Address::Constant(start), len));
        }
        let mut section = EhFrame::from(EndianVec::new(LittleEndian));
        table.write_eh_frame(&mut section).expect("absolute addresses");
        let bytes = section.0.into_vec();
        let bases = BaseAddresses::default().set_eh_frame(SECTION).set_eh_frame_hdr(HEADER);
        let entries = Section::new(&bytes, SectionFormat::EhFrame, bases.clone()).entries();
        let entries = entries.expect("well formed");
        let mut header = vec![1, 0x1b, 0x03, 0x3b, 0, 0, 0, 0];
        header.extend((functions.len() as u32).to_le_bytes());
        for ((start, _), entry) in functions.iter().zip(&entries) {
            let address = SECTION + entry.offset as u64;
            for word in [*start, address] {
                header.extend((word.wrapping_sub(HEADER) as i32).to_le_bytes());
            }
        }
        let source = CfiSource::new(bytes, SectionFormat::EhFrame, bases, Some(header), 0);
        let source = source.expect("well formed");
        assert!(matches!(source.index, Index::Header { .. }));
        for pc in 0xf00..0x1300 {
            let rule = source.rule(pc).expect("well formed");
            assert_eq!(rule.is_some(), (0x1000..0x1200).contains(&pc), "{pc:#x}");
        }
    }
}
