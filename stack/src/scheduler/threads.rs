//! The threads that run goroutines: how they find goroutines, sleep, wake one
//! another, and pass permits on.

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
        self.scheduler.queues.remove(&self.worker);
        self.scheduler.permits.thread_ends(&*self.scheduler, &self.worker.permit);
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

    fn run_thread(&self, local: &Local, worker: &WorkerThread) {
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
        worker.set_watch(machine.watch());
        // A goroutine that yields may have run for a whole time slice: 61 of them are too long a
        // wait. So every second one that yields makes way for the shared queue. (Go puts all of
        // them there.)
        let (mut turn, mut makes_way) = (0usize, false);
        while let Some(goroutine) = self.next(local, worker, turn.is_multiple_of(FAIRNESS)) {
            turn = turn.wrapping_add(1);
            if let Left::Yielded(goroutine) = machine.run(goroutine) {
                makes_way = !makes_way;
                if makes_way {
                    turn = 0;
                }
                // To the end of the queue. If it is alone there, no thread is woken for it.
                let alone = local.queue.is_empty();
                local.queue.push(goroutine);
                if !alone {
                    self.permits.wake_one(self);
                }
            }
        }
    }

    /// The next goroutine to run; waits until there is one. `None`: the thread ends.
    #[inline]
    fn next(
        &self,
        local: &Local,
        worker: &WorkerThread,
        shared_first: bool,
    ) -> Option<Arc<Goroutine>> {
        let own = OwnQueue { scheduler: self, queue: &local.queue, worker, shared_first };
        self.permits.next(self, &worker.permit, &own, &self.on_deadlock)
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
    queue: &'s Queue,
    worker: &'s WorkerThread,
    shared_first: bool,
}

impl OwnWork for OwnQueue<'_> {
    type Goroutine = Arc<Goroutine>;

    #[inline]
    fn find(&self) -> Option<Arc<Goroutine>> {
        self.scheduler.queues.find(self.queue, self.worker, self.shared_first)
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn hand_over(&self) {
        self.scheduler.queues.hand_over(self.queue);
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
}

impl Schedule for Scheduler {
    fn ready(&self, goroutine: Arc<Goroutine>) {
        let local = LOCAL.get();
        // SAFETY: the pointer is set only while the box exists: see `AtEnd`.
        match unsafe { local.as_ref() } {
            Some(local) if ptr::eq(local.scheduler, self) => local.queue.push(goroutine),
            _ => self.queues.push(goroutine),
        }
        self.permits.wake_one(self);
    }

    fn reserve_processors(&self, processors: usize) {
        let threads = self.permits.count();
        let wanted =
            (threads + processors).saturating_sub(self.processors).min(processors).min(threads - 1);
        self.permits.reserve(self, wanted);
    }
}
