//! The permits: how threads sleep, wake one another, pass permits on, and find a deadlock.
//!
//! Plain Rust over the shim, and over [`Work`] for the queues and the system, so that models run
//! this very code.
//!
//! Invariants:
//!
//! 1. Each permit is with a thread that runs or looks for a goroutine, with a thread that sleeps
//!    (`sleeping`), or with none (`free`). A thread whose permit was retaken counts as `blocked`
//!    until it comes back.
//! 2. A thread that queues a goroutine queues it, fences, and looks at the hint `unused`. If it is
//!    not 0, it wakes a thread under the lock. A thread that goes to sleep, or that frees a permit,
//!    writes the hint, fences if the hint was 0 until now, and looks at the queues. So one of the
//!    two sees the other, and no goroutine waits for ever. A reservation leaves that hint as it
//!    is, and needs no fence: the thread that ends it looks at the queues under the lock, too. A
//!    thread need not look for a goroutine of its own: it runs it before it sleeps, or hands it
//!    over.
//! 3. A deadlock is reported by a thread that has seen under the lock that all permits are unused,
//!    no thread is blocked, attached or awaited, and the queues are empty. Where one of these comes
//!    true last, a thread that sleeps is woken to look again.

use super::state::State;
use crate::protocol::sync::{
    AtomicBool, AtomicUsize, Condvar, LeftOut, Mutex, MutexGuard, Ordering, fence, heavy_fence,
    left_out, light_fence,
};
use std::time::Duration;

/// The most threads without a permit that are kept for later foreign calls.
const KEPT_THREADS: usize = 16;

/// What the permits need of the queues and of the system.
pub(super) trait Work {
    /// Whether a goroutine is in a queue.
    fn has_work(&self) -> bool;
    /// The number of threads that are away with their permits.
    fn count_away(&self) -> usize;
    /// The number of threads that have called in by themselves and not ended.
    fn attached_threads(&self) -> usize;
    /// Starts a thread that has a permit. Counts it in the state.
    ///
    /// # Errors
    /// The system gives no thread.
    fn start_thread(&self, state: &mut State) -> std::io::Result<()>;
}

/// What a thread can run.
pub(super) trait OwnWork {
    type Goroutine;
    /// A goroutine from the thread's own queue, or else from the shared one or another thread's.
    fn find(&self) -> Option<Self::Goroutine>;
    /// Whether the thread's own queue is empty.
    fn is_empty(&self) -> bool;
    /// Moves the goroutines of the thread's own queue to the shared one.
    fn hand_over(&self);
}

/// Whether a thread has its permit still.
#[derive(Debug, Default)]
pub(super) struct Permit {
    /// The monitor has retaken it. Written under the lock of the state. Relaxed reads: the thread
    /// looks again before each goroutine, and under the lock before it sleeps.
    retaken: AtomicBool,
}

impl Permit {
    /// Whether the monitor has retaken the permit.
    #[inline]
    pub(super) fn is_retaken(&self) -> bool {
        self.retaken.load(Ordering::Relaxed)
    }

