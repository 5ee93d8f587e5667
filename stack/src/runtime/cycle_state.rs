//! The state of the collector's cycle as far as it concerns stacks.

use crate::goroutine::Goroutine;
use crate::protocol::sync::{AtomicBool, AtomicU64, Condvar, Mutex, Ordering, fence};
use crate::protocol::{StackScan, Status};
use std::collections::VecDeque;
use std::hint::cold_path;
use std::sync::Arc;
use std::time::Duration;

/// The most dirty goroutines that one which becomes dirty looks at.
const LOOKED_AT: usize = 4;
/// How many it scans while the list is longer than [`MANY`], so that the list gets shorter.
const SCANNED_OF_MANY: usize = 2;
const MANY: usize = 8;

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
    /// The number of the last round of scans. The thread that drives the cycle writes it before it
    /// asks any goroutine to scan itself.
    round: AtomicU64,
    /// Goroutines whose stacks have unvisited frames in this cycle.
    unscanned: Mutex<Unscanned>,
    /// Goroutines that have run since their scan in this cycle.
    dirty: Mutex<VecDeque<Arc<Goroutine>>>,
    /// Young parts are bounded, and a goroutine that becomes dirty scans another one. Relaxed: it
    /// is set under the lock of `dirty`, and a goroutine reads it after it has been in that lock.
    bounds_young: AtomicBool,
    /// A stopped world has given away places of roots, of which native code may write some.
    /// Relaxed: it is set before the scan takes the lock that such code takes to read it. It is
    /// cleared before the world goes on, for which code waits that has seen it.
    lent: AtomicBool,
    /// How many scans in stopped worlds have begun, which may write the stacks of goroutines that
    /// stand at safepoints. Relaxed: the world is stopped when it is written, and a goroutine that
    /// reads it was stopped there.
    in_stopped_worlds: AtomicU64,
    /// Where the thread that drives the cycle waits for goroutines to scan themselves.
    scanned: (Mutex<()>, Condvar),
}

