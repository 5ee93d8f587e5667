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
    /// CFA = stack pointer + `cfa_offset`, the return address right below it. Where a call pushes
    /// the return address, the frame pointer is the caller's own. Where it does not, the caller's
    /// frame pointer is stored below the return address: a frame record.
    Fixed {
        /// Bytes from the stack pointer to the CFA: at least a word, a multiple of the word.
        cfa_offset: u32,
    },
    /// The frame stands between native frames and keeps where the caller, an older managed frame,
    /// stands: it has called the native code that called this one. From the stack pointer +
    /// `offset` on, there are four words: the caller's pc, stack pointer and frame pointer, and one
    /// that is 0 if the frame is the oldest of its kind. The oldest one keeps a stack pointer of 0
    /// if it has no caller. In any other frame that is [`WalkError::NoAnchor`].
    ///
    /// [`WalkError::NoAnchor`]: crate::WalkError::NoAnchor
    Anchor {
        /// Bytes from the stack pointer to the first of the words: a multiple of the word.
        offset: u32,
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
    Anchor(u32),
    End,
}

/// How to step over a native frame.
pub(crate) enum NativeStep {
    By(PackedRule),
    /// To the caller that the words at this distance from the stack pointer name.
    Anchor(u32),
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
            CompiledRule::Anchor(offset) => NativeStep::Anchor(*offset),
            CompiledRule::End => NativeStep::End,
        }
    }
    /// What a rule of this code stands for.
    pub(super) fn resolve(&self, rule: PackedRule) -> Option<UnwindRule<'_>> {
        match &self.rule {
            CompiledRule::Table(table) => table.resolve(rule),
            CompiledRule::Fixed(_) => Some(UnwindRule::packed(rule)),
            CompiledRule::Anchor(_) | CompiledRule::End => None,
        }
    }
}
