//! The queues of goroutines that are ready: one for each thread, and a shared one. Before its queue
//! a thread has one goroutine that runs next.

use super::next_slot::NextSlot;
use super::permits::Permit;
use crate::goroutine::Goroutine;
use crate::machine::Watch;
use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// The queue of a thread.
pub(super) type Queue = Worker<Arc<Goroutine>>;

/// A thread of the scheduler, as other threads see it.
pub(super) struct WorkerThread {
    pub(super) number: usize,
    stealer: Stealer<Arc<Goroutine>>,
    /// Set once the thread is attached.
    watch: OnceLock<Watch>,
    pub(super) permit: Permit,
    /// The goroutine that runs next here. Other threads take it only while this one is
    /// [away](WorkerThread::away), or through the monitor.
    pub(super) next: NextSlot<Goroutine>,
    /// Whether other threads take goroutines from its queue: else only while it is away. The thread
    /// itself keeps short turns for itself, and the monitor opens a queue that has waited for long.
    /// Relaxed: as [`NextSlot::is_empty`]; a thread that opens it passes the fence of a wake then.
    open: AtomicBool,
    /// How many goroutines it has begun to run. Relaxed: the monitor compares it with what it was.
    pub(super) turns: AtomicUsize,
}

impl WorkerThread {
    /// The thread whose queue is `queue`.
    pub(super) fn new(number: usize, queue: &Queue) -> WorkerThread {
        WorkerThread {
            number,
            stealer: queue.stealer(),
            watch: OnceLock::new(),
            permit: Permit::default(),
            next: NextSlot::default(),
            open: AtomicBool::new(true),
            turns: AtomicUsize::new(0),
        }
    }

    /// Sets the thread's view of its machine, once it is attached.
    pub(super) fn set_watch(&self, watch: Watch) {
        let _ = self.watch.set(watch);
    }

    /// See [`Watch::away`].
    pub(super) fn away(&self) -> Option<u64> {
        self.watch.get().and_then(Watch::away)
    }

    /// What waits for it now.
    pub(super) fn load(&self) -> Load {
        let has_queue = !self.stealer.is_empty();
        Load {
            turns: self.turns.load(Ordering::Relaxed),
            has_queue,
            waits: has_queue || !self.next.is_empty(),
        }
    }

    /// Lets the goroutine that was to run next wait in the thread's queue. Called on that thread.
    pub(super) fn postpone_next(&self, queue: &Queue) {
        if let Some(goroutine) = self.next.take() {
            queue.push(goroutine);
        }
    }

    /// Lets other threads take goroutines from the queue, or no more.
    #[inline]
    pub(super) fn set_open(&self, open: bool) {
        if self.open.load(Ordering::Relaxed) != open {
            self.open.store(open, Ordering::Relaxed);
        }
    }

    /// Whether another thread finds a goroutine here.
    fn has_work(&self) -> bool {
        let is_open = self.open.load(Ordering::Relaxed) && !self.stealer.is_empty();
        is_open || (!self.stealer.is_empty() || !self.next.is_empty()) && self.away().is_some()
    }

    fn steal(&self, into: &Queue) -> Steal<Arc<Goroutine>> {
        let is_away = self.away().is_some();
        if is_away && let Some(goroutine) = self.next.take() {
            return Steal::Success(goroutine);
        }
        if is_away || self.open.load(Ordering::Relaxed) {
            self.stealer.steal_batch_and_pop(into)
        } else {
            Steal::Empty
        }
    }
}

/// What the monitor sees of a thread at a look.
#[derive(Clone, Copy)]
pub(super) struct Load {
    /// How many goroutines it has begun to run.
    turns: usize,
    /// A goroutine is in its queue.
    has_queue: bool,
    /// A goroutine is in its queue, or runs next.
    waits: bool,
}

impl Load {
    /// Whether goroutines have waited since the look before, though the thread may have run some.
    /// Two that hand one another work are never in the queue.
    pub(super) fn has_waited(self, before: Load) -> bool {
        self.waits && self.turns == before.turns || self.has_queue && before.has_queue
    }
}

/// All queues.
#[derive(Default)]
pub(super) struct Queues {
    injector: Injector<Arc<Goroutine>>,
    /// The threads that have not ended, by ascending number.
    workers: RwLock<Vec<Arc<WorkerThread>>>,
}

impl Queues {
    /// Adds a goroutine to the shared queue.
    pub(super) fn push(&self, goroutine: Arc<Goroutine>) {
        self.injector.push(goroutine);
    }

    /// Moves the goroutines of a thread to the shared queue. Called on that thread.
    pub(super) fn hand_over(&self, queue: &Queue, worker: &WorkerThread) {
        self.open(worker);
        while let Some(goroutine) = queue.pop() {
            self.injector.push(goroutine);
        }
    }