/// What the lists of an ended cycle held.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    _dirty: VecDeque<Arc<Goroutine>>,
    _unscanned: VecDeque<Arc<Goroutine>>,
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
            lent: AtomicBool::new(false),
            in_stopped_worlds: AtomicU64::new(0),
            scanned: (Mutex::new(()), Condvar::new()),
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
        // Pairs with the fence in `has_begun`: a goroutine that the scan finds dead finds the scan
        // begun when it comes to life.
        fence(Ordering::SeqCst);
    }

    /// The scans of this cycle are done, in a stopped world. `watch` says that the next
    /// cycle may continue them. Returns what the cycle's lists hold yet, for the world not to wait
    /// until each of many goroutines is let go.
    pub(crate) fn end(&self, watch: bool) -> Listed {
        // Relaxed, both: no goroutine runs, and the world's start orders.
        if !watch {
            self.watched.store(0, Ordering::Relaxed);
        }
        self.scanning.store(0, Ordering::Relaxed);
        self.bounds_young.store(false, Ordering::Relaxed);
        Listed {
            _dirty: std::mem::take(&mut *self.dirty.lock()),
            _unscanned: std::mem::take(&mut self.unscanned.lock().waiting),
        }
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

    /// Whether a cycle is scanning. For a thread that has stored what a scan looks at, a new
    /// goroutine for example: either the scan sees that, or this thread finds the scan begun.
    pub(crate) fn has_begun(&self) -> bool {
        // Pairs with the fence in `begin`.
        fence(Ordering::SeqCst);
        self.is_scanning()
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
        // Relaxed: a goroutine that takes a request of this round sees the number by the request's
        // Release. A thread that scans for an old request may note the last round's number; then
        // this round scans the goroutine again.
        self.round.fetch_add(1, Ordering::Relaxed);
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

    /// Whether [`CycleState::begins_to_run`] has nothing to do.
    #[inline]
    pub(crate) fn is_dirty(&self, goroutine: &Goroutine) -> bool {
        let cycle = self.watched();
        if cycle == 0 {
            return true;
        }
        cold_path();
        goroutine.dirty.is_marked(cycle)
    }

    /// Marks a goroutine that has become Running: from now on it may change what was scanned.
    /// Returns whether its young part is to be bounded, and it is to scan others.
    #[inline]
    pub(crate) fn begins_to_run(&self, goroutine: &Arc<Goroutine>) -> bool {
        let cycle = self.watched();
        cycle != 0 && !goroutine.dirty.is_marked(cycle) && self.become_dirty(goroutine, cycle)
    }

    #[cold]
    fn become_dirty(&self, goroutine: &Arc<Goroutine>, cycle: u64) -> bool {
        goroutine.dirty.mark(cycle);
        // `begin` writes `watched` before `scanning`, and no stack is scanned before `scanning` is
        // written.
        if !self.is_scanning() {
            return false;
        }
        self.push_dirty(goroutine.clone());
        // After the push: a goroutine that does not see the flag is in the list that
        // `begin_rescanning` takes.
        self.bounds_young()
    }

    /// Scans one or two goroutines of the list that can be held at once. `changed`, which runs
    /// again and is in the list, is not one of them. Waits for no goroutine: a stop of the world
    /// would wait for this thread. `scan` visits what has changed of a held goroutine.
    #[cold]
    pub(crate) fn help_rescan(
        &self,
        changed: &Arc<Goroutine>,
        mut scan: impl FnMut(&Arc<Goroutine>, &mut StackScan),
    ) {
        let mut scanned = 0;
        for _ in 0..LOOKED_AT {
            let wanted = |count| scanned < if count > MANY { SCANNED_OF_MANY } else { 1 };
            let Some(goroutine) = self.pop_dirty_if(wanted) else { return };
            if !Arc::ptr_eq(&goroutine, changed) {
                match goroutine.hold_now() {
                    Some(Ok(mut held)) => {
                        scan(&goroutine, &mut held.state);
                        goroutine.dirty.clear();
                        self.scanned(&goroutine);
                        scanned += 1;
                        continue;
                    }
                    Some(Err(Status::Dead)) => continue,
                    _ => {}
                }
            }
            self.push_dirty(goroutine);
        }
    }

    fn push_dirty(&self, goroutine: Arc<Goroutine>) {
        self.dirty.lock().push_back(goroutine);
    }

    /// Takes a dirty goroutine if `wanted` says so. `wanted` gets the number of dirty goroutines.
    fn pop_dirty_if(&self, wanted: impl FnOnce(usize) -> bool) -> Option<Arc<Goroutine>> {
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

    /// Begins a round of scans of the goroutines that are dirty at this moment, which it takes:
    /// their young parts may have any size. Otherwise as [`CycleState::bound_young`].
    pub(crate) fn begin_rescanning(&self) -> VecDeque<Arc<Goroutine>> {
        let mut dirty = self.dirty.lock();
        self.bounds_young.store(true, Ordering::Relaxed);
        let taken = std::mem::take(&mut *dirty);
        // After the list is taken. A goroutine that an old request has scan itself in the new round
        // is then in the list again, since it runs on. The other way round it would be in the list
        // that is taken, count as scanned, and be left out though it changes.
        self.begin_round();
        taken
    }

    /// Whether young parts are bounded.
    #[inline]
    pub(crate) fn bounds_young(&self) -> bool {
        self.bounds_young.load(Ordering::Relaxed)
    }

    /// A scan in a stopped world begins. It may write any stack, by barriers or by the places of
    /// roots that it gives away.
    pub(crate) fn begin_scan_in_stopped_world(&self) {
        self.in_stopped_worlds.fetch_add(1, Ordering::Relaxed);
    }

    /// How many scans in stopped worlds have begun.
    pub(crate) fn scans_in_stopped_worlds(&self) -> u64 {
        self.in_stopped_worlds.load(Ordering::Relaxed)
    }

    /// Whether a stopped world has given away places of roots that native code may write.
    pub(crate) fn has_lent_slots(&self) -> bool {
        self.lent.load(Ordering::Relaxed)
    }

    /// See [`CycleState::has_lent_slots`].
    pub(crate) fn lend_slots(&self, lent: bool) {
        self.lent.store(lent, Ordering::Relaxed);
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

#[cfg(all(test, stackmark_loom))]
mod models;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
