//! The collector: cycles from their beginning to their end, on a thread of its own.
//!
//! 1. The last cycle's sweep is completed.
//! 2. The write barrier goes on everywhere, by a handshake; then allocation is black.
//! 3. Roots are shaded while the world runs: globals, handles, and the youngest frames of each
//!    goroutine's stack. The cycle's thread visits those of a goroutine that stands still; another
//!    goroutine visits its own at its next poll. The workers visit the older frames, which a
//!    frontier keeps the goroutine out of, and mark.
//! 4. When there is nothing left to trace, stacks that have run since their scan are scanned again
//!    in the same way, up to their watermark: the lowest rescan barrier that was not hit. What that
//!    finds is traced. From now on a goroutine that pushes frames scans them itself, and a barrier
//!    follows one that leaves frames. In a minor cycle that is so from step 3 on.
//! 5. When there is nothing left to trace again, the world stops. The write barrier's buffers are
//!    taken, stacks that have run since their scan are rescanned up to their watermark, and the
//!    rest is traced. Weak references are cleared, and the write barrier goes off. Many weak
//!    references are cleared while the world runs: it stops once more before the barrier goes off.
//! 6. The world runs again; what was not marked is swept.
//!
//! What step 5 visits of stacks is bounded, and so is the stop, whatever goroutines do: let dirty
//! goroutines be those that have run since their scan.
//!
//! - Of each it visits at most [`CycleDriver::YOUNG_BYTES`] of frames, and the frame that runs.
//!   That is an invariant of step 4, number 12 of `protocol/frontier` in `stackmark-stack`.
//! - There are few of them. In step 4 the collector scans until there are. From its beginning on a
//!   goroutine that becomes dirty scans one or two others. Those that it cannot scan are the ones
//!   that run at that moment, at most one on each machine.
//!
//! With [generations](Config::generational), a minor cycle begins with the marks of the last one.
//! Its roots are those of step 3 and the remembered set of the write barrier; of stacks it visits
//! only what has changed (see [`generation`](crate::generation)). A major one clears all marks
//! between steps 1 and 2. `plan` holds all that differs between the two.
//!
//! The tricolour invariant is that of Dijkstra, Lamport et al. ("On-the-fly garbage collection",
//! 1978): a black object does not refer to a white one, since the reference that a store puts into
//! memory is shaded. Stacks are grey until step 5. With a
//! [hybrid barrier](crate::write_barrier::Kind::Hybrid) a stack is black when it has been visited,
//! and step 4 and the rescans of step 5 fall away.

use std::sync::Arc;
use std::thread::JoinHandle;

use stackmark_stack::{CycleDriver, Runtime, alarm};

use self::driver::Driver;
use self::growth::CollectOnGrowth;
use self::plan::Planner;
use self::roots::RootReceiver;
use self::state::CollectorState;
use crate::generation::Generation;
use crate::handle::Handles;
use crate::heap::{BY_COLLECTOR, Heap};
use crate::mark::Marker;
use crate::stats::Statistics;
use crate::thread;
use crate::weak::WeakReferences;
use crate::write_barrier::WriteBarrier;

pub use self::config::Config;
pub use self::error::StartError;

mod config;
mod cycle;
mod driver;
mod error;
mod growth;
#[cfg(all(test, stackmark_loom))]
pub(crate) mod model;
pub(crate) mod phases;
mod plan;
mod requests;
mod roots;
mod state;

/// A concurrent collector over a heap. It may be shared by all threads. Dropping it ends its
/// threads, after the cycle that runs. The drop waits for that, unless the cycle would wait for the
/// thread: see [`Collector::collect`]. Requests that are not begun are dropped.
pub struct Collector<H: Heap> {
    state: Arc<CollectorState<H>>,
    thread: Option<JoinHandle<()>>,
}

impl<H: Heap> std::fmt::Debug for Collector<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("cycles", &self.state.cycles()).finish_non_exhaustive()
    }
}

