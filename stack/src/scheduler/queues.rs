//! The queues of goroutines that are ready: one for each thread, and a shared one.

use super::permits::Permit;
use crate::goroutine::Goroutine;
use crate::machine::Watch;
use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use parking_lot::RwLock;
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
}

impl WorkerThread {
    /// The thread whose queue is `queue`.
    pub(super) fn new(number: usize, queue: &Queue) -> WorkerThread {
        WorkerThread {
            number,
            stealer: queue.stealer(),
            watch: OnceLock::new(),
            permit: Permit::default(),
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

    /// Moves the goroutines of a thread's queue to the shared queue.
    pub(super) fn hand_over(&self, queue: &Queue) {
        while let Some(goroutine) = queue.pop() {
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
        !self.injector.is_empty()
            || self.workers.read().iter().any(|worker| !worker.stealer.is_empty())
    }

    /// A goroutine for this thread: from its own queue, or else from the shared one or another
    /// thread's. `shared_first`: from its own queue only if the shared one is empty.
    #[inline]
    pub(super) fn find(
        &self,
        queue: &Queue,
        worker: &WorkerThread,
        shared_first: bool,
    ) -> Option<Arc<Goroutine>> {
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
                stolen = others.map(|other| other.stealer.steal_batch_and_pop(queue)).collect();
            }
            match stolen {
                Steal::Success(goroutine) => return Some(goroutine),
                Steal::Empty => return queue.pop(),
                Steal::Retry => {}
            }
        }
    }
}
