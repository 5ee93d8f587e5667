//! Termination of marking: how mark workers park, are woken, and are found to have finished. No
//! thread spins.
//!
//! The *coordinator* is the thread that waits for marking to terminate. It counts as a worker
//! meanwhile, and marks. So the collector's threads that are awake are never more than its workers,
//! and they take no processors from each other or from goroutines.
//!
//! Work lies in queues that this file knows nothing of; `has_work` looks into them. Invariants:
//!
//! 1. A worker counts as idle only when its own queue is empty and its counts are published. The
//!    coordinator is a worker from [`Termination::add_worker`] to [`Termination::remove_worker`] or
//!    the end of [`Termination::park_or_terminate`].
//! 2. A worker stores that it is idle, fences, and looks at the queues. A thread that adds to a
//!    shared queue stores, fences, and looks whether a worker is idle
//!    ([`Termination::announce_work`]). So one of the two sees the other.
//! 3. Marking is *quiescent* when all workers are idle, no thread helps, and the shared queues are
//!    empty, all seen under the lock. Work is added by workers that are not idle, by helpers, and
//!    by threads outside of this protocol (mutators). As long as the latter add none, quiescence
//!    lasts: a helper that joins finds nothing. A worker may take what they add until
//!    [`Termination::close`], which waits for it.
//! 4. A *helper* is a mutator that marks for a while. It takes and adds work only between
//!    [`Termination::join`] and [`Termination::leave`]; before it leaves it has put back the rest.

use stackmark_stack::sync::{AtomicUsize, Condvar, LeftOut, Mutex, Ordering, fence, left_out};

/// See the module.
#[derive(Debug)]
pub(crate) struct Termination {
    state: Mutex<State>,
    /// A copy of `State::idle`, for threads that add work.
    idle: AtomicUsize,
    /// A copy of `State::helpers`, for workers that could share.
    helpers: AtomicUsize,
    /// Parked workers wait here.
    work_added: Condvar,
    /// The parked coordinator waits here.
    coordinator: Condvar,
}

#[derive(Debug)]
struct State {
    workers: usize,
    idle: usize,
    /// Mutators that mark.
    helpers: usize,
    /// Whether workers may take work.
    open: bool,
    shut_down: bool,
}

impl Termination {
    /// The protocol for `workers` workers beside the coordinator. It is closed: none may work yet.
    pub(crate) fn new(workers: usize) -> Termination {
        Termination {
            state: Mutex::new(State {
                workers,
                idle: 0,
                helpers: 0,
                open: false,
                shut_down: false,
            }),
            idle: AtomicUsize::new(0),
            helpers: AtomicUsize::new(0),
            work_added: Condvar::new(),
            coordinator: Condvar::new(),
        }
    }

    /// Parks a worker that has found nothing to do. Returns true when there may be work, and false
    /// when the worker is to end.
    pub(crate) fn park(&self, has_work: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        self.set_idle(&mut state);
        loop {
            if state.shut_down {
                return false;
            }
            if state.open && has_work() {
                self.set_busy(&mut state);
                return true;
            }
            if state.idle == state.workers {
                self.coordinator.notify_one();
            }
            state = self.work_added.wait(state);
        }
    }

    /// Called before the worker looks at the queues.
    fn set_idle(&self, state: &mut State) {
        state.idle += 1;
        self.idle.store(state.idle, Ordering::Relaxed);
        // Invariant 2: pairs with the fence in `announce_work`.
        fence(Ordering::SeqCst);
    }

    fn set_busy(&self, state: &mut State) {
        state.idle -= 1;
        self.idle.store(state.idle, Ordering::Relaxed);
    }

    /// Makes the caller the coordinator: one more worker, which is not idle. There is one
    /// coordinator at a time.
    pub(crate) fn add_worker(&self) {
        self.state.lock().workers += 1;
    }

    /// Ends the caller's time as coordinator, with its own queue empty. Other threads may still
    /// have work.
    pub(crate) fn remove_worker(&self) {
        self.state.lock().workers -= 1;
    }

