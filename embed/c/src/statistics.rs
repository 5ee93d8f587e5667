//! Statistics as one flat struct.

use stackmark::stats::Statistics;

use crate::abi::Versioned;

macro_rules! statistics {
    ($($name:ident = $from:ident $(. $field:ident)*;)*) => {
        /// `stackmark_statistics`: all of it in `uint64_t`.
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct StatisticsTable {
            pub(crate) size: usize,
            $(pub(crate) $name: u64,)*
        }

        impl StatisticsTable {
            pub(crate) fn new(of: &Statistics) -> StatisticsTable {
                $(let $name = of.$from$(.$field)*;)*
                StatisticsTable { size: size_of::<StatisticsTable>(), $($name,)* }
            }
        }

        /// The fields with their offsets, for the test that compares them.
        #[cfg(test)]
        pub(crate) const FIELDS: &[(&str, usize)] =
            &[$((stringify!($name), std::mem::offset_of!(StatisticsTable, $name)),)*];
    };
}

statistics! {
    cycles = cycles;
    minor_cycles = minor_cycles;
    pauses = pauses_ns.count;
    pause_p50_ns = pauses_ns.p50;
    pause_p99_ns = pauses_ns.p99;
    pause_max_ns = pauses_ns.max;
    holds = holds_ns.count;
    hold_p50_ns = holds_ns.p50;
    hold_p99_ns = holds_ns.p99;
    hold_max_ns = holds_ns.max;
    frames_scanned_stopped = frames.scanned_stopped;
    frames_scanned_running = frames.scanned_running;
    frames_scanned_returning = frames.scanned_returning;
    frames_rescanned = frames.rescanned;
    frames_skipped = frames.skipped;
    frames_kept = frames.kept;
    barriers_placed = barriers.placed;
    barriers_hit = barriers.hit;
    barriers_leapfrogged = barriers.leapfrogged;
    barriers_removed = barriers.removed;
    goroutines_started = stacks.started;
    stacks_grown = stacks.grown;
    stacks_shrunk = stacks.shrunk;
    stack_moved_bytes = stacks.moved_bytes;
    stack_deepest_bytes = stacks.deepest_bytes;
    stack_resident_bytes = stacks.resident_bytes;
    heap_allocated_bytes = heap.allocated_bytes;
    heap_objects_marked = heap.objects_marked;
    heap_objects_swept = heap.objects_swept;
    heap_live_bytes = heap.live_bytes;
    heap_resident_bytes = heap.resident_bytes;
}

// SAFETY: as the trait asks.
unsafe impl Versioned for StatisticsTable {}
