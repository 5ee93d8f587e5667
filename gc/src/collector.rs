//! The cycle, from its beginning to its end, on a thread of its own.
//!
//! 1. The last cycle's sweep is completed.
//! 2. The write barrier goes on, everywhere: a handshake; then allocation is black.
//! 3. Roots are shaded while the world runs: globals, handles, and of each goroutine's stack the youngest frames, by this thread
//!    if it stands still, else by itself at its next poll. The crew visits the others, which a frontier keeps the goroutine out
//!    of, and marks.
//! 4. When there is nothing left to trace, stacks that have run since their scan are scanned again up to their lowest unhit
//!    barrier, in the same way, and what that finds is traced.
//! 5. When there is nothing left to trace the world stops: the write barrier's buffers are taken, stacks that have run since
//!    their scan are rescanned up to their lowest unhit barrier, and the rest is traced. The barrier goes off.
//! 6. The world runs again; what was not marked is swept.
//!
//! The tricolour invariant is that of Dijkstra, Lamport et al. ("On-the-fly garbage collection", 1978): a black object does not
//! refer to a white one, since the reference that a store puts into memory is shaded. Stacks are grey until step 5.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use stackmark_stack::stats::{Histogram, REFUSALS};
use stackmark_stack::{Runtime, ScanError};

use crate::global::Globals;
use crate::handle::Handles;
use crate::heap::Heap;
use crate::mark::{AbortOnPanic, Marker, Shared};
use crate::pace::Pace;
use crate::stats::{BarrierStats, CycleStats, FrameStats, StackStats, Statistics};
use crate::verify::{UnmarkedObject, Verifier};
use crate::write_barrier::{Sink, WriteBarrier};

/// How many cycles [`Statistics::cycles_detail`] keeps.
const KEPT_CYCLES: usize = 100_000;

/// How often the buffers of the write barrier are emptied, at most, before the world stops all the same: what is traced
/// before need not be traced then.
const ROUNDS: usize = 4;

/// How a collector behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads that mark.
    pub workers: usize,
    /// How much the heap may grow before the next cycle, in percent of what was live after the last; `None`: cycles only on
    /// request.
    pub percent: Option<u32>,
    /// For debugging: after each mark, with the world stopped, walk everything again and abort if a reachable object is
    /// unmarked.
    pub verify: bool,
}

impl Default for Config {
    /// As Go: a quarter of the cores, at least one; 100 percent.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Config { workers: (cores / 4).max(1), percent: Some(100), verify: false }
    }
}

/// A cycle that cannot be completed. The collector aborts with it: roots are never skipped.
#[derive(Debug, thiserror::Error)]
enum CycleError {
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("cycle {cycle}: {error}")]
    Unmarked { cycle: u64, error: UnmarkedObject },
}

type Waiter = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Requests {
    /// Cycles wanted, begun and completed, by number.
    wanted: u64,
    begun: u64,
    done: u64,
    waiters: Vec<(u64, Waiter)>,
    stop: bool,
}

#[derive(Default)]
struct History {
    cycles: u64,
    detail: VecDeque<CycleStats>,
}

struct Inner<H: Heap> {
    heap: Arc<H>,
    runtime: Arc<Runtime>,
    marking: Arc<Shared<H>>,
    barrier: Arc<WriteBarrier>,
    handles: Arc<Handles>,
    globals: Globals,
    verify: bool,
    requests: Mutex<Requests>,
    changed: Condvar,
    history: Mutex<History>,
    pauses: Histogram,
}

/// What scans deliver roots to.
struct Roots<H: Heap> {
    marking: Arc<Shared<H>>,
}

thread_local! {
    /// While this thread verifies, roots that it finds go here and are not marked. Others go on marking: a thread in native
    /// code may start a goroutine meanwhile.
    static VERIFIED: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
}

impl<H: Heap> stackmark_stack::Collector for Roots<H> {
    fn roots(&self, words: &[usize]) {
        // A thread that ends has lost the variable, and does not verify.
        let verifies =
            VERIFIED.try_with(|roots| roots.borrow_mut().as_mut().map(|roots| roots.extend_from_slice(words)));
        if !matches!(verifies, Ok(Some(()))) {
            self.marking.shade(words);
        }
    }

    fn stack_waits(&self) {
        self.marking.stack_waits();
    }
}

/// A concurrent collector over a heap. Dropping it ends its threads, after the cycle that runs.
pub struct Collector<H: Heap> {
    inner: Arc<Inner<H>>,
    thread: Option<JoinHandle<()>>,
}

impl<H: Heap> std::fmt::Debug for Collector<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("cycles", &self.inner.history.lock().cycles).finish_non_exhaustive()
    }
}