    /// Lets all threads find the goroutines of this one; the one that runs next moves to the shared
    /// queue. Called on that thread, or by the monitor as
    /// [`Permits::rouse`](super::permits::Permits::rouse) says.
    pub(super) fn open(&self, worker: &WorkerThread) {
        worker.set_open(true);
        if let Some(goroutine) = worker.next.take() {
            self.injector.push(goroutine);
        }
    }

    /// Adds a thread, whose number is the highest.
    pub(super) fn add(&self, worker: Arc<WorkerThread>) {
        self.workers.write().push(worker);
    }

    /// Removes a thread.
    pub(super) fn remove(&self, worker: &WorkerThread) {
        self.workers.write().retain(|other| other.number != worker.number);
    }

    /// The threads, at this moment.
    pub(super) fn workers(&self) -> Vec<Arc<WorkerThread>> {
        self.workers.read().clone()
    }

    /// The number of threads that are away with their permits.
    pub(super) fn count_away(&self) -> usize {
        let workers = self.workers.read();
        workers
            .iter()
            .filter(|worker| !worker.permit.is_retaken() && worker.away().is_some())
            .count()
    }

    /// Whether a goroutine is in a queue.
    pub(super) fn has_work(&self) -> bool {
        !self.injector.is_empty() || self.workers.read().iter().any(|worker| worker.has_work())
    }

    /// Whether a goroutine waits, for any thread or for the one that runs it next.
    pub(super) fn any_waits(&self) -> bool {
        !self.injector.is_empty() || self.workers.read().iter().any(|worker| worker.load().waits)
    }

    /// A goroutine for this thread: the one that runs next, or else from its own queue, or else
    /// from the shared one or another thread's. `shared_first`: from its own queue only if the
    /// shared one is empty, and the one that runs next goes to the end of the own queue.
    #[inline]
    pub(super) fn find(
        &self,
        queue: &Queue,
        worker: &WorkerThread,
        shared_first: bool,
    ) -> Option<Arc<Goroutine>> {
        if shared_first {
            worker.postpone_next(queue);
        } else if let Some(goroutine) = worker.next.take() {
            return Some(goroutine);
        }
        // An empty queue says so without the fence of an attempt to steal.
        if (!shared_first || self.injector.is_empty())
            && let Some(goroutine) = queue.pop()
        {
            return Some(goroutine);
        }
        self.find_elsewhere(queue, worker)
    }

    fn find_elsewhere(&self, queue: &Queue, worker: &WorkerThread) -> Option<Arc<Goroutine>> {
        loop {
            let mut stolen = self.injector.steal_batch_and_pop(queue);
            if stolen.is_empty() && queue.is_empty() {
                let workers = self.workers.read();
                let next = workers.partition_point(|other| other.number <= worker.number);
                let (older, younger) = workers.split_at(next);
                let others =
                    younger.iter().chain(older).filter(|other| other.number != worker.number);
                stolen = others.map(|other| other.steal(queue)).collect();
            }
            match stolen {
                Steal::Success(goroutine) => return Some(goroutine),
                Steal::Empty => return queue.pop(),
                Steal::Retry => {}
            }
        }
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    /// A thread with goroutines in its queue, and another thread's empty queue.
    fn two_threads() -> (Arc<WorkerThread>, Queue, Queue) {
        let (queue, other) = (Queue::new_fifo(), Queue::new_fifo());
        let worker = Arc::new(WorkerThread::new(1, &queue));
        (0..4).for_each(|_| queue.push(Arc::new(Goroutine::new(1, 0))));
        (worker, queue, other)
    }

    #[test]
    fn a_thread_keeps_the_goroutines_of_a_closed_queue() {
        let (worker, queue, other) = two_threads();
        worker.set_open(false);
        assert!(!worker.has_work());
        assert!(worker.steal(&other).is_empty());
        assert_eq!((queue.len(), other.len()), (4, 0));
        // What waits there waits for the monitor.
        let load = worker.load();
        assert!(load.has_waited(load));
        worker.set_open(true);
        assert!(worker.has_work());
        assert!(worker.steal(&other).is_success());
        assert!(queue.len() < 4);
    }

    #[test]
    fn a_queue_that_is_opened_shares_the_goroutine_that_runs_next() {
        let (worker, _queue, other) = two_threads();
        let queues = Queues::default();
        queues.add(worker.clone());
        worker.set_open(false);
        let next = Arc::new(Goroutine::new(1, 0));
        assert!(worker.next.put(next.clone()).is_none());
        assert!(!queues.has_work());
        queues.open(&worker);
        assert!(queues.has_work());
        let thief = WorkerThread::new(2, &other);
        let found: Vec<_> = std::iter::from_fn(|| queues.find(&other, &thief, false)).collect();
        assert_eq!(found.len(), 5);
        assert!(found.iter().any(|goroutine| Arc::ptr_eq(goroutine, &next)));
    }
}
