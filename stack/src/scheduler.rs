//! A work-stealing scheduler: goroutines on a fixed number of OS threads. It uses only this crate's public calls, so an
//! embedder may bring its own.

use crate::{Goroutine, Left, Machine, Runtime, Schedule};
use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// A goroutine that runs longer than this without parking is asked to let others run.
const TIME_SLICE: Duration = Duration::from_millis(10);
/// Every so many turns a thread looks at the shared queue first, so that nobody starves there.
const FAIRNESS: usize = 61;

thread_local! {
    /// The queue of this thread, if it is a scheduler's.
    static LOCAL: Cell<*const Local> = const { Cell::new(ptr::null()) };
}

struct Local {
    queue: Worker<Arc<Goroutine>>,
    scheduler: *const Scheduler,
}

#[derive(Debug, Default)]
struct Idle {
    threads: usize,
    stopped: bool,
    /// That there is nothing to do has been told, and nothing has been done since.
    told: bool,
}

/// What happens when no goroutine can ever run again.
pub type OnDeadlock = Box<dyn Fn() + Send + Sync>;

/// See the module.
pub struct Scheduler {
    runtime: Weak<Runtime>,
    injector: Injector<Arc<Goroutine>>,
    stealers: OnceLock<Vec<Stealer<Arc<Goroutine>>>>,
    threads: usize,
    idle: Mutex<Idle>,
    work: Condvar,
    /// How many threads sleep. Written under `idle`; read by those who have made work, after a full fence.
    sleeping: AtomicUsize,
    /// Wake-ups that will come from outside of goroutines.
    awaited: AtomicUsize,
    /// Relaxed: a thread that sees it late runs one goroutine more.
    stop: AtomicBool,
    on_deadlock: OnDeadlock,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// The threads of a scheduler.
#[derive(Debug)]
pub struct Threads {
    scheduler: Arc<Scheduler>,
    threads: Vec<JoinHandle<()>>,
}

impl Scheduler {
    /// A scheduler with `threads` threads, which is the runtime's from now on. `on_deadlock` is called when all of them have
    /// nothing to do, no goroutine is ready and no wake-up is [awaited](Scheduler::await_wakeup), once, by one of them.
    ///
    /// # Panics
    /// If `threads` is 0 or the runtime has a scheduler.
    pub fn new(runtime: &Arc<Runtime>, threads: usize, on_deadlock: OnDeadlock) -> Arc<Scheduler> {
        assert_ne!(threads, 0, "a scheduler needs a thread");
        let scheduler = Arc::new(Scheduler {
            runtime: Arc::downgrade(runtime),
            injector: Injector::new(),
            stealers: OnceLock::new(),
            threads,
            idle: Mutex::default(),
            work: Condvar::new(),
            sleeping: AtomicUsize::new(0),
            awaited: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            on_deadlock,
        });
        runtime.set_scheduler(scheduler.clone());
        scheduler
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives no thread.
    ///
    /// # Panics
    /// The second time, or if the runtime is gone.
    pub fn start(self: &Arc<Self>) -> std::io::Result<Threads> {
        let runtime = self.runtime.upgrade().expect("the runtime outlives its scheduler's start");
        let queues: Vec<_> = (0..self.threads).map(|_| Worker::new_fifo()).collect();
        let stealers = queues.iter().map(Worker::stealer).collect();
        assert!(self.stealers.set(stealers).is_ok(), "a scheduler is started once");
        let mut running = Threads { scheduler: self.clone(), threads: Vec::new() };
        for (number, queue) in queues.into_iter().enumerate() {
            let (scheduler, runtime) = (self.clone(), runtime.clone());
            let thread = std::thread::Builder::new().name(format!("machine-{number}"));
            running.threads.push(thread.spawn(move || scheduler.run_thread(&runtime, queue, number))?);
        }
        let (scheduler, runtime) = (Arc::downgrade(self), Arc::downgrade(&runtime));
        let monitor = std::thread::Builder::new().name("monitor".into());
        running.threads.push(monitor.spawn(move || {
            while let (Some(scheduler), Some(runtime)) = (scheduler.upgrade(), runtime.upgrade()) {
                if scheduler.stop.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(TIME_SLICE);
                runtime.preempt_all();
            }
        })?);
        Ok(running)
    }

    fn run_thread(self: Arc<Self>, runtime: &Arc<Runtime>, queue: Worker<Arc<Goroutine>>, number: usize) {
        let machine = Machine::attach(runtime).expect("a new thread is not attached");
        let local = Local { queue, scheduler: Arc::as_ptr(&self) };
        LOCAL.set(&raw const local);
        let mut turn = 0usize;
        while let Some(goroutine) = self.next(&local, number, turn) {
            turn += 1;
            if let Left::Yielded(goroutine) = machine.run(goroutine) {
                // To the end of the line of all.
                self.injector.push(goroutine);
                self.wake_one();
            }
        }
        LOCAL.set(ptr::null());
    }

    /// The next goroutine to run; waits for one. `None`: the scheduler stops.
    fn next(&self, local: &Local, number: usize, turn: usize) -> Option<Arc<Goroutine>> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(goroutine) = self.find(local, number, turn) {
                return Some(goroutine);
            }
            self.sleep(local)?;
        }
    }