impl<H: Heap> Collector<H> {
    /// Starts collecting `heap`, whose objects the goroutines of `runtime` refer to. A heap and a
    /// runtime have one collector in their lives.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        heap: Arc<H>,
        runtime: Arc<Runtime>,
        config: &Config,
    ) -> Result<Collector<H>, StartError> {
        config.check()?;
        let claim = heap.owner().claim(&runtime)?;
        if !heap.keep_marks(config.generational.is_some(), BY_COLLECTOR) {
            return Err(StartError::NoGenerations);
        }
        let marker = Marker::start(Arc::clone(&heap), Arc::downgrade(&runtime), config.workers)?;
        let planner = Planner::new(config);
        let trigger = planner.trigger();
        let marking = Arc::clone(marker.state());
        let state = Arc::new(CollectorState::new(heap.clone(), runtime, marking, config));
        let driver = Driver { collector: Arc::clone(&state), marker, planner };
        // The thread waits for the stacks that it is to scan, or ends without them.
        let (send, receive) = std::sync::mpsc::channel();
        let run = move || {
            if let Ok(stacks) = receive.recv() {
                driver.run(stacks);
            }
        };
        let thread = thread::spawn("stackmark-cycle".into(), "cycles", run)?;
        let sink = Arc::new(RootReceiver::new(&state, config.collect_every_poll));
        // The claims that last come last: an error leaves heap and runtime as they were.
        let stacks = CycleDriver::new(&state.runtime, sink)?;
        claim.settle(Box::new(CollectOnGrowth(Arc::downgrade(&state))))?;
        heap.set_trigger(trigger, BY_COLLECTOR);
        send.send(stacks).expect("the thread waits");
        Ok(Collector { state, thread: Some(thread) })
    }

    /// Asks for a cycle that begins after this call and collects everything. When it is complete
    /// the collector's thread calls `done`, which may make a goroutine ready. A panic in `done`
    /// ends the process. If the collector ends before, `done` is dropped.
    pub fn request(&self, done: impl FnOnce() + Send + 'static) {
        self.state.requests.add(Generation::All, Some(Box::new(done)));
    }

    /// As [`Collector::request`], but a minor cycle will do, if there are generations.
    pub fn request_minor(&self, done: impl FnOnce() + Send + 'static) {
        self.state.requests.add(Generation::Young, Some(Box::new(done)));
    }

    /// As [`Collector::request`], and waits until the cycle is complete.
    ///
    /// # Panics
    /// On a thread that the cycle would wait for: one that counts as running, one that has stopped
    /// the world, or a collector's own, which calls finalisation callbacks and what
    /// [`Collector::request`] was given.
    pub fn collect(&self) {
        self.state.runtime.assert_outside("a collection");
        assert!(
            !thread::is_collectors(),
            "a collector's own thread waits for no collection: a callback requests one, and returns"
        );
        assert!(!Runtime::has_stopped_world(), "no collection is waited for in a stopped world");
        self.state.requests.wait(Generation::All);
    }

    /// The heap.
    pub fn heap(&self) -> &Arc<H> {
        &self.state.heap
    }

    /// The runtime.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.state.runtime
    }

    /// The write barrier: its flag for generated code, its buffers for machines.
    pub fn write_barrier(&self) -> &Arc<WriteBarrier> {
        &self.state.barrier
    }

    /// The roots that native code holds.
    pub fn handles(&self) -> &Arc<Handles> {
        &self.state.handles
    }

    /// Weak references, finalisation callbacks and weak maps.
    pub fn weak_references(&self) -> &Arc<WeakReferences> {
        &self.state.weak
    }

    /// Adds global variables: every whole word in the address range `range` is a root from the next
    /// cycle on. References are stored there with the write barrier.
    ///
    /// # Safety
    /// As long as the collector lives the words stay mapped. They are accessed by whole words only,
    /// or by one thread at a time.
    pub unsafe fn add_globals(&self, range: std::ops::Range<usize>) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.state.globals.add(range) };
    }

    /// Everything that was counted so far.
    pub fn statistics(&self) -> Statistics {
        self.state.statistics()
    }
}

impl<H: Heap> Drop for Collector<H> {
    fn drop(&mut self) {
        // In the child of a fork it has no thread to wait for.
        alarm::check_fork();
        self.state.requests.stop();
        let Some(thread) = self.thread.take() else { return };
        if !thread::is_collectors()
            && !self.state.runtime.is_inside()
            && !Runtime::has_stopped_world()
        {
            // A thread that panicked has ended the process.
            let _ = thread.join();
        }
    }
}
