//! The state of the collector's cycle as far as it concerns stacks.

use crate::goroutine::Goroutine;
use crate::protocol::sync::{Condvar, Mutex as ProtocolMutex};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(crate) struct CycleState {
    /// The cycle that scans stacks or marks; 0 between cycles. Release: written after the handshake
    /// that turns the write barrier on. Goroutines read it Acquire when they begin to run.
    scanning: AtomicU64,
    /// The last cycle that has begun. Relaxed: only the thread that drives cycles uses it.
    last: AtomicU64,
    /// The cycle for which goroutines mark themselves dirty: the one that is scanning, or, between
    /// cycles, the last one if the next one may be short. Otherwise 0. Ordered as `scanning`.
    watched: AtomicU64,
    /// The cycle whose scans the present one continues; 0: none. Relaxed: written before
    /// `scanning`, while no scan runs.
    kept: AtomicU64,
    /// The number of the last round of scans. The thread that drives the cycle writes it, SeqCst,
    /// before it asks any goroutine to scan itself.
    round: AtomicU64,
    /// Goroutines whose stacks have unvisited frames in this cycle.
    unscanned: Mutex<Unscanned>,
    /// Goroutines that have run since their scan in this cycle.
    dirty: Mutex<VecDeque<Arc<Goroutine>>>,
    /// Young parts are bounded, and a goroutine that becomes dirty scans another one. Relaxed: it
    /// is set under the lock of `dirty`, and a goroutine reads it after it has been in that lock.
    bounds_young: AtomicBool,
    /// Where the thread that drives the cycle waits for goroutines to scan themselves.
    scanned: (ProtocolMutex<()>, Condvar),
}

/// Stacks with unvisited frames.
#[derive(Debug, Default)]
struct Unscanned {
    /// Those that no thread visits at this moment.
    waiting: VecDeque<Arc<Goroutine>>,
    /// How many threads are in the middle of a visit.
    visits: usize,
}

impl CycleState {
    /// The state before the first cycle.
    pub(crate) fn new() -> CycleState {
        CycleState {
            scanning: AtomicU64::new(0),
            last: AtomicU64::new(0),
            watched: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            round: AtomicU64::new(0),
            unscanned: Mutex::default(),
            dirty: Mutex::default(),
            bounds_young: AtomicBool::new(false),
            scanned: (ProtocolMutex::new(()), Condvar::new()),
        }
    }

    /// Cycle `cycle`, which is not 0, begins to scan. It continues the scans of cycle `kept`, or
    /// none if that is 0.
    ///
    /// # Panics
    /// If the number is 0 or not larger than the last one's, or if a cycle is scanning.
    pub(crate) fn begin(&self, cycle: u64, kept: u64) {
        assert!(!self.is_scanning(), "cycle {} is scanning: one at a time", self.scanning());
        let last = self.last.fetch_max(cycle, Ordering::Relaxed);
        assert!(cycle > last, "cycle {cycle} is not later than cycle {last}");
        // Relaxed: scans of this cycle read it after `scanning`.
        self.kept.store(kept, Ordering::Relaxed);
        // Release, both: pairs with the Acquire loads of `scanning` and `watched`. The write
        // barrier's flag and the handshake come before.
        self.watched.store(cycle, Ordering::Release);
        self.scanning.store(cycle, Ordering::Release);
        // Pairs with the fences in `Runtime::bring_to_life` and `Runtime::shade`: a goroutine that
        // the scan finds dead finds the scan begun when it comes to life.
        fence(Ordering::SeqCst);
    }

    /// The scans of this cycle are done, in a stopped world. `watch` says that the next
    /// cycle may continue them.
    pub(crate) fn end(&self, watch: bool) {
        if !watch {
            // Release: as `scanning`.
            self.watched.store(0, Ordering::Release);
        }
        // Release, and the world is stopped: no goroutine reads it at the same time.
        self.scanning.store(0, Ordering::Release);
        self.bounds_young.store(false, Ordering::Relaxed);
        self.dirty.lock().clear();
        self.unscanned.lock().waiting.clear();
    }

    /// The cycle that scans stacks or marks, or 0.
    #[inline]
    pub(crate) fn scanning(&self) -> u64 {
        // Acquire: pairs with the Release of `begin`. A goroutine that sees the cycle
        // has the write barrier on.
        self.scanning.load(Ordering::Acquire)
    }

    /// Whether a cycle is scanning stacks or marking.
    #[inline]
    pub(crate) fn is_scanning(&self) -> bool {
        self.scanning() != 0
    }

    /// The cycle for which goroutines mark themselves dirty, or 0.
    #[inline]
    pub(crate) fn watched(&self) -> u64 {
        // Acquire: as in `scanning`.
        self.watched.load(Ordering::Acquire)
    }

