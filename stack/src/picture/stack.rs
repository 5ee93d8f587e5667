//! What a picture shows.

use crate::protocol::Status;
use stackmark_unwind::FrameKind;

/// A goroutine's stack at one moment, for those who look rather than read.
/// [`Runtime::picture`](crate::Runtime::picture) and
/// [`WorldStopped::picture`](crate::WorldStopped::picture) take one, [`Picture::to_svg`] draws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The goroutine's number.
    pub goroutine: u64,
    /// What it was doing.
    pub status: Status,
    /// The size of the stack's memory in bytes.
    pub bytes: usize,
    /// The number of the cycle that the last scan belongs to; 0: there was none.
    pub cycle: u64,
    /// The frames, youngest first.
    pub frames: Vec<PictureFrame>,
}

/// A frame of a [`Picture`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureFrame {
    /// The function's name.
    pub name: String,
    /// The frame's kind.
    pub kind: FrameKind,
    /// The depth of its stack pointer: its distance from the high end of the stack, in bytes.
    pub depth: usize,
    /// The depth of its CFA. The frame lies between the two.
    pub cfa_depth: usize,
    /// How many slots its stack map has.
    pub roots: usize,
    /// What the last scan knows of it.
    pub scan: FrameScan,
    /// The barrier in its return slot.
    pub barrier: Option<BarrierRole>,
}

/// What the last scan of a stack knows of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameScan {
    /// It has not been visited.
    Unvisited,
    /// It has been visited, and may have run since: a rescan visits it again.
    Young,
    /// It has been visited, and has not run since.
    Frozen,
}

/// What a return barrier is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierRole {
    /// It keeps the goroutine out of frames that have not been visited.
    Frontier,
    /// It says that what is older has not run.
    Rescan,
}
