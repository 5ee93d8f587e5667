//! The UNWIND_INFO of a region's functions.

use std::ops::Range;

use super::error::RegionError;
use crate::arch::HAS_UNWIND_INFO;
use crate::cfi::FunctionRows;
use crate::os;
use crate::rule::CfiRows;
use crate::unwind_info::{CodeSource, FunctionEntry, FunctionTable, Piece};

/// The UNWIND_INFO of one function of managed code, by which Windows walks x86-64 code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionUnwindInfo {
    /// The address of the function's first byte.
    pub start: usize,
    /// The function's length in bytes.
    pub len: usize,
    /// The information, as compilers emit it: version 1 or 2, without a handler of exceptions, and
    /// chained to no other.
    pub bytes: Vec<u8>,
}

/// Checks what is given for each function.
pub(super) fn check(
    region: &Range<usize>,
    infos: &[FunctionUnwindInfo],
) -> Result<(), RegionError> {
    let mut ranges = Vec::with_capacity(infos.len());
    for &FunctionUnwindInfo { start, len, ref bytes } in infos {
        let wrong = |source| RegionError::UnwindInfo { start, source };
        FunctionTable::check_alone(bytes).map_err(wrong)?;
        let offset = start.checked_sub(region.start);
        let end = offset.and_then(|offset| offset.checked_add(len));
        if len == 0 || end.is_none_or(|end| end > region.len()) {
            return Err(RegionError::UnwindInfoRange { start, len });
        }
        ranges.push((start, len));
    }
    ranges.sort_unstable();
    let overlap = ranges.windows(2).find(|pair| pair[1].0 - pair[0].0 < pair[0].1);
    overlap.map_or(Ok(()), |pair| {
        let (start, len) = pair[1];
        Err(RegionError::UnwindInfoRange { start, len })
    })
}

/// The rows of all functions, and the rows that their rules name. The code is read for epilogues.
pub(super) fn rows(
    region: &Range<usize>,
    infos: &[FunctionUnwindInfo],
) -> (Vec<FunctionRows>, CfiRows) {
    let (mut functions, mut unpacked) = (Vec::new(), CfiRows::default());
    if !HAS_UNWIND_INFO {
        return (functions, unpacked);
    }
    // As if they lay in one piece behind the code. They are checked, so addresses are 32 bits wide.
    let mut entries = Vec::with_capacity(infos.len());
    let first = (region.len() as u32).next_multiple_of(4);
    let mut piece = Piece { start: first, bytes: Vec::new() };
    for info in infos {
        let start = (info.start - region.start) as u32;
        let end = start + info.len as u32;
        entries.push(FunctionEntry { start, end, info: first + piece.bytes.len() as u32 });
        piece.bytes.extend(&info.bytes);
        piece.bytes.resize(piece.bytes.len().next_multiple_of(4), 0);
    }
    let code = Vec::from([Range { start: 0, end: region.len() as u32 }]);
    let live = CodeSource::Live(os::read_bytes);
    let table = FunctionTable::new(region.start as u64, code, entries, vec![piece], live);
    table.functions(&mut unpacked, |function| functions.push(function));
    (functions, unpacked)
}
