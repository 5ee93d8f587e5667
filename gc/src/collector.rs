//! The cycle, from its beginning to its end, on a thread of its own.
//!
//! 1. The last cycle's sweep is completed.
//! 2. The write barrier goes on, everywhere: a handshake; then allocation is black.
//! 3. Roots are shaded while the world runs: globals, handles, and of each goroutine's stack the
//!    youngest frames, by this thread if it stands still, else by itself at its next poll. The crew
//!    visits the others, which a frontier keeps the goroutine out of, and marks.
//! 4. When there is nothing left to trace, stacks that have run since their scan are scanned again
//!    up to their lowest unhit barrier, in the same way, and what that finds is traced.
//! 5. When there is nothing left to trace the world stops: the write barrier's buffers are taken,
//!    stacks that have run since their scan are rescanned up to their lowest unhit barrier, and the
//!    rest is traced. The barrier goes off.
//! 6. The world runs again; what was not marked is swept.
//!
//! With [generations](Config::generational), a minor cycle begins with the marks of the last one,
//! and with what the write barrier has recorded since as roots besides those of step 3; of stacks
//! it visits only what has changed (see [`generation`](crate::generation)). A major one clears all
//! marks between steps 1 and 2.
//!
//! The tricolour invariant is that of Dijkstra, Lamport et al. ("On-the-fly garbage collection",
//! 1978): a black object does not refer to a white one, since the reference that a store puts into
//! memory is shaded. Stacks are grey until step 5; with a [hybrid barrier](Kind::Hybrid) they are
//! black when they have been visited, and step 4 and the rescans fall away.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use stackmark_stack::observe::Activity;
use stackmark_stack::stats::{Histogram, REFUSALS};
use stackmark_stack::{Runtime, ScanError, Visited};

use crate::assist::Schedule;
use crate::generation::{Generation, Generational, Generations};
use crate::global::Globals;
use crate::handle::{Handle, Handles};
use crate::heap::{Growth, Heap};
use crate::mark::{AbortOnPanic, Marker, Shared, no_thread};
use crate::pace::{Measured, Pace};
use crate::stats::{BarrierStats, CycleStats, FrameStats, StackStats, Statistics};
use crate::verify::{UnmarkedObject, Verifier};
use crate::weak::{Callback, WeakReferences};
use crate::write_barrier::{Kind, Sink, WriteBarrier};

/// How many cycles [`Statistics::cycles_detail`] keeps.
const KEPT_CYCLES: usize = 100_000;

/// How often the buffers of the write barrier are emptied, at most, before the world stops all the
/// same: what is traced before need not be traced then.
const ROUNDS: usize = 4;

/// So many goroutines that have run since their scan may be left for the stopped world.
const FEW_GOROUTINES: usize = 16;

/// How often, at most, goroutines are rescanned that have run since: they help, so the second time
/// there are few.
const RESCANS: usize = 4;

/// A minor cycle that has marked for no longer leaves the frames that have run meanwhile to the
/// stopped world: they are few.
const BRIEF: Duration = Duration::from_micros(50);

/// How a collector behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads that mark, the one that runs cycles among them: so many processors the collector
    /// uses at a time.
    pub workers: usize,
    /// How much the heap may grow before the next cycle, in percent of what was live after the
    /// last; `None`: cycles only on request.
    pub percent: Option<u32>,
    /// How much memory objects and stacks should use together, in bytes: near it cycles come more
    /// often than `percent` asks for. It is exceeded where more than that is live; what a heap
    /// refuses beyond its own limit is another matter.
    pub memory_limit: Option<usize>,
    /// Which stores shade what. With [`Kind::Hybrid`] no stack is visited twice.
    pub write_barrier: Kind,
    /// Minor cycles between the major ones: they take the time that young objects need, whatever
    /// the size of the heap.
    pub generational: Option<Generational>,
    /// For debugging: after each mark, with the world stopped, walk everything again and abort if a
    /// reachable object is unmarked.
    pub verify: bool,
}