impl<H: Heap> Collector<H> {
    /// Starts collecting `heap`, whose objects the goroutines of `runtime` refer to.
    ///
    /// # Errors
    /// If the system gives no thread.
    ///
    /// # Panics
    /// If the runtime has a collector.
    pub fn start(heap: Arc<H>, runtime: Arc<Runtime>, config: &Config) -> std::io::Result<Collector<H>> {
        let marker = Marker::start(Arc::clone(&heap), Arc::downgrade(&runtime), config.workers)?;
        let marking = Arc::clone(marker.shared());
        let barrier = WriteBarrier::new(Arc::clone(&marking) as Arc<dyn Sink>);
        runtime.set_collector(Arc::new(Roots { marking: Arc::clone(&marking) }));
        let pace = Pace::new(config.percent);
        heap.set_trigger(pace.trigger());
        let inner = Arc::new(Inner {
            heap,
            runtime,
            marking,
            handles: Handles::new(Arc::clone(&barrier)),
            barrier,
            globals: Globals::default(),
            verify: config.verify,
            requests: Mutex::default(),
            changed: Condvar::new(),
            history: Mutex::default(),
            pauses: Histogram::default(),
        });
        let growing = Arc::downgrade(&inner);
        inner.heap.on_growth(Box::new(move || {
            if let Some(inner) = growing.upgrade() {
                inner.request(None);
            }
        }));
        let driver = Driver { inner: Arc::clone(&inner), marker, pace };
        let thread = std::thread::Builder::new().name("stackmark-cycle".into());
        let thread = Some(thread.spawn(move || driver.run())?);
        Ok(Collector { inner, thread })
    }

    /// Asks for a cycle that begins after this call. `done` is called, by the collector's thread, when it is complete: it
    /// may make a goroutine ready.
    pub fn request(&self, done: impl FnOnce() + Send + 'static) {
        self.inner.request(Some(Box::new(done)));
    }

    /// As [`Collector::request`], and waits. Not from native code that a goroutine counts as Running in: the cycle would
    /// wait for the goroutine.
    pub fn collect(&self) {
        let (send, receive) = std::sync::mpsc::channel();
        self.request(move || {
            // The receiver waits below.
            let _ = send.send(());
        });
        // An error means that the collector has ended: there is nothing to wait for.
        let _ = receive.recv();
    }

    /// The heap.
    pub fn heap(&self) -> &Arc<H> {
        &self.inner.heap
    }

    /// The runtime.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.inner.runtime
    }

    /// The write barrier: its flag for generated code, its buffers for machines.
    pub fn write_barrier(&self) -> &Arc<WriteBarrier> {
        &self.inner.barrier
    }

    /// The roots that native code holds.
    pub fn handles(&self) -> &Arc<Handles> {
        &self.inner.handles
    }

    /// Adds global variables: every whole word in `range` is a root from the next cycle on. References are stored there with
    /// the write barrier.
    ///
    /// # Safety
    /// The words stay mapped and are only accessed by whole words, or by one thread at a time, as long as the collector lives.
    pub unsafe fn add_globals(&self, range: std::ops::Range<usize>) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.inner.globals.add(range) };
    }

    /// Everything that was counted so far.
    pub fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }
}

impl<H: Heap> Drop for Collector<H> {
    fn drop(&mut self) {
        self.inner.requests.lock().stop = true;
        self.inner.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has aborted the process.
            let _ = thread.join();
        }
    }
}

impl<H: Heap> Inner<H> {
    fn request(&self, waiter: Option<Waiter>) {
        let mut requests = self.requests.lock();
        let number = requests.begun + 1;
        requests.wanted = requests.wanted.max(number);
        requests.waiters.extend(waiter.map(|waiter| (number, waiter)));
        drop(requests);
        self.changed.notify_all();
    }

    fn statistics(&self) -> Statistics {
        let counters = self.runtime.counters();
        let stacks = self.runtime.stacks();
        let history = self.history.lock();
        let refused = REFUSALS.iter().zip(&counters.refused).map(|(why, n)| (*why, n.load(Relaxed)));
        Statistics {
            cycles: history.cycles,
            cycles_detail: history.detail.iter().copied().collect(),
            pauses_ns: self.pauses.summary(),
            holds_ns: self.runtime.holds().summary(),
            frames: FrameStats {
                scanned_stopped: counters.scanned_stopped.load(Relaxed),
                scanned_running: counters.scanned_running.load(Relaxed),
                scanned_returning: counters.scanned_returning.load(Relaxed),
                rescanned: counters.rescanned.load(Relaxed),
                skipped: counters.skipped.load(Relaxed),
            },
            barriers: BarrierStats {
                placed: counters.placed.load(Relaxed),
                hit: counters.hit.load(Relaxed),
                leapfrogged: counters.leapfrogged.load(Relaxed),
                refused: refused.collect(),
                pool_exhausted: self.runtime.pool_exhausted(),
            },
            stacks: StackStats {
                started: counters.started.load(Relaxed),
                grown: counters.grown.load(Relaxed),
                shrunk: counters.shrunk.load(Relaxed),
                moved_bytes: counters.moved_bytes.load(Relaxed),
                largest_move_bytes: counters.largest_move_bytes.load(Relaxed),
                deepest_bytes: counters.deepest_bytes.load(Relaxed),
                resident_bytes: stacks.resident_bytes() as u64,
                resident_peak_bytes: stacks.resident_peak_bytes() as u64,
            },
            heap: self.heap.counts(),
        }
    }
}

