//! Statistics of collections, as plain values.

pub use stackmark_stack::Summary;
pub use stackmark_stack::{ModeInForce, Straggler};

use crate::heap::HeapCounts;

/// What was counted of one cycle.
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
    /// How long the world was stopped: the longer stop of a cycle that stopped it twice, to clear
    /// many weak references in between.
    pub world_stop_ns: u64,
    /// From the request to stop the world until all machines stood.
    pub time_to_stop_ns: u64,
    /// The goroutine that stood still last, if the collector waited for one.
    pub stopped_last: Option<Straggler>,
    /// The goroutine that answered the cycle's first handshake last, if the collector waited for
    /// one.
    pub answered_last: Option<Straggler>,
    /// The longest time that a runnable goroutine stood still: while it scanned its own stack, or
    /// was held.
    pub longest_hold_ns: u64,
    /// From the cycle's beginning to the end of marking, the world's stop included.
    pub mark_ns: u64,
    /// Objects that were marked.
    pub objects_marked: u64,
    /// Their bytes.
    pub bytes_marked: u64,
    /// Bytes allocated while the cycle ran, all of them black.
    pub allocated_meanwhile: u64,
    /// Bytes of objects that mutators have traced, since marking was behind allocation.
    pub assisted: u64,
    /// What threads have asked of the system since the cycle before was recorded.
    pub threads: ThreadStats,
}

/// What threads of the process have asked of the system. Each takes microseconds, of the caller
/// and of the threads that it interrupts or wakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadStats {
    /// Fences of all threads, by membarrier(2).
    pub membarriers: u64,
    /// How often a thread of the runtime has waited for a notification. Waits for locks do not
    /// count.
    pub waits: u64,
    /// How many threads were woken by a notification.
    pub wakes: u64,
}

/// Frames visited, in all cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// While their goroutine was held.
    pub scanned_stopped: u64,
    /// By workers, while their goroutine ran or was free to.
    pub scanned_running: u64,
    /// By their goroutine, before it returned into them.
    pub scanned_returning: u64,
    /// Again, in mark termination.
    pub rescanned: u64,
    /// Not visited again in mark termination, thanks to barriers.
    pub skipped: u64,
    /// Not visited in minor cycles, since they had not run since the last cycle.
    pub kept: u64,
}

/// Return barriers, in all cycles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BarrierStats {
    /// Whether there are any; if not, why.
    pub mode: ModeInForce,
    /// Placed.
    pub placed: u64,
    /// Returned through.
    pub hit: u64,
    /// Left behind when their frames were unwound.
    pub leapfrogged: u64,
    /// Removed by the runtime.
    pub removed: u64,
    /// Carried along by a stack that moved, once for each move.
    pub moved: u64,
    /// Not placed: the name of each reason, and how many.
    pub refused: Vec<(&'static str, u64)>,
    /// Not placed because all stubs were in use.
    pub pool_exhausted: u64,
}

/// Stacks of goroutines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackStats {
    /// Goroutines started.
    pub started: u64,
    /// How often a stack grew.
    pub grown: u64,
    /// How often a stack shrank.
    pub shrunk: u64,
    /// Bytes copied by moves.
    pub moved_bytes: u64,
    /// The most bytes that one growth copied.
    pub largest_move_bytes: u64,
    /// The deepest stack, in bytes in use.
    pub deepest_bytes: u64,
    /// Bytes of stack memory now.
    pub resident_bytes: u64,
    /// The most bytes of stack memory that there were at a time.
    pub resident_peak_bytes: u64,
}

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Cycles completed.
    pub cycles: u64,
    /// Those of them that collected young objects only.
    pub minor_cycles: u64,
    /// The last 100,000 cycles, oldest first.
    pub cycles_detail: Vec<CycleStats>,
    /// World stops, in nanoseconds.
    pub pauses_ns: Summary,
    /// How many world stops there were of each length, as (nanoseconds, count). The length is at
    /// most 1/32 too long.
    pub pauses_by_length: Vec<(u64, u64)>,
    /// Holds of single goroutines, in nanoseconds.
    pub holds_ns: Summary,
    /// How many holds there were of each length, as for world stops.
    pub holds_by_length: Vec<(u64, u64)>,
    /// How long goroutines that scanned their own stacks ran for it, in nanoseconds of processor
    /// time. What their holds took beyond that is the system's.
    pub own_scans_ns: Summary,
    /// Frames.
    pub frames: FrameStats,
    /// Return barriers.
    pub barriers: BarrierStats,
    /// Stacks.
    pub stacks: StackStats,
    /// The heap.
    pub heap: HeapCounts,
    /// Threads, since the collector was made.
    pub threads: ThreadStats,
}