    /// Parks the coordinator, which has found nothing to do. Returns true when there is work. On
    /// quiescence it returns false, and the caller is no worker any more.
    pub(crate) fn park_or_terminate(&self, has_work: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        self.set_idle(&mut state);
        let more = loop {
            if has_work() {
                break true;
            }
            if state.idle == state.workers && state.helpers == 0 {
                state.workers -= 1;
                break false;
            }
            state = self.coordinator.wait(state);
        };
        self.set_busy(&mut state);
        more
    }

    /// Wakes an idle worker, if there is one, for work that the caller has added to a shared queue.
    /// The call may be left out for little work that the coordinator will look for anyway.
    pub(crate) fn announce_work(&self) {
        // Invariant 2: pairs with the fence in `set_idle`.
        fence(Ordering::SeqCst);
        if self.idle.load(Ordering::Relaxed) > 0 {
            // A worker that looked before the work was added holds the lock until it waits.
            drop(self.state.lock());
            self.work_added.notify_one();
            self.coordinator.notify_one();
        }
    }

    /// Whether some thread has nothing to do: a hint for workers that have plenty.
    pub(crate) fn wants_work(&self) -> bool {
        // Relaxed: a hint.
        self.idle.load(Ordering::Relaxed) > 0 || self.helpers.load(Ordering::Relaxed) > 0
    }

    /// Makes the caller, a mutator, a helper until [`Termination::leave`]. False if marking is not
    /// open: then the caller has not joined.
    pub(crate) fn join(&self) -> bool {
        let mut state = self.state.lock();
        if !state.open || state.shut_down {
            return false;
        }
        state.helpers += 1;
        // Relaxed: a hint.
        self.helpers.store(state.helpers, Ordering::Relaxed);
        true
    }

    /// Ends the caller's time as helper. It has put back and announced the work it had left.
    pub(crate) fn leave(&self) {
        let mut state = self.state.lock();
        state.helpers -= 1;
        self.helpers.store(state.helpers, Ordering::Relaxed);
        if state.helpers == 0 && state.idle == state.workers {
            self.coordinator.notify_one();
        }
    }

    /// Lets the workers work; at once, if `has_work` says that some has been added before.
    pub(crate) fn open(&self, has_work: bool) {
        self.state.lock().open = true;
        if has_work {
            self.work_added.notify_all();
        }
    }

    /// Keeps parked workers parked from now on, and returns when all are. Called on quiescence,
    /// with the world stopped. Threads outside of this protocol may have added words since, and a
    /// worker may have taken them: it is done with them before the caller ends the cycle.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        while !left_out(LeftOut::CloseWait) && (state.idle != state.workers || state.helpers > 0) {
            state = self.coordinator.wait(state);
        }
    }

    /// Ends the workers.
    pub(crate) fn shut_down(&self) {
        self.state.lock().shut_down = true;
        self.work_added.notify_all();
    }
}