/// The thread that runs cycles.
struct Driver<H: Heap> {
    inner: Arc<Inner<H>>,
    marker: Marker<H>,
    pace: Pace,
}

impl<H: Heap> Driver<H> {
    fn run(mut self) {
        let _abort = AbortOnPanic;
        loop {
            let inner = Arc::clone(&self.inner);
            let mut requests = inner.requests.lock();
            while requests.wanted <= requests.done && !requests.stop {
                inner.changed.wait(&mut requests);
            }
            if requests.stop {
                break;
            }
            requests.begun += 1;
            let number = requests.begun;
            drop(requests);
            if let Err(error) = self.cycle(number) {
                eprintln!("stackmark: {error}");
                std::process::abort();
            }
            let mut requests = inner.requests.lock();
            requests.done = number;
            let (ready, waiting) = requests.waiters.drain(..).partition(|(wanted, _)| *wanted <= number);
            requests.waiters = waiting;
            drop(requests);
            let ready: Vec<(u64, Waiter)> = ready;
            ready.into_iter().for_each(|(_, waiter)| waiter());
            inner.heap.finish_sweep();
            inner.heap.release(self.pace.goal());
        }
    }

    fn cycle(&mut self, number: u64) -> Result<(), CycleError> {
        let inner = &*self.inner;
        let (heap, runtime) = (&*inner.heap, &inner.runtime);
        heap.finish_sweep();
        self.pace.set_live(heap.counts().live_bytes as usize);
        runtime.take_cycle_maxima();
        let begun = Instant::now();

        inner.barrier.turn_on();
        runtime.handshake();
        let allocated_before = heap.allocated_since_cycle();
        heap.begin_cycle();
        self.marker.open();

        runtime.begin_scanning(number);
        inner.globals.visit(|words| inner.marking.shade(words));
        inner.handles.visit(|words| inner.marking.shade(words));
        runtime.scan_goroutines()?;
        self.mark_on();
        // What has changed since, so that the stopped world has little to look at.
        runtime.rescan_goroutines()?;
        self.mark_on();

        let stopping = Instant::now();
        let mut world = runtime.stop_world();
        let time_to_stop = stopping.elapsed();
        inner.barrier.take_buffers();
        let rescanned = world.rescan()?;
        self.marker.drain();
        if inner.verify {
            self.verify(&mut world, number)?;
        }
        inner.barrier.turn_off();
        let marked = self.marker.close();
        let allocated_meanwhile = heap.allocated_since_cycle().saturating_sub(allocated_before);
        heap.end_cycle(marked);
        world.end_scanning();
        let live = marked.bytes as usize + allocated_meanwhile;
        self.pace.cycle(live, allocated_meanwhile);
        heap.set_trigger(self.pace.trigger());
        let (longest_hold_ns, deepest_frames) = runtime.take_cycle_maxima();
        drop(world);
        let world_stop_ns = stopping.elapsed().as_nanos() as u64;
        runtime.stacks().trim();

        inner.pauses.record(world_stop_ns);
        let mut history = inner.history.lock();
        history.cycles += 1;
        if history.detail.len() == KEPT_CYCLES {
            history.detail.pop_front();
        }
        history.detail.push_back(CycleStats {
            deepest_frames,
            rescanned: rescanned.frames,
            skipped: rescanned.skipped,
            world_stop_ns,
            time_to_stop_ns: time_to_stop.as_nanos() as u64,
            longest_hold_ns,
            mark_ns: begun.elapsed().as_nanos() as u64,
            objects_marked: marked.objects,
            bytes_marked: marked.bytes,
            allocated_meanwhile: allocated_meanwhile as u64,
        });
        Ok(())
    }

    /// Marks until there is nothing left to trace, or nearly.
    fn mark_on(&self) {
        for _ in 0..ROUNDS {
            let more = self.inner.barrier.take_buffers();
            self.marker.drain();
            if !more {
                break;
            }
        }
    }

    /// Walks everything again from all roots.
    fn verify(&self, world: &mut stackmark_stack::WorldStopped, cycle: u64) -> Result<(), CycleError> {
        let mut verifier = Verifier::new(&*self.inner.heap);
        self.inner.globals.visit(|words| verifier.roots(words));
        self.inner.handles.visit(|words| verifier.roots(words));
        VERIFIED.set(Some(Vec::new()));
        let visited = world.visit_all();
        verifier.roots(&VERIFIED.take().expect("set just now"));
        visited?;
        verifier.finish().map_err(|error| CycleError::Unmarked { cycle, error })?;
        Ok(())
    }
}