    /// The cycle whose scans the present one continues, or 0.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// A round of scans begins.
    pub(crate) fn begin_round(&self) {
        // SeqCst: before any goroutine is asked to scan itself.
        self.round.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the present round of scans has scanned the goroutine.
    pub(crate) fn has_scanned(&self, goroutine: &Goroutine) -> bool {
        // Acquire: pairs with the Release of `scanned`. The scan was done by another thread.
        goroutine.scanned_in.load(Ordering::Acquire) == self.round.load(Ordering::Relaxed)
    }

    /// The present round has scanned the goroutine: the roots visited are delivered, and the way to
    /// unvisited frames is blocked.
    pub(crate) fn scanned(&self, goroutine: &Goroutine) {
        // Release: a thread that sees the number sees the roots delivered.
        goroutine.scanned_in.store(self.round.load(Ordering::Relaxed), Ordering::Release);
    }

    /// Adds a goroutine whose stack has unvisited frames.
    pub(crate) fn push_unscanned(&self, goroutine: Arc<Goroutine>) {
        self.unscanned.lock().waiting.push_back(goroutine);
    }

    /// Takes a goroutine whose stack has unvisited frames, to visit some. Followed by
    /// [`CycleState::end_visit`].
    pub(crate) fn begin_visit(&self) -> Option<Arc<Goroutine>> {
        let mut unscanned = self.unscanned.lock();
        let goroutine = unscanned.waiting.pop_front()?;
        unscanned.visits += 1;
        Some(goroutine)
    }

    /// A visit for `cycle` is done, and its roots are delivered. `rest`: the goroutine, if it has
    /// unvisited frames left.
    pub(crate) fn end_visit(&self, cycle: u64, rest: Option<Arc<Goroutine>>) {
        let mut unscanned = self.unscanned.lock();
        unscanned.visits -= 1;
        // Another cycle's scans begin anew.
        unscanned.waiting.extend(rest.filter(|_| self.scanning() == cycle));
    }

    /// Whether every frame is visited: no stack waits, and no thread is in the middle of a visit.
    pub(crate) fn is_visited(&self) -> bool {
        let unscanned = self.unscanned.lock();
        unscanned.waiting.is_empty() && unscanned.visits == 0
    }

    /// Whether a stack has unvisited frames.
    pub(crate) fn has_unscanned(&self) -> bool {
        !self.unscanned.lock().waiting.is_empty()
    }

    /// Adds a goroutine that runs again.
    pub(crate) fn push_dirty(&self, goroutine: Arc<Goroutine>) {
        self.dirty.lock().push_back(goroutine);
    }

    /// Takes a dirty goroutine if `wanted` says so. `wanted` gets the number of dirty goroutines.
    pub(crate) fn pop_dirty_if(
        &self,
        wanted: impl FnOnce(usize) -> bool,
    ) -> Option<Arc<Goroutine>> {
        let mut dirty = self.dirty.lock();
        if wanted(dirty.len()) { dirty.pop_front() } else { None }
    }

    /// Takes all dirty goroutines.
    pub(crate) fn take_dirty(&self) -> VecDeque<Arc<Goroutine>> {
        std::mem::take(&mut *self.dirty.lock())
    }

    /// The number of dirty goroutines.
    pub(crate) fn dirty_goroutines(&self) -> usize {
        self.dirty.lock().len()
    }

    /// From now on young parts are bounded, and a goroutine that becomes dirty scans another one.
    pub(crate) fn bound_young(&self) {
        let _dirty = self.dirty.lock();
        self.bounds_young.store(true, Ordering::Relaxed);
    }

    /// As [`CycleState::bound_young`]. Takes the goroutines that are dirty at that moment: their
    /// young parts may have any size.
    pub(crate) fn begin_rescanning(&self) -> VecDeque<Arc<Goroutine>> {
        let mut dirty = self.dirty.lock();
        self.bounds_young.store(true, Ordering::Relaxed);
        std::mem::take(&mut *dirty)
    }

    /// Whether young parts are bounded.
    #[inline]
    pub(crate) fn bounds_young(&self) -> bool {
        self.bounds_young.load(Ordering::Relaxed)
    }

    /// Wakes the thread that waits for goroutines to scan themselves.
    pub(crate) fn notify_scanned(&self) {
        let (lock, changed) = &self.scanned;
        // The waiter sleeps only with the lock released, so it gets the notification.
        drop(lock.lock());
        changed.notify_all();
    }

    /// Waits for [`CycleState::notify_scanned`], at most for `timeout`.
    pub(crate) fn wait_for_scanned(&self, timeout: Duration) {
        let (lock, changed) = &self.scanned;
        drop(changed.wait_for(lock.lock(), timeout));
    }
}