#[cfg(all(test, stackmark_loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;
    use stackmark_stack::sync::leave_out;

    /// A shared queue of numbers: to process `n` is to add `n` items of `n - 1`. Whether it is
    /// empty is seen without any order, so that only the protocol's own fences count.
    struct Modelled {
        termination: Termination,
        queue: Mutex<Vec<u32>>,
        len: AtomicUsize,
        processed: AtomicUsize,
    }

    impl Modelled {
        fn has_work(&self) -> bool {
            self.len.load(Ordering::Relaxed) > 0
        }

        fn push_unannounced(&self, item: u32) {
            let mut queue = self.queue.lock();
            queue.push(item);
            self.len.store(queue.len(), Ordering::Relaxed);
        }

        fn push(&self, item: u32) {
            self.push_unannounced(item);
            self.termination.announce_work();
        }

        fn process(&self) {
            while let Some(item) = self.pop() {
                (0..item).for_each(|_| self.push(item - 1));
                self.processed.fetch_add(1, Ordering::Relaxed);
            }
        }

        fn pop(&self) -> Option<u32> {
            let mut queue = self.queue.lock();
            let item = queue.pop();
            self.len.store(queue.len(), Ordering::Relaxed);
            item
        }

        fn work(&self) {
            while self.termination.park(|| self.has_work()) {
                self.process();
            }
        }

        /// As the coordinator, until marking is quiescent.
        fn finish(&self) {
            self.termination.add_worker();
            self.process();
            while self.termination.park_or_terminate(|| self.has_work()) {
                self.process();
            }
        }
    }

    fn model(workers: usize, bound: usize, run: impl Fn(&Arc<Modelled>) + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(bound);
        builder.check(move || {
            let modelled = Arc::new(Modelled {
                termination: Termination::new(workers),
                queue: Mutex::new(Vec::new()),
                len: AtomicUsize::new(0),
                processed: AtomicUsize::new(0),
            });
            let threads: Vec<_> = (0..workers)
                .map(|_| {
                    let modelled = modelled.clone();
                    thread::spawn(move || modelled.work())
                })
                .collect();
            run(&modelled);
            modelled.termination.shut_down();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn loom_quiescence_means_that_everything_is_processed() {
        model(2, 2, |m| {
            m.push_unannounced(2);
            m.termination.open(true);
            m.finish();
            // 2 leads to two 1s, each of which leads to a 0.
            assert_eq!(m.processed.load(Ordering::Relaxed), 5);
            m.termination.close();
        });
    }

    #[test]
    fn loom_there_is_no_quiescence_while_a_helper_holds_work() {
        model(1, 3, |m| {
            m.push_unannounced(2);
            m.termination.open(true);
            let helper = {
                let m = m.clone();
                thread::spawn(move || {
                    if !m.termination.join() {
                        return;
                    }
                    // Takes an item, does a part of it, and puts the rest back.
                    if let Some(item) = m.pop() {
                        (0..item).for_each(|_| m.push(item - 1));
                        m.processed.fetch_add(1, Ordering::Relaxed);
                    }
                    m.termination.leave();
                })
            };
            m.finish();
            assert_eq!(m.processed.load(Ordering::Relaxed), 5);
            m.termination.close();
            helper.join().unwrap();
            assert_eq!(m.processed.load(Ordering::Relaxed), 5);
        });
    }

    #[test]
    fn loom_unannounced_work_is_done_by_the_coordinator() {
        model(2, 2, |m| {
            m.termination.open(true);
            let mutator = {
                let m = m.clone();
                thread::spawn(move || m.push_unannounced(1))
            };
            m.finish();
            mutator.join().unwrap();
            m.finish();
            assert_eq!(m.processed.load(Ordering::Relaxed), 2);
            m.termination.close();
        });
    }

    #[test]
    fn loom_work_from_outside_wakes_a_parked_worker() {
        model(1, 3, |m| {
            m.termination.open(true);
            let mutator = {
                let m = m.clone();
                thread::spawn(move || m.push(1))
            };
            m.finish();
            mutator.join().unwrap();
            // The mutator has ended: its work is found now at the latest.
            m.finish();
            assert_eq!(m.processed.load(Ordering::Relaxed), 2);
            m.termination.close();
        });
    }

    /// A lost wake-up would leave the work to the coordinator, which is not there.
    #[test]
    fn loom_a_worker_that_is_about_to_park_takes_work_from_outside_by_itself() {
        model(1, 3, |m| {
            m.termination.open(true);
            m.push(0);
            while m.processed.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            m.termination.close();
        });
    }

    #[test]
    fn loom_nothing_is_processed_after_the_close() {
        words_come_late();
    }

    #[test]
    #[should_panic(expected = "processed after the close")]
    fn loom_twin_of_a_close_that_does_not_wait() {
        leave_out(LeftOut::CloseWait);
        words_come_late();
    }

    /// A mutator outside of the protocol adds an item between quiescence and the close.
    fn words_come_late() {
        model(1, 3, |m| {
            m.termination.open(true);
            m.finish();
            let mutator = {
                let m = m.clone();
                thread::spawn(move || m.push(1))
            };
            m.termination.close();
            let processed = m.processed.load(Ordering::Relaxed);
            mutator.join().unwrap();
            // What the worker does if it has taken the item, it has done before.
            assert_eq!(m.processed.load(Ordering::Relaxed), processed, "processed after the close");
        });
    }
}
