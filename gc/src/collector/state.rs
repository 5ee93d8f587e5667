//! What the collector's owner, its thread and the heap share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use parking_lot::Mutex;
use stackmark_stack::sync::{ThreadCounts, thread_counts};
use stackmark_stack::{Histogram, REFUSALS, Runtime};

use super::requests::Requests;
use crate::assist::AssistPacer;
use crate::global::Globals;
use crate::handle::Handles;
use crate::heap::Heap;
use crate::mark::MarkState;
use crate::stats::{BarrierStats, CycleStats, FrameStats, StackStats, Statistics, ThreadStats};
use crate::weak::WeakReferences;
use crate::write_barrier::{Sink, WriteBarrier};

use super::config::Config;

/// How many cycles [`Statistics::cycles_detail`] keeps.
const KEPT_CYCLES: usize = 100_000;

/// One collector, as all threads share it.
pub(super) struct CollectorState<H: Heap> {
    pub(super) heap: Arc<H>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) marking: Arc<MarkState<H>>,
    pub(super) barrier: Arc<WriteBarrier>,
    pub(super) handles: Arc<Handles>,
    pub(super) weak: Arc<WeakReferences>,
    pub(super) globals: Globals,
    pub(super) assists: AssistPacer,
    pub(super) verify: bool,
    pub(super) requests: Requests,
    history: Mutex<History>,
    pauses: Histogram,
    /// The counts of the process when the collector was made.
    counts_before: ThreadCounts,
}

#[derive(Default)]
struct History {
    /// The counts of the process at the last cycle's end.
    counts: ThreadCounts,
    cycles: u64,
    minor: u64,
    detail: VecDeque<CycleStats>,
}

impl<H: Heap> CollectorState<H> {
    pub(super) fn new(
        heap: Arc<H>,
        runtime: Arc<Runtime>,
        marking: Arc<MarkState<H>>,
        config: &Config,
    ) -> CollectorState<H> {
        let sink = Arc::clone(&marking) as Arc<dyn Sink>;
        let barrier = WriteBarrier::new(config.write_barrier, sink);
        let handles = Handles::new(Arc::clone(&barrier), runtime.id());
        let counts = thread_counts();
        CollectorState {
            heap,
            runtime,
            marking,
            weak: WeakReferences::new(Arc::clone(&handles), Arc::clone(&barrier)),
            handles,
            barrier,
            globals: Globals::default(),
            assists: AssistPacer::default(),
            verify: config.verify,
            requests: Requests::default(),
            history: Mutex::new(History { counts, ..History::default() }),
            pauses: Histogram::default(),
            counts_before: counts,
        }
    }

    /// Whether what `word` refers to is marked, or no object at all.
    pub(super) fn is_marked(&self, word: usize) -> bool {
        self.heap.resolve(word).is_none_or(|object| self.heap.is_marked(object))
    }

    /// How many cycles are complete.
    pub(super) fn cycles(&self) -> u64 {
        self.history.lock().cycles
    }

    /// Adds a stop to the statistics, the shorter one of a cycle that stopped the world twice.
    pub(super) fn record_stop(&self, nanos: u64) {
        self.pauses.record(nanos);
    }

    /// Adds a cycle to the statistics. Sets its [`CycleStats::threads`].
    pub(super) fn record(&self, mut cycle: CycleStats) {
        self.pauses.record(cycle.world_stop_ns);
        let mut history = self.history.lock();
        let counts = thread_counts();
        cycle.threads = thread_stats(counts.since(history.counts));
        history.counts = counts;
        history.cycles += 1;
        history.minor += u64::from(cycle.minor);
        if history.detail.len() == KEPT_CYCLES {
            history.detail.pop_front();
        }
        history.detail.push_back(cycle);
    }

    pub(super) fn statistics(&self) -> Statistics {
        let history = self.history.lock();
        Statistics {
            cycles: history.cycles,
            minor_cycles: history.minor,
            cycles_detail: history.detail.iter().copied().collect(),
            pauses_ns: self.pauses.summary(),
            pauses_by_length: self.pauses.counts(),
            holds_ns: self.runtime.holds().summary(),
            holds_by_length: self.runtime.holds().counts(),
            own_scans_ns: self.runtime.own_scans().summary(),
            barriers: self.barrier_stats(),
            frames: self.frame_stats(),
            stacks: self.stack_stats(),
            heap: self.heap.counts(),
            threads: thread_stats(thread_counts().since(self.counts_before)),
        }
    }

    fn barrier_stats(&self) -> BarrierStats {
        let counters = self.runtime.counters();
        // Barriers that have gone are read before those that were placed. So their sum is at most
        // what was placed, though goroutines run meanwhile. Acquire: later loads stay behind these.
        let [hit, leapfrogged, removed] = [&counters.hit, &counters.leapfrogged, &counters.removed]
            .map(|counter| counter.load(Acquire));
        let refused =
            REFUSALS.iter().zip(&counters.refused).map(|(why, n)| (*why, n.load(Relaxed)));
        BarrierStats {
            mode: self.runtime.mode(),
            placed: counters.placed.load(Relaxed),
            hit,
            leapfrogged,
            removed,
            moved: counters.moved.load(Relaxed),
            refused: refused.collect(),
            pool_exhausted: self.runtime.pool_exhausted(),
        }
    }

    fn frame_stats(&self) -> FrameStats {
        let counters = self.runtime.counters();
        FrameStats {
            scanned_stopped: counters.scanned_stopped.load(Relaxed),
            scanned_running: counters.scanned_running.load(Relaxed),
            scanned_returning: counters.scanned_returning.load(Relaxed),
            rescanned: counters.rescanned.load(Relaxed),
            skipped: counters.skipped.load(Relaxed),
            kept: counters.kept.load(Relaxed),
        }
    }

    fn stack_stats(&self) -> StackStats {
        let counters = self.runtime.counters();
        let stacks = self.runtime.stack_bytes();
        StackStats {
            started: counters.started.load(Relaxed),
            grown: counters.grown.load(Relaxed),
            shrunk: counters.shrunk.load(Relaxed),
            moved_bytes: counters.moved_bytes.load(Relaxed),
            largest_move_bytes: counters.largest_move_bytes.load(Relaxed),
            deepest_bytes: counters.deepest_bytes.load(Relaxed),
            resident_bytes: stacks.resident as u64,
            resident_peak_bytes: stacks.peak as u64,
        }
    }
}

fn thread_stats(counts: ThreadCounts) -> ThreadStats {
    let ThreadCounts { membarriers, waits, wakes } = counts;
    ThreadStats { membarriers, waits, wakes }
}
