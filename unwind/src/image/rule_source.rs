//! What an image says of its frames: a section of CFI, or a table of functions with UNWIND_INFO.

use std::ops::Range;

use super::cfi_source::CfiSource;
use super::error::ImageError;
use crate::cfi::{CfiError, FunctionRows};
use crate::rule::{CfiRows, PackedRule, UnwindRule};
use crate::unwind_info::FunctionTable;

/// What one entry of an image's CFI, or of its table of functions, covers.
#[derive(Debug)]
pub(crate) struct Extent {
    /// Entries are numbered by ascending addresses.
    pub(crate) number: usize,
    pub(crate) code: Range<usize>,
}

/// A part of an image that says how the callers of its frames are found.
#[derive(Debug)]
pub(crate) enum RuleSource {
    Cfi(CfiSource),
    Functions(FunctionTable),
}

impl RuleSource {
    /// The rule for a pc in memory, if that can be said at once. Nothing is allocated.
    pub(crate) fn quick_rule(&self, pc: u64) -> Option<PackedRule> {
        match self {
            RuleSource::Cfi(source) => source.quick_rule(pc),
            RuleSource::Functions(table) => table.rule(pc).ok()??.as_packed(),
        }
    }

    /// The rule for a pc in memory. Nothing is allocated.
    pub(crate) fn rule(&self, pc: u64) -> Result<Option<UnwindRule<'_>>, ImageError> {
        match self {
            RuleSource::Cfi(source) => source.rule(pc),
            RuleSource::Functions(table) => table
                .rule(pc)
                .map_err(|source| ImageError::UnwindInfo { address: pc as usize, source }),
        }
    }

    /// All functions, at their addresses in memory. A malformed one has no rows.
    pub(crate) fn functions(
        &self,
        unpacked: &mut CfiRows,
        each: impl FnMut(FunctionRows),
    ) -> Result<(), CfiError> {
        match self {
            RuleSource::Cfi(source) => source.functions(unpacked, each),
            RuleSource::Functions(table) => {
                table.functions(unpacked, each);
                Ok(())
            }
        }
    }

    /// The section of CFI, if it is one.
    pub(crate) fn cfi(&self) -> Option<&CfiSource> {
        match self {
            RuleSource::Cfi(source) => Some(source),
            RuleSource::Functions(_) => None,
        }
    }

    /// Its size, search tables not counted.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            RuleSource::Cfi(source) => source.parts().0.len(),
            RuleSource::Functions(table) => table.bytes(),
        }
    }
}