    fn set_retaken(&self, retaken: bool) {
        self.retaken.store(retaken, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Permits {
    /// How many there are.
    count: usize,
    state: Mutex<State>,
    waiters: Waiters,
    hints: Hints,
    /// The number of awaited wake-ups from outside of goroutines.
    awaited: AtomicUsize,
    /// The threads shall end. Relaxed: a thread that sees it late runs one more goroutine.
    stop: AtomicBool,
}

/// Where threads wait, with the lock of the state.
#[derive(Debug, Default)]
struct Waiters {
    /// Threads that sleep with a permit.
    work: Condvar,
    /// Threads that wait for a permit.
    permit: Condvar,
    /// Callers that wait for the end of all threads.
    ended: Condvar,
    /// The monitor.
    look: Condvar,
}

/// The parts of the state that threads read without its lock. Written under the lock.
#[derive(Debug, Default)]
struct Hints {
    /// [`State::unused`]: whether a thread may have to be woken. Relaxed: invariant 2 orders it.
    unused: AtomicUsize,
    /// [`State::wakeable`]: whether one can be. Relaxed: a guess.
    wakeable: AtomicUsize,
    /// [`State::is_crowded`]. Relaxed: a thread that sees it late runs one more goroutine.
    crowded: AtomicBool,
}

impl Permits {
    /// So many permits, for threads that are to be started.
    pub(super) fn new(count: usize) -> Permits {
        Permits {
            count,
            state: Mutex::default(),
            waiters: Waiters::default(),
            hints: Hints::default(),
            awaited: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The state, locked.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether the threads shall end.
    #[inline]
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The threads shall end. Called with the lock of the state.
    pub(super) fn stop(&self, state: &mut State) {
        self.stop.store(true, Ordering::Relaxed);
        state.stopped = true;
        self.waiters.work.notify_all();
        self.waiters.permit.notify_all();
        self.waiters.look.notify_all();
    }

    /// Returns when no thread is left.
    pub(super) fn wait_for_the_end(&self) {
        let mut state = self.state.lock();
        while state.live > 0 {
            state = self.waiters.ended.wait(state);
        }
    }

    /// Writes the hints after the state has changed, before this thread looks at the queues.
    fn publish(&self, state: &State) {
        let rises = self.hints.unused.load(Ordering::Relaxed) == 0 && state.unused() > 0;
        self.hints.unused.store(state.unused(), Ordering::Relaxed);
        self.hints.wakeable.store(state.wakeable(), Ordering::Relaxed);
        // Invariant 2: pairs with the light fence in `wake_one`. Where the hint was not 0, a fence
        // has come since it was: a thread that reads it as 0 did so before that fence, and what it
        // has queued is visible. The lock of the state orders that fence before this one's looks.
        if rises && !left_out(LeftOut::WakeFence) {
            heavy_fence();
        }
    }

    /// Whether no goroutine can become ready any more, if the queues are empty, too.
    fn is_quiescent(&self, work: &impl Work, state: &State) -> bool {
        // Relaxed: the thread that ends the wait has queued the goroutine before. So it has passed
        // the light fence of invariant 2, and the heavy one is behind this thread. If this thread
        // does not see the goroutine, the other waits for the lock before it ends the wait.
        state.unused() == self.count
            && state.blocked == 0
            && self.awaited.load(Ordering::Relaxed) == 0
            && work.attached_threads() == 0
    }

    /// The next goroutine for this thread; waits until there is one. `None`: the thread ends.
    #[inline]
    pub(super) fn next<O: OwnWork>(
        &self,
        work: &impl Work,
        permit: &Permit,
        own: &O,
        on_deadlock: impl Fn(),
    ) -> Option<O::Goroutine> {
        loop {
            if permit.is_retaken() {
                self.regain(work, permit, own)?;
            }
            if self.is_stopping() {
                return None;
            }
            if self.hints.crowded.load(Ordering::Relaxed) && self.gives_way(work, own) {
                self.sleep(work, permit, own, &on_deadlock)?;
                continue;
            }
            if let Some(goroutine) = own.find() {
                return Some(goroutine);
            }
            self.sleep(work, permit, own, &on_deadlock)?;
        }
    }

    /// Sleeps until there may be work. `None`: the scheduler stops.
    fn sleep(
        &self,
        work: &impl Work,
        permit: &Permit,
        own: &impl OwnWork,
        on_deadlock: impl Fn(),
    ) -> Option<()> {
        let mut state = self.state.lock();
        if permit.is_retaken() {
            // The monitor has retaken the permit just now: the thread has none to sleep with.
            return Some(());
        }
        state.sleeping += 1;
        self.publish(&state);
        while !state.stopped && (state.wakeable() == 0 || !work.has_work() && own.is_empty()) {
            if !state.deadlock_reported && self.is_quiescent(work, &state) && !work.has_work() {
                state.deadlock_reported = true;
                drop(state);
                on_deadlock();
                state = self.state.lock();
                continue;
            }
            state = self.waiters.work.wait(state);
        }
        state.sleeping -= 1;
        state.deadlock_reported = false;
        self.publish(&state);
        (!state.stopped).then_some(())
    }

    /// A goroutine was queued: wakes a thread for it, if one can be woken.
    #[inline]
    pub(super) fn wake_one(&self, work: &impl Work) {
        // Invariant 2: pairs with the heavy fence in `publish`.
        light_fence();
        if self.hints.unused.load(Ordering::Relaxed) != 0 {
            self.wake(work, &mut self.state.lock());
        }
    }

    /// Whether a thread runs, or may come back to run, without a permit.
    pub(super) fn any_blocked(&self) -> bool {
        self.state.lock().blocked > 0
    }

    /// Whether there may be a thread to wake.
    pub(super) fn can_wake(&self) -> bool {
        self.hints.wakeable.load(Ordering::Relaxed) != 0
    }

    /// Wakes a thread that sleeps. Without one, and with a free permit, wakes a thread that waits
    /// for a permit, or starts a thread.
    #[cold]
    fn wake(&self, work: &impl Work, state: &mut State) {
        if state.wakeable() == 0 {
            // No thread may be woken. The threads that run find the queued goroutines.
        } else if state.sleeping > 0 {
            self.waiters.work.notify_one();
        } else if !state.stopped {
            // A permit is free: it may be used, and no thread sleeps with one.
            if state.standby > 0 {
                self.waiters.permit.notify_one();
            } else if work.start_thread(state).is_ok() {
                state.free -= 1;
                self.publish(state);
            } else {
                state.spawn_failed = true;
            }
        }
    }

    /// Wakes a thread for goroutines that another thread keeps for itself. `open` moves them to
    /// where all threads find them. That is done under the lock: no thread looks for a deadlock
    /// while they are in no queue. (A thread that takes one for itself has a permit.)
    pub(super) fn rouse(&self, work: &impl Work, open: impl FnOnce()) {
        if left_out(LeftOut::RouseLock) {
            open();
            return self.wake_one(work);
        }
        let mut state = self.state.lock();
        open();
        self.wake(work, &mut state);
    }

    /// Tries again to start a thread, if the last start has failed.
    pub(super) fn try_again(&self, work: &impl Work) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.spawn_failed) && work.has_work() {
            self.wake(work, &mut state);
        }
    }

    /// Retakes the permit of a thread if `is_away` says, under the lock, that its goroutine has
    /// been away all the time. The thread may have come back meanwhile, and sleep. If it comes back
    /// later, it finds its permit retaken before it sleeps. Returns whether it is retaken.
    pub(super) fn retake(
        &self,
        work: &impl Work,
        permit: &Permit,
        is_away: impl FnOnce() -> bool,
    ) -> bool {
        let mut state = self.state.lock();
        if !is_away() {
            return false;
        }
        permit.set_retaken(true);
        state.blocked += 1;
        state.free += 1;
        self.publish(&state);
        if work.has_work() {
            self.wake(work, &mut state);
        }
        true
    }

    /// The permit of this thread was retaken while its goroutine was away. Takes a free permit.
    /// Without one, has the thread's queue handed over and waits until a permit is free and a
    /// goroutine is queued. `None`: the thread is not needed any more.
    #[cold]
    fn regain(&self, work: &impl Work, permit: &Permit, own: &impl OwnWork) -> Option<()> {
        let mut state = self.state.lock();
        permit.set_retaken(false);
        state.blocked -= 1;
        if !state.may_take() {
            own.hand_over();
            // Notifies even if nothing was queued: a thread that sleeps may then find a deadlock.
            self.waiters.work.notify_one();
            if state.standby < KEPT_THREADS {
                state.standby += 1;
                while !state.stopped && (!state.may_take() || !work.has_work()) {
                    state = self.waiters.permit.wait(state);
                }
                state.standby -= 1;
            }
        }
        if !state.may_take() || state.stopped {
            // `thread_ends` counts the thread as blocked, not as one with a permit.
            permit.set_retaken(true);
            state.blocked += 1;
            return None;
        }
        state.free -= 1;
        self.publish(&state);
        Some(())
    }

    /// A thread has ended, by itself or while it ran a goroutine. Its queue is handed over.
    pub(super) fn thread_ends(&self, work: &impl Work, permit: &Permit) {
        let mut state = self.state.lock();
        state.live -= 1;
        if permit.is_retaken() {
            state.blocked -= 1;
        } else {
            state.free += 1;
        }
        self.publish(&state);
        if state.spawn_failed {
            // The next thread would end in the same way: the monitor tries again.
        } else if work.has_work() || state.live == 0 {
            self.wake(work, &mut state);
        } else {
            // A thread that sleeps may now find a deadlock.
            self.waiters.work.notify_one();
        }
        self.waiters.ended.notify_all();
    }

    /// See [`Scheduler::await_wakeup`](super::Scheduler::await_wakeup).
    pub(super) fn await_wakeup(&self) {
        // Relaxed: the goroutine parks afterwards, and its thread finds the deadlock later still,
        // under the lock.
        self.awaited.fetch_add(1, Ordering::Relaxed);
    }

    /// See [`Scheduler::wakeup_done`](super::Scheduler::wakeup_done).
    pub(super) fn wakeup_done(&self) {
        // Relaxed: see `is_quiescent`.
        let awaited = self.awaited.fetch_sub(1, Ordering::Relaxed);
        assert_ne!(awaited, 0, "await_wakeup comes first");
        // All threads may have gone to sleep, and wait for just this wake-up. The fence pairs with
        // the heavy fence in `publish`.
        fence(Ordering::SeqCst);
        if self.hints.unused.load(Ordering::Relaxed) != 0 {
            let state = self.state.lock();
            // Else a thread runs, which looks for a deadlock when it goes to sleep.
            if state.wakeable() > 0 {
                self.waiters.work.notify_all();
            }
        }
    }

    /// Whether this thread gives way to the collector and sleeps, though there may be work. If so,
    /// its queue is handed over.
    #[cold]
    fn gives_way(&self, work: &impl Work, own: &impl OwnWork) -> bool {
        let state = self.state.lock();
        if !state.is_crowded() {
            self.hints.crowded.store(false, Ordering::Relaxed);
            return false;
        }
        // One thread goes on; it asks again before its next goroutine.
        let others_run = self.count.saturating_sub(state.unused() + work.count_away()) > 1;
        if others_run {
            own.hand_over();
        }
        others_run
    }

    /// Leaves `wanted` permits unused from now on, for a collector.
    pub(super) fn reserve(&self, work: &impl Work, wanted: usize) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.reserved_for_gc, wanted);
        if before == wanted {
            return;
        }
        self.publish(&state);
        self.hints.crowded.store(state.is_crowded(), Ordering::Relaxed);
        if work.has_work() {
            (wanted..before).for_each(|_| self.wake(work, &mut state));
        }
        // The monitor is woken only where that helps: it, too, takes a processor from a goroutine.
        if wanted > before && is_pressed(work, &state) {
            self.waiters.look.notify_one();
        }
    }

    /// Lets the monitor sleep for `delay`. Not longer than `pressed` if a collector has reserved
    /// permits and goroutines wait, nor than `asleep` if a thread can be woken while another runs.
    /// Returns whether more permits are used than shall be.
    pub(super) fn wait_to_look(
        &self,
        work: &impl Work,
        delay: &mut Duration,
        pressed: Duration,
        asleep: Duration,
    ) -> bool {
        let state = self.state.lock();
        if state.wakeable() > 0 && state.unused() < self.count {
            *delay = (*delay).min(asleep);
        }
        if state.reserved_for_gc > 0 && is_pressed(work, &state) {
            *delay = (*delay).min(pressed);
        }
        self.waiters.look.wait_for(state, *delay).is_crowded()
    }
}

/// Whether goroutines wait for a thread, or more permits are used than the reservation allows.
fn is_pressed(work: &impl Work, state: &State) -> bool {
    state.is_crowded() || work.has_work()
}

#[cfg(all(test, stackmark_loom))]
mod models;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
