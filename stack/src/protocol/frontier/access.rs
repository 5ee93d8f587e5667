//! What the scan of a stack needs from the real stack, and what it reports: frames,
//! slots, budgets and counts.

use crate::protocol::barrier::{Refusal, Settled, StubPool};

/// A place in a stack from which a walk can continue, also after the stack has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The pc in the frame there.
    pub(crate) pc: usize,
    /// Depth of its stack pointer.
    pub(crate) depth: usize,
    /// The frame pointer there.
    pub(crate) fp: FramePointer,
}

/// The value of a frame pointer register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramePointer {
    /// The address at this depth of the stack.
    Depth(usize),
    /// Another value, which does not point into the stack.
    Word(usize),
}

/// The frames of one stack from a position on, youngest first.
pub(crate) trait Frames {
    /// Why the stack cannot be walked.
    type Error;
    /// Visits the roots of the next older frame. Returns the depth of the frame's return slot, or 0
    /// if it has none. Returns `None` behind the oldest frame.
    ///
    /// # Errors
    /// The stack cannot be walked.
    fn visit(&mut self) -> Result<Option<usize>, Self::Error>;
    /// Visits frames in a row as long as each is *plain*: a managed one, whose return slot is
    /// deeper than `beyond`. Visits at most `most`, and may visit fewer. Returns how many. The
    /// methods that ask about the last visited frame mean that of the last [`Frames::visit`].
    fn visit_plain(&mut self, _beyond: usize, _most: u64) -> u64 {
        0
    }
    /// As [`Frames::visit`], but does not visit the roots of the frame.
    ///
    /// # Errors
    /// The stack cannot be walked.
    fn pass(&mut self) -> Result<Option<usize>, Self::Error>;
    /// Why no barrier may lie in the return slot of the last visited frame. `None`: one may.
    fn refusal(&self) -> Option<Refusal>;
    /// Whether the word in the return slot of the last visited frame is signed.
    fn is_signed(&self) -> bool;
    /// Whether the last visited frame is that of a callback. The next frame is then a foreign call,
    /// to which the goroutine returns only through
    /// [`StackScan::protect`](super::StackScan::protect).
    fn may_rest(&self) -> bool;
    /// The position of the next frame.
    fn position(&self) -> Position;
}

/// How much is visited in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Frames.
    pub(crate) frames: u64,
    /// Bytes of stack.
    pub(crate) bytes: usize,
}

impl Budget {
    /// No limit.
    pub(crate) const WHOLE: Budget = Budget { frames: u64::MAX, bytes: usize::MAX };
}

/// How far apart rescan barriers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// At `D`, `2 D`, `4 D` ... from the stack pointer that the scan began at; `D` is in bytes.
    Doubling(usize),
    /// In every frame that may have one.
    EveryFrame,
    /// None.
    Never,
}

/// What placing a barrier touches: the slots of one stack, the table and the pool.
#[derive(Debug)]
pub(crate) struct StackAccess<'p, S, T> {
    /// The return slots of the stack.
    pub(crate) slots: S,
    /// The table that return addresses are saved in.
    pub(crate) table: T,
    /// The pool that stubs come from.
    pub(crate) pool: &'p StubPool,
}

/// What an operation visited, and what it did to the barriers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanCounts {
    /// Frames visited.
    pub(crate) frames: u64,
    /// Barriers placed.
    pub(crate) placed: u64,
    /// Barriers removed from frames that are no longer frozen.
    pub(crate) removed: u64,
    /// Scans finished at once because there was no stub for a barrier that blocks.
    pub(crate) whole: u64,
}

/// What [`StackScan::begin_again`](super::StackScan::begin_again) has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RescanStart {
    /// What became of earlier barriers.
    pub(crate) settled: Settled,
    /// Pending barriers placed.
    pub(crate) placed: u64,
    /// Frames beyond the lowest unhit barrier, which are not visited.
    pub(crate) beyond: u64,
}
