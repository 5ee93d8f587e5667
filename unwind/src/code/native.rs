//! Native code whose frames can stand on a managed stack.

use std::ops::Range;

use crate::frame::FrameKind;
use crate::rule::{PackedRule, UnwindRule};
use crate::rule_table::RuleTable;

/// How the callers of native frames are found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NativeRule {
    /// By the `.eh_frame` of the loaded image that holds the code.
    FromImage,
    /// CFA = stack pointer + `cfa_offset`, the return address where a call puts it; the frame
    /// pointer is the caller's own.
    Fixed {
        /// Bytes from the stack pointer to the CFA: at least a word, a multiple of the word.
        cfa_offset: u32,
    },
    /// There is no caller: the frame is the oldest of its stack. Every [`FrameKind::Entry`] frame
    /// is the oldest, and every frame whose CFI leaves the return address undefined.
    End,
}

/// A native range, compiled.
#[derive(Debug)]
pub(crate) struct Native {
    pub(super) range: Range<usize>,
    pub(crate) kind: FrameKind,
    pub(super) rule: CompiledRule,
}

/// The rules of a native range.
#[derive(Debug)]
pub(super) enum CompiledRule {
    Table(Box<RuleTable>),
    Fixed(PackedRule),
    End,
}

/// How to step over a native frame.
pub(crate) enum NativeStep {
    By(PackedRule),
    End,
}

impl Native {
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The step for a frame that stands at `pc`, which lies in the range.
    pub(crate) fn step(&self, pc: usize) -> NativeStep {
        match &self.rule {
            _ if self.kind == FrameKind::Entry => NativeStep::End,
            CompiledRule::Table(table) => NativeStep::By(table.rule(pc as u64)),
            CompiledRule::Fixed(rule) => NativeStep::By(*rule),
            CompiledRule::End => NativeStep::End,
        }
    }
    /// What a rule of this code stands for.
    pub(super) fn resolve(&self, rule: PackedRule) -> Option<UnwindRule<'_>> {
        match &self.rule {
            CompiledRule::Table(table) => table.resolve(rule),
            CompiledRule::Fixed(_) => Some(UnwindRule::packed(rule)),
            CompiledRule::End => None,
        }
    }
}