impl Default for Config {
    /// As Go: a quarter of the cores, at least one; 100 percent.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Config {
            workers: (cores / 4).max(1),
            percent: Some(100),
            memory_limit: None,
            write_barrier: Kind::default(),
            generational: None,
            verify: false,
        }
    }
}

/// A cycle that cannot be completed. The host is told and ends the process: roots are never
/// skipped.
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
    /// The next cycle is to collect everything.
    major: bool,
    stop: bool,
}

#[derive(Default)]
struct History {
    cycles: u64,
    minor: u64,
    detail: VecDeque<CycleStats>,
}

struct Inner<H: Heap> {
    heap: Arc<H>,
    runtime: Arc<Runtime>,
    marking: Arc<Shared<H>>,
    barrier: Arc<WriteBarrier>,
    handles: Arc<Handles>,
    weak: Arc<WeakReferences>,
    globals: Globals,
    schedule: Schedule,
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
    /// While this thread verifies, roots that it finds go here and are not marked. Others go on
    /// marking: a thread in native code may start a goroutine meanwhile.
    static VERIFIED: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
}

impl<H: Heap> stackmark_stack::Collector for Roots<H> {
    fn roots(&self, words: &[usize]) {
        // A thread that ends has lost the variable, and does not verify.
        let verifies = VERIFIED.try_with(|roots| {
            roots.borrow_mut().as_mut().map(|roots| roots.extend_from_slice(words))
        });
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
        f.debug_struct("Collector")
            .field("cycles", &self.inner.history.lock().cycles)
            .finish_non_exhaustive()
    }
}

