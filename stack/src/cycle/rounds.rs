//! Handshakes and rounds of scans, while the world runs.

use super::driver::CycleDriver;
use super::straggler::{Overdue, Straggler, Waiting};
use crate::goroutine::Goroutine;
use crate::memory::StackMemory;
use crate::protocol::{
    Request, Signal, Status,
    sync::{spin, unlock_fair},
};
use crate::runtime::{Activity, BarrierMode, Runtime, assert_no_lock};
use crate::scan::{self, MayMove, Root, ScanError, To};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the waiting thread tries again to hold a goroutine: one that was asked to scan itself
/// may park instead of polling.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// The frames of the goroutine so many places ahead are prefetched, and the record of one as many
/// beyond. Most have parked long ago, and to scan a few frames takes no longer than a few reads of
/// memory.
const AHEAD: usize = 4;

/// How much of each stack a cycle scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanScope {
    /// Whole stacks.
    Whole,
    /// *Short scans*: the cycle continues the scans of the last one. It visits only frames that may
    /// have run since: those up to and including the owner of the lowest unhit barrier. Of a
    /// goroutine that has not run it visits no frame. It always visits the words that a goroutine
    /// was handed: argument, resume value and transfer. A goroutine that the last cycle did not
    /// scan is scanned whole.
    ///
    /// For a collector with generations. Its minor collections keep the objects that the last
    /// collection has marked: these are *old*. The collector promises, besides contracts C1 to C3:
    ///
    /// - This collection does not move or free an object that the last collection has marked, or
    ///   that was allocated marked while it ran. (A collection that moves or frees old objects
    ///   scans whole stacks.)
    /// - Since the last collection, a reference to an object that is not old was stored through a
    ///   pointer into an older frame of the own stack (contract C3) only in one of two ways. A
    ///   write barrier made it a root of this collection, or
    ///   [`Caller::note_stack_write`](crate::Caller::note_stack_write) came first.
    ///
    /// The time for a stack depends on how many frames have run since, not on its depth.
    ///
    /// After Cheng, Harper and Lee, "Generational stack collection and profile-driven
    /// pretenuring" (PLDI 1998).
    Short,
}

impl CycleDriver {
    /// Returns when every machine has passed a safepoint, or has not run managed code, at some
    /// moment since the call began. What the caller wrote before is visible to all managed code
    /// that runs afterwards. Returns the goroutine that answered last, or `None` if there was none
    /// to wait for.
    ///
    /// # Panics
    /// On a thread that counts as running in this runtime.
    pub fn handshake(&mut self) -> Option<Straggler> {
        let runtime = self.runtime();
        runtime.assert_outside("a handshake");
        let mut waiting = Waiting::new(runtime);
        let machines = || runtime.registry.machines();
        runtime.world.handshake(machines, &mut waiting);
        waiting.end()
    }

    /// Begins to scan stacks for cycle `cycle`, which is not 0 and larger than every earlier one.
    /// The caller has turned the write barrier on for every goroutine. From now on, until
    /// [`CycleStopped::end_scanning`](crate::CycleStopped::end_scanning), goroutines that run count
    /// as changed since their scan.
    ///
    /// Returns false and begins nothing if the scope is [`ScanScope::Short`] and the last cycle did
    /// not end with [`NextCycle::MayBeShort`](crate::NextCycle::MayBeShort).
    ///
    /// # Panics
    /// If `cycle` is 0 or not larger than every earlier one, or if a cycle is scanning. On a thread
    /// that counts as running in this runtime.
    #[must_use]
    pub fn begin_scanning(&mut self, cycle: u64, scope: ScanScope) -> bool {
        let runtime = self.runtime();
        runtime.assert_outside("a scan of all stacks");
        let kept = match scope {
            ScanScope::Whole => 0,
            ScanScope::Short => match runtime.cycle.watched() {
                0 => return false,
                last => last,
            },
        };
        runtime.cycle.begin(cycle, kept);
        true
    }

