//! From the bytes of `.eh_frame` or `.debug_frame` to rows of rules: all rows, or the one for a pc.

mod program;
mod quick;
mod signing;

use std::ops::{ControlFlow, Range};

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, LittleEndian, UnwindOffset, UnwindSection,
};

use crate::arch::{ADDRESS_BITS, ADDRESS_SIZE, CFI_VENDOR};
use crate::rule::{CfiRows, PackedRule, UnwindRule};
use program::Program;

type Reader<'a> = gimli::EndianSlice<'a, LittleEndian>;

/// What is wrong with a section of CFI, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// Code signs its return addresses with key B (arm64 PAC). Key A alone is known.
    #[error(
        "the entry at offset {offset:#x} is that of code that signs its return addresses with \
         key B"
    )]
    KeyB {
        /// Where the entry with the augmentation lies in the section.
        offset: usize,
    },
    /// A function signs its return address together with its own pc (arm64 PAuth_LR).
    #[error(
        "the entry at offset {offset:#x}: the function at {pc:#x} signs its return address with \
         a pc (PAuth_LR)"
    )]
    SignedWithPc {
        /// Where the entry lies in the section.
        offset: usize,
        /// The start of the function.
        pc: u64,
    },
    /// The section is 4 GiB and more.
    #[error("{len:#x} bytes of CFI are too many")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
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
    pub(crate) rows: Vec<(u64, PackedRule)>,
    /// Where the function begins to keep its return address signed, where that ends, and so on.
    pub(crate) signing: Vec<u64>,
}

impl FunctionRows {
    /// Whether the return address is signed at `pc`.
    pub(crate) fn is_signed(&self, pc: u64) -> bool {
        self.signing.partition_point(|at| *at <= pc) % 2 == 1
    }

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
        Some(FunctionRows { start, end, ..self })
    }

    /// The same function, `by` bytes further up.
    pub(crate) fn moved(mut self, by: u64) -> FunctionRows {
        let moved = |at: u64| at.wrapping_add(by) & ADDRESS_BITS;
        (self.start, self.end) = (moved(self.start), moved(self.end));
        self.rows.iter_mut().for_each(|row| row.0 = moved(row.0));
        self.signing.iter_mut().for_each(|at| *at = moved(*at));
        self
    }
}

/// A section of CFI. `bases` say where it lies, for pointers relative to themselves.
#[derive(Clone, Debug)]
pub(crate) struct Section<'a> {
    bytes: &'a [u8],
    format: SectionFormat,
    bases: BaseAddresses,
}

/// Which of the two encodings of CFI a section has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectionFormat {
    EhFrame,
    DebugFrame,
}

/// Where a function's entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: usize,
}

