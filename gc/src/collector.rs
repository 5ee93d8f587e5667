//! The collector: a thread that runs cycles when they are asked for.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use stackmark_stack::stats::{Histogram, REFUSALS};
use stackmark_stack::{Runtime, ScanError};

use crate::global::Globals;
use crate::handle::Handles;
use crate::heap::Heap;
use crate::mark::{AbortOnPanic, Marker, Shared};
use crate::pace::Pace;
use crate::request::{Requests, Ticket};
use crate::stats::{BarrierStats, CycleStats, FrameStats, StackStats, Statistics};
use crate::verify::UnmarkedObject;
use crate::write_barrier::WriteBarrier;

/// Cycles whose details are kept.
const DETAILS: usize = 100_000;

/// How a collector works.
pub struct Options {
    /// Threads that mark.
    pub workers: usize,
    /// By how many percent the heap may grow over what was live; `None` collects on request only.
    pub gc_percent: Option<u32>,
    /// For debugging: walk everything again after each mark, with the world stopped, and fail if something reachable is
    /// unmarked.
    pub verify: bool,
    /// Called on the collector's thread when a cycle has failed. There will be no other: what is garbage stays. The default
    /// prints the error and aborts.
    pub on_failure: Box<dyn Fn(&CycleError) + Send + Sync>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Options { workers, gc_percent, verify, on_failure: _ } = self;
        let mut f = f.debug_struct("Options");
        f.field("workers", workers).field("gc_percent", gc_percent).field("verify", verify).finish_non_exhaustive()
    }
}

impl Default for Options {
    /// A quarter of the processors marks, 100 percent of growth.
    fn default() -> Options {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            workers: (cores / 4).max(1),
            gc_percent: Some(100),
            verify: false,
            on_failure: Box::new(|error| {
                eprintln!("stackmark: {error}");
                std::process::abort()
            }),
        }
    }
}

/// Why there are no collections any more.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    /// A stack could not be walked. Its roots are unknown, so nothing may be freed.
    #[error("a stack could not be scanned: {0}")]
    Scan(#[from] ScanError),
    /// Verification has found a reachable object that was not marked.
    #[error("marking missed an object: {0}")]
    Unmarked(#[from] UnmarkedObject),
    /// The collector was dropped.
    #[error("the collector was dropped")]
    Dropped,
}

/// Why a collector could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the collector's threads: {0}")]
pub struct StartError(#[from] std::io::Error);

/// A concurrent collector of one runtime's goroutines and one heap.
///
/// Dropping it ends its threads, after the cycle that they are in.
pub struct Collector<H: Heap> {
    inner: Arc<Inner<H>>,
    thread: Option<JoinHandle<()>>,
}

/// What the collector's thread and its owner share.
pub(crate) struct Inner<H> {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) heap: Arc<H>,
    pub(crate) marker: Marker<H>,
    pub(crate) barrier: Arc<WriteBarrier>,
    pub(crate) handles: Arc<Handles>,
    pub(crate) globals: Globals,
    pub(crate) options: Options,
    pub(crate) pace: Mutex<Pace>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) pauses: Histogram,
    pub(crate) cycles: Mutex<Vec<CycleStats>>,
}

impl<H: Heap> std::fmt::Debug for Collector<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

/// Where the roots of stacks go.
struct Roots<H>(Arc<Shared<H>>);

thread_local! {
    /// While this thread verifies: the roots are gathered here instead of being marked.
    static GATHERED: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
}

impl<H: Heap> stackmark_stack::Collector for Roots<H> {
    fn roots(&self, words: &[usize]) {
        let marks = GATHERED.with_borrow_mut(|gathered| match gathered {
            Some(gathered) => {
                gathered.extend_from_slice(words);
                false
            }
            None => true,
        });
        if marks {
            self.0.shade(words);
        }
    }
}

/// The roots that `visit`, on this thread, delivers.
pub(crate) fn gather<E>(visit: impl FnOnce() -> Result<(), E>) -> Result<Vec<usize>, E> {
    GATHERED.set(Some(Vec::new()));
    let outcome = visit();
    let gathered = GATHERED.take().expect("set just now");
    outcome.map(|()| gathered)
}

