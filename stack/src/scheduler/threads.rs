//! The threads that run goroutines: how they find goroutines, sleep, wake one
//! another, and pass permits on.

use super::queues::{Queue, Queues, WorkerThread};
use super::state::State;
use crate::ending;
use crate::goroutine::Goroutine;
use crate::machine::{AttachError, Left, Machine};
use crate::os;
use crate::protocol::sync::{heavy_fence, light_fence};
use crate::runtime::{Runtime, Schedule};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};

/// The most threads without a permit that are kept for later foreign calls.
const KEPT_THREADS: usize = 16;

thread_local! {
    /// The queue of this thread, if it is a scheduler's. It has no destructor, so that it can be
    /// read to the very end of the thread.
    static LOCAL: Cell<*const Local> = const { Cell::new(ptr::null()) };
    /// Its destructor does what is to be done at the end of the thread, however that ends.
    static AT_END: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
}

struct Local {
    queue: Queue,
    scheduler: *const Scheduler,
}

/// Dropped at the end of its thread, also of a thread that ends while it runs a goroutine.
struct AtEnd {
    scheduler: Arc<Scheduler>,
    worker: Arc<WorkerThread>,
    /// Boxed here and not in a frame: a thread that ends while it runs a goroutine loses its frames
    /// before LOCAL is reset.
    local: Box<Local>,
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        LOCAL.set(ptr::null());
        self.scheduler.queues.hand_over(&self.local.queue);
        self.scheduler.thread_ends(&self.worker);
    }
}

/// The function that is called when no goroutine can ever run again.
pub type OnDeadlock = Box<dyn Fn() + Send + Sync>;

/// See the [module](crate::scheduler).
pub struct Scheduler {
    this: Weak<Scheduler>,
    pub(super) runtime: Weak<Runtime>,
    pub(super) queues: Queues,
    /// How many threads run managed code at a time.
    pub(super) threads: usize,
    /// Processors of the machine.
    processors: usize,
    pub(super) state: Mutex<State>,
    pub(super) waiters: Waiters,
    hints: Hints,
    /// The number of awaited wake-ups from outside of goroutines. SeqCst: see `is_quiescent`.
    awaited: AtomicUsize,
    /// The threads shall end. Relaxed: a thread that sees it late runs one more goroutine.
    pub(super) stop: AtomicBool,
    on_deadlock: OnDeadlock,
}

/// Where threads wait, with the lock of the state.
#[derive(Default)]
pub(super) struct Waiters {
    /// Threads that sleep with a permit.
    pub(super) work: Condvar,
    /// Threads that wait for a permit.
    pub(super) permit: Condvar,
    /// Callers that wait for the end of all threads.
    pub(super) ended: Condvar,
    /// The monitor.
    pub(super) look: Condvar,
}

/// The parts of the state that threads read without its lock. Written under the lock.
#[derive(Default)]
struct Hints {
    /// [`State::wakeable`]: whether a thread can be woken. A thread that has queued a goroutine
    /// reads it after a light fence, which pairs with the heavy fence in `publish_wakeable`.
    wakeable: AtomicUsize,
    /// [`State::is_crowded`]. Relaxed: a thread that sees it late runs one more goroutine.
    crowded: AtomicBool,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Whether the calling thread is a scheduler's.
pub(super) fn is_worker_thread() -> bool {
    !LOCAL.get().is_null()
}

impl Scheduler {
    /// The most threads that run managed code at a time.
    pub const MOST_THREADS: usize = 1 << 14;

    /// Makes the scheduler of the runtime. It runs managed code on `threads` threads at a time.
    ///
    /// One of the threads calls `on_deadlock`, once for each deadlock. A deadlock is when all
    /// threads sleep, no goroutine is ready or in a foreign call, no thread is attached that has
    /// called in by itself, and no wake-up is [awaited](Scheduler::await_wakeup).
    ///
    /// # Panics
    /// If `threads` is 0 or more than [`Scheduler::MOST_THREADS`], or if the runtime has a
    /// scheduler already.
    pub fn new(runtime: &Arc<Runtime>, threads: usize, on_deadlock: OnDeadlock) -> Arc<Scheduler> {
        assert!(
            (1..=Scheduler::MOST_THREADS).contains(&threads),
            "a scheduler runs 1 to {} threads at a time, not {threads}",
            Scheduler::MOST_THREADS
        );
        let scheduler = Arc::new_cyclic(|this| Scheduler {
            this: this.clone(),
            runtime: Arc::downgrade(runtime),
            queues: Queues::default(),
            threads,
            processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
            state: Mutex::default(),
            waiters: Waiters::default(),
            hints: Hints::default(),
            awaited: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            on_deadlock,
        });
        runtime.set_scheduler(scheduler.clone());
        scheduler
    }