    fn find(&self, local: &Local, number: usize, turn: usize) -> Option<Arc<Goroutine>> {
        let shared_first = turn.is_multiple_of(FAIRNESS);
        if !shared_first && let Some(goroutine) = local.queue.pop() {
            return Some(goroutine);
        }
        let stealers = self.stealers.get().expect("set before the threads start");
        loop {
            let others = (1..self.threads).map(|i| &stealers[(number + i) % self.threads]);
            let stolen: Steal<_> = std::iter::once(self.injector.steal_batch_and_pop(&local.queue))
                .chain(others.map(|other| other.steal_batch_and_pop(&local.queue)))
                .collect();
            match stolen {
                Steal::Success(goroutine) => return Some(goroutine),
                Steal::Empty => return local.queue.pop(),
                Steal::Retry => {}
            }
        }
    }

    fn has_work(&self, local: &Local) -> bool {
        let stealers = self.stealers.get().expect("set before the threads start");
        !self.injector.is_empty() || !local.queue.is_empty() || stealers.iter().any(|s| !s.is_empty())
    }

    /// Sleeps until there may be work. `None`: the scheduler stops.
    fn sleep(&self, local: &Local) -> Option<()> {
        let mut idle = self.idle.lock();
        idle.threads += 1;
        self.sleeping.store(idle.threads, Ordering::Relaxed);
        // Pairs with the fence in wake_one: either we see the work, or its maker sees us asleep.
        fence(Ordering::SeqCst);
        while !idle.stopped && !self.has_work(local) {
            // SeqCst: whoever ends a wait has made its goroutine ready before, so that is seen as work.
            let quiet = idle.threads == self.threads && !idle.told && self.awaited.load(Ordering::SeqCst) == 0;
            if quiet && !self.has_work(local) {
                idle.told = true;
                drop(idle);
                (self.on_deadlock)();
                idle = self.idle.lock();
                continue;
            }
            self.work.wait(&mut idle);
        }
        idle.threads -= 1;
        idle.told = false;
        self.sleeping.store(idle.threads, Ordering::Relaxed);
        (!idle.stopped).then_some(())
    }

    fn wake_one(&self) {
        // Pairs with the fence in sleep.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) != 0 {
            drop(self.idle.lock());
            self.work.notify_one();
        }
    }

    /// Says that a goroutine which is about to park will be made ready by something that is not a goroutine, for example
    /// a collector: no deadlock, until [`Scheduler::wakeup_done`].
    pub fn await_wakeup(&self) {
        self.awaited.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends [`Scheduler::await_wakeup`], after the goroutine was made ready.
    pub fn wakeup_done(&self) {
        self.awaited.fetch_sub(1, Ordering::SeqCst);
        // All threads may have gone to sleep waiting for just this.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) == self.threads {
            drop(self.idle.lock());
            self.work.notify_all();
        }
    }
}

impl Schedule for Scheduler {
    fn ready(&self, goroutine: Arc<Goroutine>) {
        let local = LOCAL.get();
        // SAFETY: the pointer is set while run_thread runs on this thread, and `local` lives as long.
        match unsafe { local.as_ref() } {
            Some(local) if ptr::eq(local.scheduler, self) => local.queue.push(goroutine),
            _ => self.injector.push(goroutine),
        }
        self.wake_one();
    }
}

impl Threads {
    /// Ends the threads when the goroutines that they run have parked, yielded or ended.
    pub fn stop(mut self) {
        let scheduler = &self.scheduler;
        scheduler.stop.store(true, Ordering::Relaxed);
        scheduler.idle.lock().stopped = true;
        scheduler.work.notify_all();
        if let Some(runtime) = scheduler.runtime.upgrade() {
            runtime.preempt_all();
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}
