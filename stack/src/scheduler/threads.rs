//! The threads that run goroutines: how they find goroutines, sleep, wake one
//! another, and pass permits on.

use super::backlog::Turns;
use super::permits::{OwnWork, Permits, Work};
use super::queues::{Queue, Queues, WorkerThread};
use super::state::State;
use crate::ending;
use crate::goroutine::Goroutine;
use crate::machine::{AttachError, Left, Machine};
use crate::os;
use crate::runtime::{Runtime, Schedule};
use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Every this many turns a thread looks at the shared queue first, so that no goroutine starves
/// there.
const FAIRNESS: usize = 61;

thread_local! {
    /// The queue of this thread, if it is a scheduler's. It has no destructor, so that it can be
    /// read to the very end of the thread.
    static LOCAL: Cell<*const Local> = const { Cell::new(ptr::null()) };
    /// Its destructor does what is to be done at the end of the thread, however that ends.
    static AT_END: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
}

struct Local {
    queue: Queue,
    worker: Arc<WorkerThread>,
    turns: Turns,
    scheduler: *const Scheduler,
}

/// Dropped at the end of its thread, also of a thread that ends while it runs a goroutine.
struct AtEnd {
    scheduler: Arc<Scheduler>,
    /// Boxed here and not in a frame: a thread that ends while it runs a goroutine loses its frames
    /// before LOCAL is reset.
    local: Box<Local>,
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        LOCAL.set(ptr::null());
        let Local { queue, worker, .. } = &*self.local;
        self.scheduler.queues.hand_over(queue, worker);
        self.scheduler.queues.remove(worker);
        self.scheduler.permits.thread_ends(&*self.scheduler, &worker.permit);
    }
}

/// The function that is called when no goroutine can ever run again.
pub type OnDeadlock = Box<dyn Fn() + Send + Sync>;

/// See the [module](crate::scheduler).
pub struct Scheduler {
    this: Weak<Scheduler>,
    pub(super) runtime: Weak<Runtime>,
    pub(super) queues: Queues,
    pub(super) permits: Permits,
    /// Processors of the machine.
    processors: usize,
    on_deadlock: OnDeadlock,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("permits", &self.permits).finish_non_exhaustive()
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
            permits: Permits::new(threads),
            processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
            on_deadlock,
        });
        runtime.set_scheduler(scheduler.clone());
        scheduler
    }

    fn run_thread(&self, local: &Local) {
        let Some(runtime) = self.runtime.upgrade() else { return };
        let machine = match Machine::attach(&runtime) {
            Ok(machine) => machine,
            Err(AttachError::SignalStack(_)) => {
                // There is no memory for it now. The monitor tries again.
                self.permits.lock().spawn_failed = true;
                return;
            }
            // Each thread that is started instead would fail as well.
            Err(error) => panic!("a scheduler's thread cannot be attached: {error}"),
        };
        drop(runtime);
        local.worker.set_watch(machine.watch());
        // A goroutine that yields may have run for a whole time slice: 61 of them are too long a
        // wait. So every second one that yields makes way for the shared queue. (Go puts all of
        // them there.)
        let (mut turn, mut makes_way) = (0usize, false);
        while let Some(goroutine) = self.next(local, turn.is_multiple_of(FAIRNESS)) {
            turn = turn.wrapping_add(1);
            local.turns.begin();
            // This thread alone changes it.
            let turns = local.worker.turns.load(Ordering::Relaxed);
            local.worker.turns.store(turns.wrapping_add(1), Ordering::Relaxed);
            if let Left::Yielded(goroutine) = machine.run(goroutine) {
                makes_way = !makes_way;
                if makes_way {
                    turn = 0;
                }
                if turn.is_multiple_of(FAIRNESS) {
                    // What it has made ready runs before it.
                    local.worker.postpone_next(&local.queue);
                }
                // Another one runs now.
                let waiting = local.queue.len() + usize::from(!local.worker.next.is_empty());
                local.queue.push(goroutine);
                let is_worth_it = local.turns.is_worth_a_wake(waiting);
                local.worker.set_open(is_worth_it);
                if is_worth_it {
                    self.permits.wake_one(self);
                }
            }
        }
    }

    /// A goroutine was made ready on its thread, which goes on with another one.
    fn ready_here(&self, local: &Local, goroutine: Arc<Goroutine>) {
        let is_worth_it = local.turns.is_worth_a_wake(local.queue.len() + 1);
        local.worker.set_open(is_worth_it);
        if is_worth_it && self.permits.can_wake() {
            // Not next: the thread that is woken takes it from the queue.
            local.queue.push(goroutine);
            self.permits.wake_one(self);
        } else if let Some(before) = local.worker.next.put(goroutine) {
            local.queue.push(before);
        }
    }

    /// The next goroutine to run; waits until there is one. `None`: the thread ends.
    #[inline]
    fn next(&self, local: &Local, shared_first: bool) -> Option<Arc<Goroutine>> {
        let own = OwnQueue { scheduler: self, local, shared_first };
        self.permits.next(self, &local.worker.permit, &own, &self.on_deadlock)
    }

    /// Announces that a goroutine which is about to park will be made ready from outside of
    /// goroutines, for example by a collector. Until [`Scheduler::wakeup_done`] there is no
    /// deadlock. Called on any thread.
    pub fn await_wakeup(&self) {
        self.permits.await_wakeup();
    }

    /// Ends [`Scheduler::await_wakeup`], after the goroutine was made ready. Called on any thread.
    pub fn wakeup_done(&self) {
        self.permits.wakeup_done();
    }
}

