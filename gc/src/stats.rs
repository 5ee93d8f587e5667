//! Statistics of collections, as plain values.

pub use stackmark_stack::stats::Summary;
pub use stackmark_stack::{ModeInForce, Straggler};

use crate::heap::HeapCounts;

/// One cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CycleStats {
    /// Whether only young objects were collected.
    pub minor: bool,
    /// Frames of the deepest stack that was visited.
    pub deepest_frames: u64,
    /// Frames visited again in mark termination.
    pub rescanned: u64,
    /// Frames of the same stacks that did not have to be visited again.
    pub skipped: u64,
    /// How long the world was stopped.
    pub world_stop_ns: u64,
    /// How long it took until all machines stood.
    pub time_to_stop_ns: u64,
    /// The goroutine that was the last to stand still, if one had to be waited for.
    pub stopped_last: Option<Straggler>,
    /// The goroutine that was the last to answer the cycle's first handshake, if one had to be
    /// waited for.
    pub answered_last: Option<Straggler>,
    /// The longest time that one goroutine stood still which would have run: while it scanned its
    /// own stack, or was held.
    pub longest_hold_ns: u64,
    /// From the cycle's beginning to the end of marking, the world's stop included.
    pub mark_ns: u64,
    /// Objects that were marked.
    pub objects_marked: u64,
    /// Their bytes.
    pub bytes_marked: u64,
    /// Bytes allocated while the cycle ran, all of them black.
    pub allocated_meanwhile: u64,
    /// Bytes of objects that threads which allocate have traced, because marking was behind.
    pub assisted: u64,
}

/// Frames visited, in all cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// While their goroutine was held.
    pub scanned_stopped: u64,
    /// By workers, while it ran or could have.
    pub scanned_running: u64,
    /// By itself, on its way into them.
    pub scanned_returning: u64,
    /// Again, in mark termination.
    pub rescanned: u64,
    /// Not again, thanks to barriers.
    pub skipped: u64,
    /// Not in minor cycles, since they had not run since the last one.
    pub kept: u64,
}

/// Return barriers, in all cycles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BarrierStats {
    /// Whether there are any, and why not.
    pub mode: ModeInForce,
    /// Placed.
    pub placed: u64,
    /// Returned through.
    pub hit: u64,
    /// Left without a return.
    pub leapfrogged: u64,
    /// Removed.
    pub removed: u64,
    /// Not placed, by the reason's name.
    pub refused: Vec<(&'static str, u64)>,
    /// Not placed because all stubs were in use.
    pub pool_exhausted: u64,
}

/// Stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackStats {
    /// Goroutines started.
    pub started: u64,
    /// Growths.
    pub grown: u64,
    /// Shrinkings.
    pub shrunk: u64,
    /// Bytes copied by moves.
    pub moved_bytes: u64,
    /// The most that one growth copied.
    pub largest_move_bytes: u64,
    /// The deepest stack, in bytes in use.
    pub deepest_bytes: u64,
    /// Stack memory now.
    pub resident_bytes: u64,
    /// The most stack memory that there was.
    pub resident_peak_bytes: u64,
}

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Cycles completed.
    pub cycles: u64,
    /// Those of them that collected young objects only.
    pub minor_cycles: u64,
    /// The cycles, oldest first. When there are very many, the oldest are left out.
    pub cycles_detail: Vec<CycleStats>,
    /// World stops, in nanoseconds.
    pub pauses_ns: Summary,
    /// How many world stops were shorter than each power of two nanoseconds and not than the one
    /// before: (power, count).
    pub pauses_by_power: Vec<(u64, u64)>,
    /// Holds of single goroutines, in nanoseconds.
    pub holds_ns: Summary,
    /// Frames.
    pub frames: FrameStats,
    /// Return barriers.
    pub barriers: BarrierStats,
    /// Stacks.
    pub stacks: StackStats,
    /// The heap.
    pub heap: HeapCounts,
}