impl<H: Heap> Collector<H> {
    /// Starts the collector of `runtime`, which has none yet, for `heap`.
    ///
    /// # Errors
    /// If the system gives no threads.
    ///
    /// # Panics
    /// If the runtime has a collector.
    pub fn start(runtime: &Arc<Runtime>, heap: &Arc<H>, options: Options) -> Result<Collector<H>, StartError> {
        let marker = Marker::start(Arc::clone(heap), options.workers)?;
        let barrier = WriteBarrier::new(Arc::clone(marker.shared()) as _);
        let inner = Arc::new(Inner {
            runtime: Arc::clone(runtime),
            heap: Arc::clone(heap),
            handles: Handles::new(Arc::clone(&barrier)),
            globals: Globals::default(),
            barrier,
            pace: Mutex::new(Pace::new(options.gc_percent)),
            requests: Arc::default(),
            pauses: Histogram::default(),
            cycles: Mutex::default(),
            options,
            marker,
        });
        runtime.set_collector(Arc::new(Roots(Arc::clone(inner.marker.shared()))));
        let requests = Arc::clone(&inner.requests);
        heap.on_growth(Box::new(move || drop(requests.request())));
        heap.set_trigger(inner.pace.lock().trigger());
        let collecting = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("stackmark-cycle".into()).spawn(move || {
            let _guard = AbortOnPanic;
            collecting.run();
        })?;
        Ok(Collector { inner, thread: Some(thread) })
    }

    /// Asks for a collection.
    pub fn request(&self) -> Ticket {
        self.inner.requests.request()
    }

    /// The write barrier, which managed code tests inline and of which each machine has a buffer.
    pub fn write_barrier(&self) -> &Arc<WriteBarrier> {
        &self.inner.barrier
    }

    /// The roots that native code holds.
    pub fn handles(&self) -> &Arc<Handles> {
        &self.inner.handles
    }

    /// The heap.
    pub fn heap(&self) -> &Arc<H> {
        &self.inner.heap
    }

    /// Makes each word of a range of memory a root: the global variables of managed code. Stores to them go through the write
    /// barrier.
    ///
    /// # Safety
    /// The range stays mapped, and is written by whole words or not at all while a cycle may run, as long as the collector
    /// lives.
    pub unsafe fn add_globals(&self, range: Range<usize>) {
        // SAFETY: our contract.
        unsafe { self.inner.globals.add(range) }
    }

    /// Everything that is counted, as of now.
    pub fn statistics(&self) -> Statistics {
        let inner = &*self.inner;
        let counters = inner.runtime.counters();
        // Relaxed: counters.
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        let cycles_detail = inner.cycles.lock().clone();
        let stacks = inner.runtime.stacks();
        let pauses_ns = inner.pauses.summary();
        Statistics {
            cycles: pauses_ns.count,
            cycles_detail,
            pauses_ns,
            holds_ns: inner.runtime.holds().summary(),
            frames: FrameStats {
                scanned_stopped: get(&counters.scanned_stopped),
                scanned_running: get(&counters.scanned_running),
                rescanned: get(&counters.rescanned),
                skipped: get(&counters.skipped),
            },
            barriers: BarrierStats {
                placed: get(&counters.placed),
                hit: get(&counters.hit),
                leapfrogged: get(&counters.leapfrogged),
                refused: REFUSALS.into_iter().zip(counters.refused.iter().map(get)).collect(),
                pool_exhausted: inner.runtime.pool_exhausted(),
            },
            stacks: StackStats {
                started: get(&counters.started),
                grown: get(&counters.grown),
                shrunk: get(&counters.shrunk),
                moved_bytes: get(&counters.moved_bytes),
                largest_move_bytes: get(&counters.largest_move_bytes),
                deepest_bytes: get(&counters.deepest_bytes),
                resident_bytes: stacks.resident_bytes() as u64,
                resident_peak_bytes: stacks.resident_peak_bytes() as u64,
            },
            heap: inner.heap.counts(),
        }
    }
}

impl<H: Heap> Inner<H> {
    /// Keeps what a cycle has to tell.
    pub(crate) fn record(&self, cycle: CycleStats) {
        self.pauses.record(cycle.world_stop_ns);
        let mut cycles = self.cycles.lock();
        if cycles.len() == DETAILS {
            cycles.drain(..DETAILS / 2);
        }
        cycles.push(cycle);
    }
}

impl<H: Heap> Drop for Collector<H> {
    fn drop(&mut self) {
        self.inner.requests.leave();
        if let Some(thread) = self.thread.take() {
            // Its panics abort.
            let _ = thread.join();
        }
        self.inner.requests.fail(&Arc::new(CycleError::Dropped));
    }
}