    /// Begins the scan of every goroutine's stack. This thread scans the goroutines that stand
    /// still; the others scan themselves at their next poll. Returns when all scans have begun: no
    /// goroutine runs a frame whose roots have not gone to the collector. The frames beyond are
    /// left to [`Runtime::scan_frozen`]. Calls `between` after each goroutine: it may trace what
    /// has been found.
    ///
    /// # Errors
    /// [`ScanError`].
    ///
    /// # Panics
    /// If no cycle is scanning: see [`CycleDriver::begin_scanning`]. On a thread that counts as
    /// running in this runtime.
    pub fn scan_goroutines(&mut self, mut between: impl FnMut()) -> Result<(), ScanError> {
        let runtime = self.runtime();
        runtime.assert_may_scan();
        runtime.cycle.begin_round();
        let mut waiting = Vec::new();
        for goroutines in runtime.registry.portions() {
            for (at, goroutine) in goroutines.iter().enumerate() {
                let ahead = |by: usize| goroutines.get(at + by);
                ahead(2 * AHEAD).inspect(|goroutine| goroutine.prefetch());
                ahead(AHEAD).inspect(|goroutine| goroutine.prefetch_frames());
                if !runtime.try_scan(goroutine)? {
                    waiting.push(goroutine.clone());
                }
                between();
            }
        }
        runtime.wait_for_scans(waiting)
    }

    /// Begins to scan again what has changed of every goroutine that has run since its
    /// scan, while the world runs. So little is left for the stopped world. Called
    /// after [`CycleDriver::scan_goroutines`], and leaves frames to
    /// [`Runtime::scan_frozen`] as that does.
    ///
    /// Returns how many goroutines it has scanned again. If [`CycleDriver::dirty_goroutines`] are
    /// many afterwards, a further call is worth while. Bounds rescans, as
    /// [`CycleDriver::bound_rescans`] does: afterwards every goroutine is within the bound. With
    /// [`BarrierMode::Off`] it does nothing and returns 0.
    ///
    /// # Errors
    /// [`ScanError`].
    ///
    /// # Panics
    /// If no cycle is scanning: see [`CycleDriver::begin_scanning`]. On a thread that counts as
    /// running in this runtime.
    pub fn rescan_concurrently(&mut self) -> Result<usize, ScanError> {
        let runtime = self.runtime();
        if runtime.config.barriers == BarrierMode::Off {
            // Without barriers each rescan is whole, and leaves as much to the stopped world.
            return Ok(0);
        }
        runtime.assert_may_scan();
        let dirty = runtime.cycle.begin_rescanning();
        let count = dirty.len();
        runtime.wait_for_scans(dirty.into())?;
        Ok(count)
    }

    /// Bounds what [`CycleStopped::rescan_dirty`](crate::CycleStopped::rescan_dirty) will visit,
    /// for goroutines whose scan begins after this call, until the end of the cycle's scans. Of
    /// each dirty goroutine it visits at most [`CycleDriver::YOUNG_BYTES`] of frames, and one frame
    /// more. The goroutine pays for that at polls and at returns, in proportion to the frames that
    /// it makes and leaves. And a goroutine that becomes dirty scans others, so dirty goroutines
    /// stay few however fast goroutines take turns. With [`BarrierMode::Off`] it does nothing.
    ///
    /// Stacks in which no barrier can be placed have no bound: see
    /// [`Counters::refused`](crate::Counters::refused) and [`Runtime::pool_exhausted`].
    pub fn bound_rescans(&mut self) {
        let runtime = self.runtime();
        if runtime.config.barriers != BarrierMode::Off {
            runtime.cycle.bound_young();
        }
    }

    /// The most bytes of frames of one goroutine that a rescan visits in the stopped world where
    /// rescans are [bounded](CycleDriver::bound_rescans), the frame that the goroutine runs left
    /// out.
    pub const YOUNG_BYTES: usize = scan::YOUNG.most;

    /// How many goroutines have run since their scan in this cycle.
    pub fn dirty_goroutines(&self) -> usize {
        self.runtime().cycle.dirty_goroutines()
    }
}

impl Runtime {
    fn assert_may_scan(&self) {
        self.assert_outside("a scan of all stacks");
        assert!(
            !Runtime::has_stopped_world(),
            "this thread has stopped the world: none scans itself"
        );
        assert!(self.is_scanning(), "begin_scanning comes first");
    }