impl<H: Heap> Collector<H> {
    /// Starts collecting `heap`, whose objects the goroutines of `runtime` refer to.
    ///
    /// # Errors
    /// If the system gives no thread: nothing is left then of what was started, and it may be tried
    /// again. [`Unsupported`](std::io::ErrorKind::Unsupported) if generations are asked for and the
    /// heap has none.
    ///
    /// # Panics
    /// If the runtime has a collector.
    pub fn start(
        heap: Arc<H>,
        runtime: Arc<Runtime>,
        config: &Config,
    ) -> std::io::Result<Collector<H>> {
        if config.generational.is_some() && !heap.keep_marks() {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        let marker = Marker::start(Arc::clone(&heap), Arc::downgrade(&runtime), config.workers)?;
        let marking = Arc::clone(marker.shared());
        let barrier =
            WriteBarrier::new(config.write_barrier, Arc::clone(&marking) as Arc<dyn Sink>);
        let pace = Pace::new(config.percent, config.memory_limit);
        let generations = config.generational.map(Generations::new);
        heap.set_trigger(trigger(&pace, generations.as_ref()));
        let handles = Handles::new(Arc::clone(&barrier));
        let inner = Arc::new(Inner {
            heap,
            runtime,
            marking,
            weak: WeakReferences::new(Arc::clone(&handles), Arc::clone(&barrier)),
            handles,
            barrier,
            globals: Globals::default(),
            schedule: Schedule::default(),
            verify: config.verify,
            requests: Mutex::default(),
            changed: Condvar::new(),
            history: Mutex::default(),
            pauses: Histogram::default(),
        });
        let driver = Driver { inner: Arc::clone(&inner), marker, pace, generations };
        let thread = std::thread::Builder::new().name("stackmark-cycle".into());
        let thread =
            thread.spawn(move || driver.run()).map_err(|error| no_thread("cycles", &error))?;
        let thread = Some(thread);
        // When nothing can fail any more: heap and runtime are as they were otherwise.
        let collector = Collector { inner, thread };
        let inner = &collector.inner;
        inner.runtime.set_collector(Arc::new(Roots { marking: Arc::clone(&inner.marking) }));
        inner.heap.on_growth(Box::new(Growing(Arc::downgrade(inner))));
        Ok(collector)
    }

    /// Asks for a cycle that begins after this call and collects everything. `done` is called, by
    /// the collector's thread, when it is complete: it may make a goroutine ready.
    pub fn request(&self, done: impl FnOnce() + Send + 'static) {
        self.inner.request(Generation::All, Some(Box::new(done)));
    }

    /// As [`Collector::request`], but a minor cycle will do, if there are generations.
    pub fn request_minor(&self, done: impl FnOnce() + Send + 'static) {
        self.inner.request(Generation::Young, Some(Box::new(done)));
    }

    /// As [`Collector::request`], and waits. Not from native code that a goroutine counts as
    /// Running in: the cycle would wait for the goroutine.
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

    /// Weak references, finalisation callbacks and weak maps.
    pub fn weak_references(&self) -> &Arc<WeakReferences> {
        &self.inner.weak
    }

    /// Adds global variables: every whole word in `range` is a root from the next cycle on.
    /// References are stored there with the write barrier.
    ///
    /// # Safety
    /// The words stay mapped and are only accessed by whole words, or by one thread at a time, as
    /// long as the collector lives.
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
    fn request(&self, generation: Generation, waiter: Option<Waiter>) {
        let mut requests = self.requests.lock();
        requests.major |= generation == Generation::All;
        let number = requests.begun + 1;
        requests.wanted = requests.wanted.max(number);
        requests.waiters.extend(waiter.map(|waiter| (number, waiter)));
        drop(requests);
        self.changed.notify_all();
    }

    /// Whether what `word` refers to is marked, or no object at all.
    fn is_marked(&self, word: usize) -> bool {
        self.heap.resolve(word).is_none_or(|object| self.heap.is_marked(object))
    }

    fn statistics(&self) -> Statistics {
        let counters = self.runtime.counters();
        let stacks = self.runtime.stacks();
        let history = self.history.lock();
        // Before what was placed, so that goroutines which run meanwhile do not make more of them
        // than that. Acquire: those loads stay behind these.
        let [hit, leapfrogged, removed] = [&counters.hit, &counters.leapfrogged, &counters.removed]
            .map(|counter| counter.load(Acquire));
        let refused =
            REFUSALS.iter().zip(&counters.refused).map(|(why, n)| (*why, n.load(Relaxed)));
        Statistics {
            cycles: history.cycles,
            minor_cycles: history.minor,
            cycles_detail: history.detail.iter().copied().collect(),
            pauses_ns: self.pauses.summary(),
            pauses_by_power: self.pauses.powers(),
            holds_ns: self.runtime.holds().summary(),
            frames: FrameStats {
                scanned_stopped: counters.scanned_stopped.load(Relaxed),
                scanned_running: counters.scanned_running.load(Relaxed),
                scanned_returning: counters.scanned_returning.load(Relaxed),
                rescanned: counters.rescanned.load(Relaxed),
                skipped: counters.skipped.load(Relaxed),
                kept: counters.kept.load(Relaxed),
            },
            barriers: BarrierStats {
                mode: self.runtime.mode(),
                placed: counters.placed.load(Relaxed),
                hit,
                leapfrogged,
                removed,
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

/// Who is told of the heap's growth.
struct Growing<H: Heap>(Weak<Inner<H>>);

impl<H: Heap> Growth for Growing<H> {
    fn reached_trigger(&self) {
        if let Some(inner) = self.0.upgrade() {
            inner.request(Generation::Young, None);
        }
    }

    fn handed_out(&self, bytes: usize) {
        if let Some(inner) = self.0.upgrade() {
            inner.schedule.assist(&inner.marking, inner.runtime.observed(), bytes);
        }
    }
}

/// The thread that runs cycles.
struct Driver<H: Heap> {
    inner: Arc<Inner<H>>,
    marker: Marker<H>,
    pace: Pace,
    generations: Option<Generations>,
}

/// The bytes that may be allocated until the next cycle begins.
fn trigger(pace: &Pace, generations: Option<&Generations>) -> usize {
    let trigger = pace.trigger();
    generations.map_or(trigger, |generations| generations.trigger(trigger))
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
            let wanted = if std::mem::take(&mut requests.major) {
                Generation::All
            } else {
                Generation::Young
            };
            drop(requests);
            inner.runtime.make_room(self.marker.workers());
            let (generation, due) =
                self.cycle(number, wanted).unwrap_or_else(|error| inner.runtime.fatal(&error));
            let mut requests = inner.requests.lock();
            requests.done = number;
            let (ready, waiting) =
                requests.waiters.drain(..).partition(|(wanted, _)| *wanted <= number);
            requests.waiters = waiting;
            drop(requests);
            let ready: Vec<(u64, Waiter)> = ready;
            due.into_iter().for_each(|(object, callback)| callback(object));
            ready.into_iter().for_each(|(_, waiter)| waiter());
            let span = inner.runtime.observed().span(Activity::Sweep, 0);
            inner.heap.finish_sweep();
            drop(span);
            self.learn_live();
            if let Some(generations) = &mut self.generations {
                generations.ended(generation, self.pace.goal());
            }
            if generation == Generation::All {
                inner.heap.release(self.pace.goal());
            }
            inner.runtime.make_room(0);
        }
    }

    /// What lives is known exactly when the sweep is complete.
    fn learn_live(&mut self) {
        let live = self.inner.heap.counts().live_bytes as usize;
        self.pace.set_live(live, self.inner.runtime.stacks().resident_bytes());
    }

    /// Runs a cycle; returns what it has collected, and the callbacks of objects that it has found
    /// unreachable.
    fn cycle(
        &mut self,
        number: u64,
        wanted: Generation,
    ) -> Result<(Generation, Vec<(Handle, Callback)>), CycleError> {
        self.inner.heap.finish_sweep();
        self.learn_live();
        let inner = Arc::clone(&self.inner);
        let (heap, runtime) = (&*inner.heap, &inner.runtime);
        runtime.take_cycle_maxima();
        let begun = Instant::now();
        let live_before = heap.counts().live_bytes as usize;
        let size = live_before + heap.allocated_since_cycle();
        let generation =
            self.generations.as_ref().map_or(Generation::All, |g| g.next(wanted, size));
        let short_scans = self.generations.as_ref().is_some_and(|g| g.config().short_scans);

        let _cycle = runtime.observed().span(Activity::Cycle, 0);
        if generation == Generation::All && self.generations.is_some() {
            heap.clear_marks();
        }
        inner.barrier.turn_on();
        let span = runtime.observed().span(Activity::Handshake, 0);
        let answered_last = runtime.handshake();
        drop(span);
        let allocated_before = heap.allocated_since_cycle();
        match generation {
            Generation::All => {
                // All that is reachable will be found without it.
                inner.barrier.forget_recorded();
                inner.schedule.begin(
                    live_before + allocated_before,
                    self.pace.expected(),
                    self.pace.goal(),
                );
            }
            // Without assists: at most what was allocated is traced, which bounds what can be
            // allocated meanwhile.
            Generation::Young => inner.schedule.begin(allocated_before, 0, usize::MAX),
        }
        heap.begin_cycle();
        self.marker.open();

        if generation == Generation::All || !short_scans || !runtime.begin_scanning_young(number) {
            runtime.begin_scanning(number);
        }
        inner.globals.visit(|words| inner.marking.shade(words));
        inner.handles.visit(|words| inner.marking.shade(words));
        runtime.scan_goroutines(|| self.marker.relieve())?;
        let scanned = Instant::now();
        self.mark_on();
        let hybrid = inner.barrier.kind() == Kind::Hybrid;
        if !hybrid && (generation == Generation::All || scanned.elapsed() > BRIEF) {
            self.rescan()?;
        }

        let pause = runtime.observed().span(Activity::Pause, 0);
        let stopping = Instant::now();
        let mut world = runtime.stop_world();
        let time_to_stop = stopping.elapsed();
        let stopped_last = world.straggler();
        inner.barrier.take_buffers();
        let rescanned = if hybrid {
            world.finish_scans()?;
            Visited::default()
        } else {
            world.rescan()?
        };
        self.marker.drain();
        let due = inner.weak.settle(|word| inner.is_marked(word), || self.marker.drain());
        if inner.verify {
            self.verify(&mut world, number)?;
        }
        inner.barrier.turn_off(self.generations.is_some());
        let marked = self.marker.close();
        let allocated_meanwhile = heap.allocated_since_cycle().saturating_sub(allocated_before);
        heap.end_cycle(marked);
        if short_scans {
            world.end_scanning_and_watch();
        } else {
            world.end_scanning();
        }
        let mark_ns = begun.elapsed().as_nanos() as u64;
        match generation {
            Generation::All => {
                self.pace.cycle(&Measured {
                    marked: marked.bytes as usize,
                    allocated: allocated_meanwhile,
                    mark_ns,
                });
            }
            Generation::Young => {
                let live = live_before + marked.bytes as usize + allocated_meanwhile;
                self.pace.set_live(live, runtime.stacks().resident_bytes());
            }
        }
        heap.set_trigger(trigger(&self.pace, self.generations.as_ref()));
        let (longest_hold_ns, deepest_frames) = runtime.take_cycle_maxima();
        drop(world);
        drop(pause);
        let world_stop_ns = stopping.elapsed().as_nanos() as u64;
        runtime.stacks().trim();

        inner.pauses.record(world_stop_ns);
        let mut history = inner.history.lock();
        history.cycles += 1;
        history.minor += u64::from(generation == Generation::Young);
        if history.detail.len() == KEPT_CYCLES {
            history.detail.pop_front();
        }
        history.detail.push_back(CycleStats {
            minor: generation == Generation::Young,
            deepest_frames,
            rescanned: rescanned.frames,
            skipped: rescanned.skipped,
            world_stop_ns,
            time_to_stop_ns: time_to_stop.as_nanos() as u64,
            stopped_last,
            answered_last,
            longest_hold_ns,
            mark_ns,
            objects_marked: marked.objects,
            bytes_marked: marked.bytes,
            allocated_meanwhile: allocated_meanwhile as u64,
            assisted: inner.schedule.assisted(),
        });
        Ok((generation, due))
    }

    /// Scans again what has changed since the scans, so that the stopped world has little to look
    /// at.
    fn rescan(&mut self) -> Result<(), ScanError> {
        for _ in 0..RESCANS {
            let rescanned = self.inner.runtime.rescan_goroutines()?;
            self.mark_on();
            if rescanned <= FEW_GOROUTINES {
                break;
            }
        }
        Ok(())
    }

    /// Marks until there is nothing left to trace, or nearly.
    fn mark_on(&mut self) {
        for _ in 0..ROUNDS {
            let inner = &self.inner;
            let more = inner.barrier.take_buffers()
                | inner.weak.shade_values(|word| inner.is_marked(word));
            self.marker.drain();
            if !more {
                break;
            }
        }
    }

    /// Walks everything again from all roots.
    fn verify(
        &self,
        world: &mut stackmark_stack::WorldStopped,
        cycle: u64,
    ) -> Result<(), CycleError> {
        let mut verifier = Verifier::new(&*self.inner.heap);
        self.inner.globals.visit(|words| verifier.roots(words));
        self.inner.handles.visit(|words| verifier.roots(words));
        self.inner.weak.visit_values(|word| verifier.roots(&[word]));
        VERIFIED.set(Some(Vec::new()));
        let visited = world.visit_all();
        verifier.roots(&VERIFIED.take().expect("set just now"));
        visited?;
        verifier.finish().map_err(|error| CycleError::Unmarked { cycle, error })?;
        Ok(())
    }
}