/// The queue of one thread, as the permits see it.
struct OwnQueue<'s> {
    scheduler: &'s Scheduler,
    local: &'s Local,
    shared_first: bool,
}

impl OwnWork for OwnQueue<'_> {
    type Goroutine = Arc<Goroutine>;

    #[inline]
    fn find(&self) -> Option<Arc<Goroutine>> {
        let Local { queue, worker, turns, .. } = self.local;
        let found = self.scheduler.queues.find(queue, worker, self.shared_first);
        if found.is_none() {
            turns.interrupt();
        }
        found
    }

    fn is_empty(&self) -> bool {
        self.local.queue.is_empty() && self.local.worker.next.is_empty()
    }

    fn hand_over(&self) {
        self.scheduler.queues.hand_over(&self.local.queue, &self.local.worker);
    }
}

impl Work for Scheduler {
    fn has_work(&self) -> bool {
        self.queues.has_work()
    }

    fn count_away(&self) -> usize {
        self.queues.count_away()
    }

    fn attached_threads(&self) -> usize {
        self.runtime.upgrade().map_or(0, |runtime| runtime.attached_threads())
    }

    fn start_thread(&self, state: &mut State) -> std::io::Result<()> {
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
            drop(scheduler.permits.lock());
            let local = Box::new(Local {
                queue,
                worker: its_worker,
                turns: Turns::new(),
                scheduler: Arc::as_ptr(&scheduler),
            });
            let at = &raw const *local;
            LOCAL.set(at);
            AT_END.set(Some(AtEnd { scheduler: scheduler.clone(), local }));
            // SAFETY: the box stays in place until AT_END is emptied, below.
            scheduler.run_thread(unsafe { &*at });
            drop(AT_END.take());
        };
        thread.spawn(|| ending::run_thread(run))?;
        (state.next, state.live) = (number + 1, state.live + 1);
        self.queues.add(worker);
        Ok(())
    }
}

impl Schedule for Scheduler {
    fn ready(&self, goroutine: Arc<Goroutine>) {
        let local = LOCAL.get();
        // SAFETY: the pointer is set only while the box exists: see `AtEnd`.
        match unsafe { local.as_ref() } {
            // In a foreign call the thread does not turn to another goroutine soon. Without its
            // permit it may not.
            Some(local)
                if ptr::eq(local.scheduler, self)
                    && !local.worker.permit.is_retaken()
                    && local.worker.away().is_none() =>
            {
                self.ready_here(local, goroutine);
            }
            _ => {
                self.queues.push(goroutine);
                self.permits.wake_one(self);
            }
        }
    }

    fn reserve_processors(&self, processors: usize) {
        let threads = self.permits.count();
        let wanted =
            (threads + processors).saturating_sub(self.processors).min(processors).min(threads - 1);
        self.permits.reserve(self, wanted);
    }
}