    /// Starts a thread that has a permit.
    pub(super) fn start_thread(&self, state: &mut State) -> std::io::Result<()> {
        let number = state.next;
        let queue = Queue::new_fifo();
        let worker = Arc::new(WorkerThread::new(number, &queue));
        let scheduler = self.this.upgrade().expect("this scheduler is there");
        let its_worker = worker.clone();
        let thread = std::thread::Builder::new()
            .name(format!("machine-{number}"))
            .stack_size(os::default_thread_stack());
        let run = move || {
            // The starting thread holds the lock until all threads are started, or one has failed.
            drop(scheduler.state.lock());
            let local = Box::new(Local { queue, scheduler: Arc::as_ptr(&scheduler) });
            let at = &raw const *local;
            LOCAL.set(at);
            let at_end = AtEnd { scheduler: scheduler.clone(), worker: its_worker.clone(), local };
            AT_END.set(Some(at_end));
            // SAFETY: the box stays in place until AT_END is emptied, below.
            scheduler.run_thread(unsafe { &*at }, &its_worker);
            drop(AT_END.take());
        };
        thread.spawn(|| ending::run_thread(run))?;
        (state.next, state.live) = (number + 1, state.live + 1);
        self.queues.add(worker);
        Ok(())
    }

    fn run_thread(&self, local: &Local, worker: &WorkerThread) {
        let Some(runtime) = self.runtime.upgrade() else { return };
        let machine = match Machine::attach(&runtime) {
            Ok(machine) => machine,
            Err(AttachError::SignalStack(_)) => {
                // There is no memory for it now. The monitor tries again.
                self.state.lock().spawn_failed = true;
                return;
            }
            // Each thread that is started instead would fail as well.
            Err(error) => panic!("a scheduler's thread cannot be attached: {error}"),
        };
        drop(runtime);
        worker.set_watch(machine.watch());
        let mut turn = 0usize;
        while let Some(goroutine) = self.next(local, worker, turn) {
            turn = turn.wrapping_add(1);
            if let Left::Yielded(goroutine) = machine.run(goroutine) {
                // To the end of the queue. If it is alone there, no thread is woken for it.
                let alone = local.queue.is_empty();
                local.queue.push(goroutine);
                if !alone {
                    self.wake_one();
                }
            }
        }
    }

