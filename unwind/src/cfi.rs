//! From the bytes of `.eh_frame` to rows of packed rules.

use std::ops::Range;

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindContext, UnwindSection};

use crate::rule::{Rule, Unsupported};

type Reader<'a> = gimli::EndianSlice<'a, LittleEndian>;

/// What is wrong with a section of CFI, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CfiError {
    /// An entry cannot be read.
    #[error("malformed entry behind offset {offset:#x}: {source}")]
    Entry {
        /// Where the last entry that could be read lies in the section.
        offset: usize,
        /// What the reader found.
        source: gimli::Error,
    },
    /// The instructions of a function cannot be evaluated.
    #[error("malformed instructions in the entry at offset {offset:#x}, for pc {pc:#x}: {source}")]
    Instructions {
        /// Where the entry lies in the section.
        offset: usize,
        /// The start of the function.
        pc: u64,
        /// What the reader found.
        source: gimli::Error,
    },
    /// A function covers no code, or wraps around the address space.
    #[error("the entry at offset {offset:#x} covers no code: {start:#x}..{end:#x}")]
    Empty {
        /// Where the entry lies in the section.
        offset: usize,
        /// The start of the function.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// A function lies outside the code that the section is for.
    #[error("the entry at offset {offset:#x} covers {start:#x}..{end:#x}, outside of the code")]
    Outside {
        /// Where the entry lies in the section.
        offset: usize,
        /// The start of the function.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// Two functions overlap.
    #[error("two entries cover pc {pc:#x}")]
    Overlap {
        /// The first pc that both cover.
        pc: u64,
    },
    /// More distinct rules than a table can number.
    #[error("more than 65535 distinct rules")]
    TooManyRules,
}

/// One function's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FunctionRows {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Where each row begins, ascending; the first begins at `start`.
    pub(crate) rows: Vec<(u64, Rule)>,
}

impl FunctionRows {
    /// The part that lies in `range`, if any.
    pub(crate) fn clipped(mut self, range: &Range<u64>) -> Option<FunctionRows> {
        let (start, end) = (self.start.max(range.start), self.end.min(range.end));
        if start >= end {
            return None;
        }
        self.rows.retain(|row| row.0 < end);
        let in_force = self.rows.partition_point(|row| row.0 <= start).saturating_sub(1);
        self.rows.drain(..in_force);
        if let Some(first) = self.rows.first_mut() {
            first.0 = first.0.max(start);
        }
        Some(FunctionRows { start, end, rows: self.rows })
    }
}

/// An `.eh_frame` section, and where it lies in memory if its pointers are relative to themselves.
#[derive(Clone)]
pub(crate) struct Section<'a> {
    frame: EhFrame<Reader<'a>>,
    bases: BaseAddresses,
}

type Fde<'a> = gimli::FrameDescriptionEntry<Reader<'a>>;

impl<'a> Section<'a> {
    /// A section all of whose pointers are absolute.
    pub(crate) fn absolute(bytes: &'a [u8]) -> Section<'a> {
        Section::new(bytes, BaseAddresses::default())
    }

    /// A section that lies at `address`.
    pub(crate) fn at(bytes: &'a [u8], address: u64) -> Section<'a> {
        Section::new(bytes, BaseAddresses::default().set_eh_frame(address))
    }

    fn new(bytes: &'a [u8], bases: BaseAddresses) -> Section<'a> {
        let mut frame = EhFrame::new(bytes, LittleEndian);
        frame.set_address_size(8);
        Section { frame, bases }
    }

    /// Calls `each` for every function of the section and the offset of its entry, in the section's order.
    pub(crate) fn functions(
        &self,
        mut each: impl FnMut(FunctionRows, usize) -> Result<(), CfiError>,
    ) -> Result<(), CfiError> {
        let mut context = UnwindContext::new();
        let mut entries = self.frame.entries(&self.bases);
        let mut offset = 0;
        while let Some(entry) = entries.next().map_err(|source| CfiError::Entry { offset, source })? {
            let partial = match entry {
                CieOrFde::Cie(cie) => {
                    offset = cie.offset();
                    continue;
                }
                CieOrFde::Fde(partial) => partial,
            };
            offset = partial.offset();
            let fde = partial.parse(EhFrame::cie_from_offset).map_err(|source| CfiError::Entry { offset, source })?;
            each(self.rows(&fde, &mut context)?, offset)?;
        }
        Ok(())
    }

    /// The function whose entry lies at `offset`.
    pub(crate) fn function_at(&self, offset: usize) -> Result<FunctionRows, CfiError> {
        let fde = self
            .frame
            .fde_from_offset(&self.bases, offset.into(), EhFrame::cie_from_offset)
            .map_err(|source| CfiError::Entry { offset, source })?;
        self.rows(&fde, &mut UnwindContext::new())
    }

    fn rows(&self, fde: &Fde<'a>, context: &mut UnwindContext<usize>) -> Result<FunctionRows, CfiError> {
        let (offset, start, end) = (fde.offset(), fde.initial_address(), fde.end_address());
        if end <= start {
            return Err(CfiError::Empty { offset, start, end });
        }
        let malformed = |source| CfiError::Instructions { offset, pc: start, source };
        let mut rows: Vec<(u64, Rule)> = Vec::new();
        let mut table = fde.rows(&self.frame, &self.bases, context).map_err(malformed)?;
        while let Some(row) = table.next_row().map_err(malformed)? {
            let rule = if fde.is_signal_trampoline() { Err(Unsupported::SignalFrame) } else { Rule::pack(row) };
            let rule = rule.unwrap_or_else(Rule::unsupported);
            let at = row.start_address();
            if at >= end {
                break;
            }
            match rows.last_mut() {
                Some(last) if last.1 == rule => {}
                Some(last) if last.0 == at => last.1 = rule,
                _ => rows.push((at, rule)),
            }
        }
        Ok(FunctionRows { start, end, rows })
    }
}