    fn wait_for_scans(&self, mut waiting: Vec<Arc<Goroutine>>) -> Result<(), ScanError> {
        let mut failed = None;
        let mut look = |waiting: &mut Vec<Arc<Goroutine>>| {
            waiting.retain(|goroutine| match self.try_scan(goroutine) {
                Ok(begun) => !begun,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            });
            waiting.is_empty()
        };
        if !spin(|| look(&mut waiting)) {
            let mut overdue = Overdue::since(Instant::now());
            while !look(&mut waiting) {
                self.cycle.wait_for_scanned(LOOK_AGAIN);
                overdue.report(self, |entry| entry.runs_one_of(&waiting));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Begins the goroutine's scan if it stands still; asks the goroutine if it runs. Returns
    /// whether the scan has begun.
    fn try_scan(&self, goroutine: &Arc<Goroutine>) -> Result<bool, ScanError> {
        if self.cycle.has_scanned(goroutine) {
            // The goroutine has scanned itself. This thread tells the
            // collector of its unvisited frames.
            self.tell_of_frozen();
            return Ok(true);
        }
        match goroutine.status() {
            Status::Dead => return Ok(true),
            // The goroutine needs the lock of its scan, which this thread would take.
            Status::Running => {
                ask_for_scan(goroutine);
                return Ok(false);
            }
            _ => {}
        }
        scan::with_memory_to_shrink(self, goroutine, |memory| self.scan_held(goroutine, memory))
    }

    /// The part of [`Runtime::try_scan`] under the goroutine's `scan_lock`.
    fn scan_held(
        &self,
        goroutine: &Arc<Goroutine>,
        memory: &mut Option<StackMemory>,
    ) -> Result<bool, ScanError> {
        let to = |words: &[usize]| self.roots(words);
        match goroutine.hold() {
            Ok(held) if self.cycle.has_scanned(goroutine) => {
                // The goroutine has scanned itself while this thread waited for the lock.
                drop(held);
                self.tell_of_frozen();
                Ok(true)
            }
            Ok(mut held) => {
                if scan::keep_scan(self, goroutine, &mut held.state, &to) {
                    return Ok(true);
                }
                let _span = self.observed().span(Activity::Scan, goroutine.id());
                let stays = goroutine.has_a_thread(held.status);
                let may_move = if stays { MayMove::No } else { MayMove::Into(memory) };
                // SAFETY: the goroutine is held.
                unsafe { scan::begin_scan(self, goroutine, &mut held.state, may_move, &to)? };
                let complete = held.state.is_complete();
                drop(held);
                if !complete {
                    self.tell_of_frozen();
                }
                Ok(true)
            }
            Err(Status::Dead) => Ok(true),
            Err(_) => {
                ask_for_scan(goroutine);
                Ok(false)
            }
        }
    }

    /// Whether [`Runtime::scan_frozen`] has a stack to visit.
    pub fn has_frozen(&self) -> bool {
        self.cycle.has_unscanned()
    }

    /// Visits a chunk of frozen frames of one stack: the goroutine cannot run them before. The
    /// roots go to the collector. Several threads may call it at the same time. Returns false if
    /// there was nothing to do.
    ///
    /// # Errors
    /// [`ScanError`].
    ///
    /// # Panics
    /// In an [`Observer`](crate::Observer), a [`RootSink`](crate::RootSink) or a visit of all
    /// stacks, which run under locks of goroutines.
    pub fn scan_frozen(&self) -> Result<bool, ScanError> {
        assert_no_lock("Runtime::scan_frozen");
        self.visit_frozen(&|words: &[usize]| self.roots(words))
    }

    /// Visits a chunk of frozen frames of one stack. The roots go to `to`. Returns false if there
    /// was nothing to do.
    ///
    /// # Errors
    /// [`ScanError`].
    pub(super) fn visit_frozen<R: Root>(&self, to: To<'_, R>) -> Result<bool, ScanError> {
        let Some(goroutine) = self.cycle.begin_visit() else { return Ok(false) };
        let _span = self.observed().span(Activity::Scan, goroutine.id());
        let (cycle, chunk) = (self.cycle.scanning(), self.config.chunk(true));
        let mut scan = goroutine.scan_lock();
        let visited = scan::visit_frozen(self, &goroutine, &mut scan, cycle, chunk, to);
        let more = !scan.is_complete();
        // The next visit may be of the same stack. Its goroutine does not wait for that one, too.
        unlock_fair(scan);
        self.cycle.end_visit(cycle, more.then_some(goroutine));
        self.statistics.counters.scanned_running.fetch_add(visited?, Ordering::Relaxed);
        Ok(true)
    }
}

/// Asks a goroutine that runs to scan itself. Without a fence: the caller looks again soon.
fn ask_for_scan(goroutine: &Goroutine) {
    goroutine.ask(Request::SCAN, Signal::Hint);
}