impl Entry {
    /// Whether it covers no code, as those of empty functions.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// Runs `$body` with `$frame` as the section in its format.
macro_rules! with_frame {
    ($section:expr, $frame:ident => $body:expr) => {
        match $section.format {
            SectionFormat::EhFrame => {
                let mut $frame = EhFrame::new($section.bytes, LittleEndian);
                $frame.set_address_size(ADDRESS_SIZE);
                $frame.set_vendor(CFI_VENDOR);
                $body
            }
            SectionFormat::DebugFrame => {
                let mut $frame = DebugFrame::new($section.bytes, LittleEndian);
                $frame.set_address_size(ADDRESS_SIZE);
                $frame.set_vendor(CFI_VENDOR);
                $body
            }
        }
    };
}

impl<'a> Section<'a> {
    /// An `.eh_frame` with absolute pointers only.
    pub(crate) fn absolute(bytes: &'a [u8]) -> Section<'a> {
        Section::new(bytes, SectionFormat::EhFrame, BaseAddresses::default())
    }

    /// An `.eh_frame` that lies at `address`.
    pub(crate) fn at(bytes: &'a [u8], address: u64) -> Section<'a> {
        Section::new(bytes, SectionFormat::EhFrame, BaseAddresses::default().set_eh_frame(address))
    }

    pub(crate) fn new(bytes: &'a [u8], format: SectionFormat, bases: BaseAddresses) -> Section<'a> {
        Section { bytes, format, bases }
    }

    /// Calls `each` for every entry, in the section's order, with its function or what is wrong
    /// with its instructions, and with its offset. Rows that cannot be packed go to `unpacked`.
    pub(crate) fn functions(
        &self,
        unpacked: &mut CfiRows,
        mut each: impl FnMut(Result<FunctionRows, CfiError>, usize) -> Result<(), CfiError>,
    ) -> Result<(), CfiError> {
        self.check_len()?;
        with_frame!(self, frame => visit(&frame, &self.bases, |fde| {
            // An entry of no code says nothing. Linkers leave such of functions that are empty.
            if fde.len() == 0 {
                return Ok(());
            }
            each(rows(&frame, self.bytes, &self.bases, fde, unpacked), fde.offset())
        }))
        .map_err(|error| self.named(error))
    }

    /// The same error, or that of key B where an unknown augmentation is that.
    fn named(&self, error: CfiError) -> CfiError {
        let CfiError::Entry { offset, source: gimli::Error::UnknownAugmentation } = error else {
            return error;
        };
        let is_eh_frame = self.format == SectionFormat::EhFrame;
        signing::of_key_b(self.bytes, is_eh_frame, offset)
            .map_or(error, |offset| CfiError::KeyB { offset })
    }

    /// Rules hold offsets of expressions in 32 bits.
    fn check_len(&self) -> Result<(), CfiError> {
        let len = self.bytes.len();
        if u32::try_from(len).is_ok() { Ok(()) } else { Err(CfiError::TooLarge { len }) }
    }

    /// Where all entries lie, in the section's order. Nothing is evaluated.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, CfiError> {
        let mut entries = Vec::new();
        with_frame!(self, frame => visit(&frame, &self.bases, |fde| {
            let (start, end) = (fde.initial_address(), fde.end_address());
            entries.push(Entry { start, end, offset: fde.offset() });
            Ok(())
        }))?;
        Ok(entries)
    }

    /// What the entry at `offset` covers.
    pub(crate) fn entry(&self, offset: usize) -> Result<Entry, CfiError> {
        with_frame!(self, frame => {
            let fde =
                entry_at(&frame, &self.bases, offset).map_err(|error| self.named(error))?;
            Ok(Entry { start: fde.initial_address(), end: fde.end_address(), offset })
        })
    }

    /// The function whose entry lies at `offset`.
    pub(crate) fn function_at(
        &self,
        offset: usize,
        unpacked: &mut CfiRows,
    ) -> Result<FunctionRows, CfiError> {
        self.check_len()?;
        with_frame!(self, frame => {
            entry_at(&frame, &self.bases, offset)
                .and_then(|fde| rows(&frame, self.bytes, &self.bases, &fde, unpacked))
        })
        .map_err(|error| self.named(error))
    }

    /// The rule for `pc` by the entry at `offset` of such a section, if that can be said at once:
    /// the entry is of the form that compilers write. [`rule_at`](Section::rule_at) says the rest.
    /// Nothing is allocated.
    #[inline]
    pub(crate) fn quick_rule_at(
        bytes: &[u8],
        format: SectionFormat,
        bases: &BaseAddresses,
        offset: usize,
        pc: u64,
    ) -> Option<PackedRule> {
        let is_eh_frame = format == SectionFormat::EhFrame;
        is_eh_frame.then(|| quick::rule_at(bytes, bases.eh_frame.section, offset, pc))?
    }

    /// The rule for `pc` by the entry at `offset`; `None` if that is the entry of other code.
    /// Nothing is allocated.
    pub(crate) fn rule_at(
        &self,
        offset: usize,
        pc: u64,
    ) -> Result<Option<UnwindRule<'a>>, CfiError> {
        match Section::quick_rule_at(self.bytes, self.format, &self.bases, offset, pc) {
            Some(rule) => Ok(Some(UnwindRule::packed(rule))),
            None => self.rule_by_program(offset, pc),
        }
    }

    /// The same, for entries of any form.
    pub(crate) fn rule_by_program(
        &self,
        offset: usize,
        pc: u64,
    ) -> Result<Option<UnwindRule<'a>>, CfiError> {
        self.check_len()?;
        with_frame!(self, frame => {
            let fde =
                entry_at(&frame, &self.bases, offset).map_err(|error| self.named(error))?;
            if !fde.contains(pc) {
                return Ok(None);
            }
            let start = fde.initial_address();
            let row = Program::new(&frame, self.bytes, &self.bases, &fde)
                .and_then(|program| program.row_at(pc))
                .map_err(|source| malformed(offset, start, source))?;
            Ok(Some(match PackedRule::pack(&row, self.bytes) {
                Ok(rule) => UnwindRule::packed(rule),
                Err(_) => UnwindRule::row(row, self.bytes),
            }))
        })
    }
}

fn malformed(offset: usize, pc: u64, source: gimli::Error) -> CfiError {
    if signing::is_with_pc(&source) {
        CfiError::SignedWithPc { offset, pc }
    } else {
        CfiError::Instructions { offset, pc, source }
    }
}

type Fde<'a> = gimli::FrameDescriptionEntry<Reader<'a>>;

fn entry_at<'a, S: UnwindSection<Reader<'a>>>(
    frame: &S,
    bases: &BaseAddresses,
    offset: usize,
) -> Result<Fde<'a>, CfiError>
where
    S::Offset: UnwindOffset<usize>,
{
    frame
        .fde_from_offset(bases, offset.into(), S::cie_from_offset)
        .map_err(|source| CfiError::Entry { offset, source })
}

fn visit<'a, S: UnwindSection<Reader<'a>>>(
    frame: &S,
    bases: &BaseAddresses,
    mut each: impl FnMut(&Fde<'a>) -> Result<(), CfiError>,
) -> Result<(), CfiError> {
    let mut entries = frame.entries(bases);
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
        let fde = partial
            .parse(S::cie_from_offset)
            .map_err(|source| CfiError::Entry { offset, source })?;
        each(&fde)?;
    }
    Ok(())
}

fn rows<'a, S: UnwindSection<Reader<'a>>>(
    frame: &S,
    section: &'a [u8],
    bases: &'a BaseAddresses,
    fde: &Fde<'a>,
    unpacked: &mut CfiRows,
) -> Result<FunctionRows, CfiError>
where
    S::Offset: UnwindOffset<usize>,
{
    let (offset, start, end) = (fde.offset(), fde.initial_address(), fde.end_address());
    if end <= start {
        return Err(CfiError::Empty { offset, start, end });
    }
    let malformed = |source| malformed(offset, start, source);
    let (mut rows, mut signing) = (Vec::<(u64, PackedRule)>::new(), Vec::new());
    let program = Program::new(frame, section, bases, fde).map_err(malformed)?;
    let add = |at: u64, row: &_, signed: bool| {
        if at >= end {
            return ControlFlow::Break(());
        }
        if signed != (signing.len() % 2 == 1) {
            signing.push(at);
        }
        let rule = PackedRule::pack(row, section)
            .unwrap_or_else(|why| PackedRule::row(why, unpacked.add(row, section)));
        match rows.last_mut() {
            Some(last) if last.1 == rule => {}
            Some(last) if last.0 == at => last.1 = rule,
            _ => rows.push((at, rule)),
        }
        ControlFlow::Continue(())
    };
    program.rows(add).map_err(malformed)?;
    Ok(FunctionRows { start, end, rows, signing })
}