    /// The next goroutine to run; waits until there is one. `None`: the thread ends.
    #[inline]
    fn next(&self, local: &Local, worker: &WorkerThread, turn: usize) -> Option<Arc<Goroutine>> {
        loop {
            if worker.is_retaken() {
                self.regain_permit(local, worker)?;
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if self.hints.crowded.load(Ordering::Relaxed) && self.gives_way(local) {
                self.sleep(local, worker)?;
                continue;
            }
            if let Some(goroutine) = self.queues.find(&local.queue, worker, turn) {
                return Some(goroutine);
            }
            self.sleep(local, worker)?;
        }
    }

    /// Whether this thread gives way to the collector and sleeps, though there may be work. If so,
    /// it has moved its queue to the shared one.
    #[cold]
    fn gives_way(&self, local: &Local) -> bool {
        let state = self.state.lock();
        if !state.is_crowded() {
            self.hints.crowded.store(false, Ordering::Relaxed);
            return false;
        }
        // One thread goes on; it asks again before its next goroutine.
        let gives_way = self.others_run(&state);
        if gives_way {
            self.queues.hand_over(&local.queue);
        }
        gives_way
    }

    /// Whether goroutines wait for a thread, or more permits are used than the reservation allows.
    pub(super) fn is_pressed(&self, state: &State) -> bool {
        state.is_crowded() || self.queues.has_work()
    }

    /// Whether another thread runs a goroutine or looks for one.
    fn others_run(&self, state: &State) -> bool {
        self.threads.saturating_sub(state.unused() + self.queues.count_away()) > 1
    }

    /// Writes the hint `wakeable` after the state has changed.
    pub(super) fn publish_wakeable(&self, state: &State) {
        self.hints.wakeable.store(state.wakeable(), Ordering::Relaxed);
        // Pairs with the light fence in `wake_one`: either this thread sees the queued goroutine,
        // or the thread that queued it sees `wakeable`.
        heavy_fence();
    }

    /// Whether no goroutine can become ready any more, if the queues are empty, too.
    fn is_quiescent(&self, state: &State) -> bool {
        // SeqCst: pairs with `wakeup_done`. The thread that ends the wait has queued the goroutine
        // before, so the queues are then seen not empty.
        state.unused() == self.threads
            && state.blocked == 0
            && self.awaited.load(Ordering::SeqCst) == 0
            && self.runtime.upgrade().is_none_or(|runtime| runtime.attached_threads() == 0)
    }

    /// Sleeps until there may be work. `None`: the scheduler stops.
    fn sleep(&self, local: &Local, worker: &WorkerThread) -> Option<()> {
        let mut state = self.state.lock();
        if worker.is_retaken() {
            // The monitor has retaken the permit just now: the thread has none to sleep with.
            return Some(());
        }
        state.sleeping += 1;
        self.publish_wakeable(&state);
        while !state.stopped
            && (state.wakeable() == 0 || !self.queues.has_work() && local.queue.is_empty())
        {
            if !state.deadlock_reported && self.is_quiescent(&state) && !self.queues.has_work() {
                state.deadlock_reported = true;
                drop(state);
                (self.on_deadlock)();
                state = self.state.lock();
                continue;
            }
            self.waiters.work.wait(&mut state);
        }
        state.sleeping -= 1;
        state.deadlock_reported = false;
        self.hints.wakeable.store(state.wakeable(), Ordering::Relaxed);
        (!state.stopped).then_some(())
    }

    #[inline]
    fn wake_one(&self) {
        // Pairs with the heavy fence in `publish_wakeable`.
        light_fence();
        if self.hints.wakeable.load(Ordering::Relaxed) != 0 {
            self.wake(&mut self.state.lock());
        }
    }

    /// Wakes a thread that sleeps. Without one, and with a free permit, wakes a thread that waits
    /// for a permit, or starts a thread.
    #[cold]
    pub(super) fn wake(&self, state: &mut MutexGuard<'_, State>) {
        if state.wakeable() == 0 {
            // No thread may be woken. The threads that run find the queued goroutines.
        } else if state.sleeping > 0 {
            self.waiters.work.notify_one();
        } else if state.free > 0 && !state.stopped {
            if state.standby > 0 {
                self.waiters.permit.notify_one();
            } else if self.start_thread(state).is_ok() {
                state.free -= 1;
                self.hints.wakeable.store(state.wakeable(), Ordering::Relaxed);
            } else {
                state.spawn_failed = true;
            }
        }
    }

    /// The permit of this thread was retaken while its goroutine was away. Takes a free permit.
    /// Without one, moves the thread's queue to the shared one and waits until a permit is free and
    /// a goroutine is queued. `None`: the thread is not needed any more.
    #[cold]
    fn regain_permit(&self, local: &Local, worker: &WorkerThread) -> Option<()> {
        let mut state = self.state.lock();
        worker.set_retaken(false);
        state.blocked -= 1;
        if !state.may_take() {
            self.queues.hand_over(&local.queue);
            // Notifies even if nothing was queued: a thread that sleeps may then find a deadlock.
            self.waiters.work.notify_one();
            if state.standby < KEPT_THREADS {
                state.standby += 1;
                while !state.stopped && (!state.may_take() || !self.queues.has_work()) {
                    self.waiters.permit.wait(&mut state);
                }
                state.standby -= 1;
            }
        }
        if !state.may_take() || state.stopped {
            // `thread_ends` counts the thread as blocked, not as one with a permit.
            worker.set_retaken(true);
            state.blocked += 1;
            return None;
        }
        state.free -= 1;
        self.hints.wakeable.store(state.wakeable(), Ordering::Relaxed);
        Some(())
    }

    /// A thread has ended, by itself or while it ran a goroutine.
    fn thread_ends(&self, worker: &WorkerThread) {
        self.queues.remove(worker);
        let mut state = self.state.lock();
        state.live -= 1;
        if worker.is_retaken() {
            state.blocked -= 1;
        } else {
            state.free += 1;
        }
        self.publish_wakeable(&state);
        if state.spawn_failed {
            // The next thread would end in the same way: the monitor tries again.
        } else if self.queues.has_work() || state.live == 0 {
            self.wake(&mut state);
        } else {
            // A thread that sleeps may now find a deadlock.
            self.waiters.work.notify_one();
        }
        self.waiters.ended.notify_all();
    }

    /// Announces that a goroutine which is about to park will be made ready from outside of
    /// goroutines, for example by a collector. Until [`Scheduler::wakeup_done`] there is no
    /// deadlock. Called on any thread.
    pub fn await_wakeup(&self) {
        self.awaited.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends [`Scheduler::await_wakeup`], after the goroutine was made ready. Called on any thread.
    pub fn wakeup_done(&self) {
        let awaited = self.awaited.fetch_sub(1, Ordering::SeqCst);
        assert_ne!(awaited, 0, "await_wakeup comes first");
        // All threads may have gone to sleep, and wait for just this wake-up. The fence pairs with
        // the heavy fence in `publish_wakeable`.
        fence(Ordering::SeqCst);
        if self.hints.wakeable.load(Ordering::Relaxed) != 0 {
            drop(self.state.lock());
            self.waiters.work.notify_all();
        }
    }
}

impl Schedule for Scheduler {
    fn ready(&self, goroutine: Arc<Goroutine>) {
        let local = LOCAL.get();
        // SAFETY: the pointer is set only while the box exists: see `AtEnd`.
        match unsafe { local.as_ref() } {
            Some(local) if ptr::eq(local.scheduler, self) => local.queue.push(goroutine),
            _ => self.queues.push(goroutine),
        }
        self.wake_one();
    }

    fn reserve_processors(&self, processors: usize) {
        let wanted = (self.threads + processors)
            .saturating_sub(self.processors)
            .min(processors)
            .min(self.threads - 1);
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.reserved_for_gc, wanted);
        if before == wanted {
            return;
        }
        self.publish_wakeable(&state);
        self.hints.crowded.store(state.is_crowded(), Ordering::Relaxed);
        if self.queues.has_work() {
            (wanted..before).for_each(|_| self.wake(&mut state));
        }
        // The monitor is woken only where that helps: it, too, takes a processor from a goroutine.
        if wanted > before && self.is_pressed(&state) {
            self.waiters.look.notify_one();
        }
    }
}
