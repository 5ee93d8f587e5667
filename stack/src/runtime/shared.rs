//! The runtime itself.

use super::config::{BarrierMode, Config, ModeInForce, RuntimeError};
use super::cycle_state::CycleState;
use super::entry_points::EntryPoints;
use super::host::{Host, RootSink, Schedule};
use super::observe::Observed;
use super::registry::Registry;
use super::stats::{Counters, CycleFigures, Histogram, Statistics};
use super::stubs::{claim, stubs};
use super::under_lock::under_lock;
use crate::alarm;
use crate::ending::{self, without_unwinding};
use crate::goroutine::Goroutine;
use crate::memory::StackPool;
use crate::protocol::{Request, World, sync};
use stackmark_unwind::Code;
use std::any::Any;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What all goroutines and machines of an embedder share.
///
/// All methods may be called from any thread, unless they say otherwise.
pub struct Runtime {
    /// The configuration, with the mode of barriers that is in force.
    pub(crate) config: Config,
    mode: ModeInForce,
    pub(crate) code: Arc<Code>,
    pub(crate) host: Box<dyn Host>,
    pub(crate) entry_points: EntryPoints,
    scheduler: OnceLock<Arc<dyn Schedule>>,
    sink: OnceLock<Arc<dyn RootSink>>,
    pub(crate) world: World,
    pub(crate) registry: Registry,
    pub(crate) cycle: CycleState,
    pub(crate) stacks: StackPool,
    pub(crate) statistics: Statistics,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("config", &self.config)
            .field("live", &self.registry.live())
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// A runtime over the code registered in `code`, which has no other runtime in its life. The
    /// entry points are those of `entry`.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub(crate) fn with_entry_points(
        mut config: Config,
        code: Arc<Code>,
        host: Box<dyn Host>,
        entry_points: EntryPoints,
    ) -> Result<Arc<Runtime>, RuntimeError> {
        /// The number of the next runtime. Every goroutine's record has its runtime's number.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        config.check()?;
        claim(&code)?;
        sync::prepare_fences();
        let mode = ModeInForce::new(&config);
        if let Some(protection) = mode.protection
            && mode.mode != mode.chosen
        {
            host.warn(&format!(
                "return addresses are protected ({protection}): no barriers, stacks are scanned \
                 whole"
            ));
        }
        config.barriers = mode.mode;
        if config.barriers != BarrierMode::Off {
            // Made here rather than in the first scan.
            stubs();
        }
        let handlers = alarm::prepare();
        if !handlers.is_empty() {
            host.warn(&format!(
                "handlers of signals {handlers:?} lack SA_ONSTACK and would overrun a goroutine's \
                 stack"
            ));
        }
        Ok(Arc::new(Runtime {
            stacks: StackPool::new(config.max_stack),
            registry: Registry::new(NEXT.fetch_add(1, Ordering::Relaxed), config.guard() as u32),
            config,
            mode,
            code,
            host,
            entry_points,
            scheduler: OnceLock::new(),
            sink: OnceLock::new(),
            world: World::new(),
            cycle: CycleState::new(),
            statistics: Statistics::default(),
        }))
    }

    /// Sets the scheduler, which runs goroutines that are ready. Called once.
    ///
    /// # Panics
    /// If the runtime has a scheduler already.
    pub fn set_scheduler(&self, scheduler: Arc<dyn Schedule>) {
        assert!(self.scheduler.set(scheduler).is_ok(), "a runtime has one scheduler");
    }

    /// Sets the collector's sink of roots. Gives `sink` back if the runtime has one already.
    pub(crate) fn set_root_sink(&self, sink: Arc<dyn RootSink>) -> Result<(), Arc<dyn RootSink>> {
        self.sink.set(sink)
    }

    /// The runtime's number. No other runtime of the process has it, and none has 0.
    #[inline]
    pub fn id(&self) -> u64 {
        self.registry.runtime()
    }

    /// The registered code.
    pub fn code(&self) -> &Arc<Code> {
        &self.code
    }

    /// The configuration. Its mode of barriers is the one in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The mode of barriers that is in force, and why.
    pub fn mode(&self) -> ModeInForce {
        self.mode
    }

    /// The embedder's own data: the host, if it is of this type.
    pub fn host<T: Host>(&self) -> Option<&T> {
        let host: &dyn Any = &*self.host;
        host.downcast_ref()
    }

    /// The number of goroutines that have not ended.
    pub fn live_goroutines(&self) -> usize {
        self.registry.live()
    }

    /// The goroutines that have not ended, at this moment.
    pub fn goroutines(&self) -> Vec<Arc<Goroutine>> {
        self.registry.goroutines()
    }

    /// The number of threads that have called in by themselves and not ended.
    pub fn attached_threads(&self) -> usize {
        self.registry.attached_threads()
    }

    /// Whether the goroutine is one of this runtime's.
    #[inline]
    pub(crate) fn owns(&self, goroutine: &Goroutine) -> bool {
        goroutine.runtime() == self.registry.runtime()
    }

    /// # Panics
    /// If the goroutine belongs to another runtime.
    #[inline]
    pub(crate) fn assert_own(&self, goroutine: &Goroutine) {
        assert!(self.owns(goroutine), "goroutine {} belongs to another runtime", goroutine.id());
    }

    /// Hands a Runnable goroutine to the scheduler.
    ///
    /// # Panics
    /// If there is no scheduler, or the goroutine belongs to another runtime.
    pub fn schedule(&self, goroutine: Arc<Goroutine>) {
        alarm::check_fork();
        self.assert_own(&goroutine);
        self.give_to_scheduler(goroutine);
    }

    /// As [`Runtime::schedule`], for a goroutine of this runtime.
    pub(super) fn give_to_scheduler(&self, goroutine: Arc<Goroutine>) {
        let scheduler = self.scheduler.get();
        let scheduler = scheduler.expect("a runtime that makes goroutines ready has a scheduler");
        without_unwinding("Schedule::ready", || scheduler.ready(goroutine));
    }

    /// Reserves processors for the collector if there is a scheduler: see
    /// [`Schedule::reserve_processors`].
    pub fn reserve_processors(&self, processors: usize) {
        if let Some(scheduler) = self.scheduler.get() {
            scheduler.reserve_processors(processors);
        }
    }

    /// Asks the goroutine of every machine to yield at its next poll.
    pub fn preempt_all(&self) {
        alarm::check_fork();
        let machines = self.registry.machines();
        Goroutine::ask_all(Request::YIELD, machines.iter().filter_map(|entry| entry.current()));
    }

    /// Whether a cycle is scanning stacks or marking.
    pub fn is_scanning(&self) -> bool {
        self.cycle.is_scanning()
    }

    /// The collector, if there is one.
    pub(crate) fn sink(&self) -> Option<&dyn RootSink> {
        self.sink.get().map(|sink| &**sink)
    }

    /// Gives roots to the collector, if there is one.
    pub(crate) fn roots(&self, words: &[usize]) {
        if let Some(sink) = self.sink() {
            under_lock("RootSink::roots", || sink.roots(words));
        }
    }

    /// Tells the collector, if there is one, when a stack has unvisited frames.
    pub(crate) fn tell_of_frozen(&self) {
        if self.cycle.has_unscanned()
            && let Some(sink) = self.sink()
        {
            without_unwinding("RootSink::stack_waits", || sink.stack_waits());
        }
    }

    /// Ends the process by [`Host::fatal`].
    pub fn fatal(&self, error: &dyn std::error::Error) -> ! {
        ending::claim();
        match without_unwinding("Host::fatal", || -> Infallible { self.host.fatal(error) }) {}
    }

    /// The place for an observer of the activities of this runtime and its collector.
    pub fn observed(&self) -> &Observed {
        &self.statistics.observed
    }

    /// The running totals. Each thread counts for itself the barriers that its goroutines return
    /// through: those since the last call are added by this one.
    pub fn counters(&self) -> &Counters {
        self.registry.gather_counts(&self.statistics.counters);
        &self.statistics.counters
    }

    /// How long goroutines stood still that would have run otherwise: they scanned their own
    /// stacks, or waited while they were held.
    pub fn holds(&self) -> &Histogram {
        &self.statistics.holds
    }

    /// How long goroutines that scanned their own stacks ran for it, in processor time of their
    /// threads. What their [holds](Runtime::holds) took beyond that is the system's, which ran
    /// other threads meanwhile.
    pub fn own_scans(&self) -> &Histogram {
        &self.statistics.own_scans
    }

    /// What scans and holds have met since the last call.
    pub fn take_cycle_figures(&self) -> CycleFigures {
        self.statistics.take_cycle_figures()
    }

    /// Bytes of stacks in use or pooled, and their maximum so far. Of a stack that grows in place
    /// only the part in use counts.
    pub fn stack_bytes(&self) -> StackBytes {
        StackBytes {
            resident: self.stacks.resident_bytes(),
            peak: self.stacks.resident_peak_bytes(),
        }
    }

    /// Gives stack memory that no goroutine uses back to the system, in pieces: no goroutine waits
    /// for more than one. A collector calls it while no cycle runs: during a cycle, freed stack
    /// memory must not be used for anything else (Go's issue 11267).
    pub fn trim_stacks(&self) {
        for goroutine in self.registry.take_shrunk() {
            loop {
                let mut memory = goroutine.memory.lock();
                let more = memory.as_mut().is_some_and(|stack| self.stacks.give_piece_back(stack));
                // The goroutine may wait to grow, or to end.
                sync::unlock_fair(memory);
                if !more {
                    break;
                }
            }
        }
        self.stacks.trim();
    }

    /// How often a barrier was not placed because no stub was left for it. Counts all
    /// runtimes of the process.
    pub fn pool_exhausted(&self) -> u64 {
        stubs().exhausted()
    }
}

/// The memory of stacks, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackBytes {
    /// In use or pooled.
    pub resident: usize,
    /// The maximum of `resident` so far.
    pub peak: usize,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for goroutine in self.registry.all() {
            goroutine.scan_lock().end(stubs());
            if let Some(memory) = goroutine.memory.lock().take() {
                self.stacks.give(memory);
            }
        }
    }
}
