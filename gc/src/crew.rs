//! Who marks, and when there is nothing left to mark: the protocol by which mark workers rest, are
//! woken, and are found to have finished. Nobody spins.
//!
//! Who wants to know that there is nothing left is a worker meanwhile, the *foreman*: of the
//! collector's threads there are then never more awake than there are workers, so they do not take
//! processors from each other, nor from goroutines.
//!
//! Work lies in queues that this file knows nothing of; `has_work` looks into them. Invariants:
//!
//! 1. A worker counts as idle only when its own queue is empty and what it counted is published.
//!    The foreman is a worker from [`Crew::enlist`] to [`Crew::retire`] or the end of
//!    [`Crew::rest_or_finish`].
//! 2. A worker stores that it is idle, fences, and looks at the queues; who adds to a shared queue
//!    from outside stores, fences, and looks whether a worker is idle ([`Crew::announce`]). So one
//!    of the two sees the other.
//! 3. It is *quiet* when all workers are idle, nobody helps and the shared queues are empty, all
//!    seen under the lock. Only a worker that is not idle, a helper, or somebody from outside, adds
//!    work; so as long as nobody outside does, quiet stays quiet. (A helper that joins finds
//!    nothing then.)
//! 4. A helper, a mutator that marks for a while, takes and adds work between [`Crew::join`] and
//!    [`Crew::part`] alone; before it parts it has put back what it has left.

use stackmark_stack::sync::{AtomicUsize, Condvar, Mutex, Ordering, fence};

/// See the module.
#[derive(Debug)]
pub(crate) struct Crew {
    state: Mutex<State>,
    /// A copy of `State::idle`, for those who add work.
    idle: AtomicUsize,
    /// A copy of `State::helpers`, for workers that could share.
    helpers: AtomicUsize,
    /// Workers wait here,
    work: Condvar,
    /// and the foreman here.
    foreman: Condvar,
}

#[derive(Debug)]
struct State {
    workers: usize,
    idle: usize,
    /// Threads that are no workers and mark.
    helpers: usize,
    /// Whether workers may take work.
    open: bool,
    over: bool,
}

impl Crew {
    /// A crew of so many workers, beside the foreman, none of which may work yet.
    pub(crate) fn new(workers: usize) -> Crew {
        Crew {
            state: Mutex::new(State { workers, idle: 0, helpers: 0, open: false, over: false }),
            idle: AtomicUsize::new(0),
            helpers: AtomicUsize::new(0),
            work: Condvar::new(),
            foreman: Condvar::new(),
        }
    }

    /// A worker has found nothing to do. Returns when there may be something, or with false when it
    /// shall end.
    pub(crate) fn rest(&self, has_work: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        self.becomes_idle(&mut state);
        loop {
            if state.over {
                return false;
            }
            if state.open && has_work() {
                self.begins_again(&mut state);
                return true;
            }
            if state.idle == state.workers {
                self.foreman.notify_one();
            }
            state = self.work.wait(state);
        }
    }

    /// Before it looks at the queues.
    fn becomes_idle(&self, state: &mut State) {
        state.idle += 1;
        self.idle.store(state.idle, Ordering::Relaxed);
        // Invariant 2: pairs with the fence in `announce`.
        fence(Ordering::SeqCst);
    }

    fn begins_again(&self, state: &mut State) {
        state.idle -= 1;
        self.idle.store(state.idle, Ordering::Relaxed);
    }

    /// The caller is the foreman from now on, one at a time: a worker that is not idle.
    pub(crate) fn enlist(&self) {
        self.state.lock().workers += 1;
    }

    /// The caller is no foreman any more; it has nothing left to do, whoever else may have.
    pub(crate) fn retire(&self) {
        self.state.lock().workers -= 1;
    }

    /// The foreman has found nothing to do. Returns with true when there is something, and with
    /// false when it is quiet: then it is no worker any more.
    pub(crate) fn rest_or_finish(&self, has_work: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        self.becomes_idle(&mut state);
        let more = loop {
            if has_work() {
                break true;
            }
            if state.idle == state.workers && state.helpers == 0 {
                state.workers -= 1;
                break false;
            }
            state = self.foreman.wait(state);
        };
        self.begins_again(&mut state);
        more
    }

    /// Work has been added to a shared queue: wakes somebody if one is idle. (Where little is
    /// added, and the foreman will come to look, this may be left out.)
    pub(crate) fn announce(&self) {
        // Invariant 2: pairs with the fence in `becomes_idle`.
        fence(Ordering::SeqCst);
        if self.idle.load(Ordering::Relaxed) > 0 {
            // A worker that has looked before we added holds the lock until it waits.
            drop(self.state.lock());
            self.work.notify_one();
            self.foreman.notify_one();
        }
    }

    /// Whether some worker has nothing to do: a hint for those that have plenty.
    pub(crate) fn wants_work(&self) -> bool {
        // Relaxed: a hint.
        self.idle.load(Ordering::Relaxed) > 0 || self.helpers.load(Ordering::Relaxed) > 0
    }

    /// Somebody who is no worker begins to help; false if there is nothing to help with. Followed
    /// by [`Crew::part`].
    pub(crate) fn join(&self) -> bool {
        let mut state = self.state.lock();
        if !state.open || state.over {
            return false;
        }
        state.helpers += 1;
        // Relaxed: a hint.
        self.helpers.store(state.helpers, Ordering::Relaxed);
        true
    }

    /// The helper has put back and announced what it had left.
    pub(crate) fn part(&self) {
        let mut state = self.state.lock();
        state.helpers -= 1;
        self.helpers.store(state.helpers, Ordering::Relaxed);
        if state.helpers == 0 && state.idle == state.workers {
            self.foreman.notify_one();
        }
    }

    /// From now on the workers work; at once, if something has been added before.
    pub(crate) fn open(&self, has_work: bool) {
        self.state.lock().open = true;
        if has_work {
            self.work.notify_all();
        }
    }

    /// From now on workers that rest do not begin again. Called when it is quiet.
    pub(crate) fn close(&self) {
        self.state.lock().open = false;
    }

    /// Ends the workers.
    pub(crate) fn dismiss(&self) {
        self.state.lock().over = true;
        self.work.notify_all();
    }
}

#[cfg(all(test, stackmark_loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// A shared queue of numbers: to process `n` is to add `n` items of `n - 1`.
    struct Modelled {
        crew: Crew,
        queue: Mutex<Vec<u32>>,
        processed: AtomicUsize,
    }

    impl Modelled {
        fn has_work(&self) -> bool {
            !self.queue.lock().is_empty()
        }

        fn push(&self, item: u32) {
            self.queue.lock().push(item);
            self.crew.announce();
        }

        fn process(&self) {
            while let Some(item) = self.pop() {
                (0..item).for_each(|_| self.push(item - 1));
                self.processed.fetch_add(1, Ordering::Relaxed);
            }
        }

        fn pop(&self) -> Option<u32> {
            self.queue.lock().pop()
        }

        fn work(&self) {
            while self.crew.rest(|| self.has_work()) {
                self.process();
            }
        }

        /// As the foreman, until it is quiet.
        fn finish(&self) {
            self.crew.enlist();
            self.process();
            while self.crew.rest_or_finish(|| self.has_work()) {
                self.process();
            }
        }
    }

    fn model(workers: usize, bound: usize, run: impl Fn(&Arc<Modelled>) + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(bound);
        builder.check(move || {
            let modelled = Arc::new(Modelled {
                crew: Crew::new(workers),
                queue: Mutex::new(Vec::new()),
                processed: AtomicUsize::new(0),
            });
            let threads: Vec<_> = (0..workers)
                .map(|_| {
                    let modelled = modelled.clone();
                    thread::spawn(move || modelled.work())
                })
                .collect();
            run(&modelled);
            modelled.crew.dismiss();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn loom_quiet_means_that_everything_is_processed() {
        model(2, 2, |m| {
            m.queue.lock().push(2);
            m.crew.open(true);
            m.finish();
            // 2 leads to two 1s, each of which leads to a 0.
            assert_eq!(m.processed.load(Ordering::Relaxed), 5);
            m.crew.close();
        });
    }

    #[test]
    fn loom_it_is_not_quiet_while_a_helper_holds_work() {
        model(1, 3, |m| {
            m.queue.lock().push(2);
            m.crew.open(true);
            let helper = {
                let m = m.clone();
                thread::spawn(move || {
                    if !m.crew.join() {
                        return;
                    }
                    // Takes what it can get, does a part of it, and puts the rest back.
                    if let Some(item) = m.pop() {
                        (0..item).for_each(|_| m.push(item - 1));
                        m.processed.fetch_add(1, Ordering::Relaxed);
                    }
                    m.crew.part();
                })
            };
            m.finish();
            assert_eq!(m.processed.load(Ordering::Relaxed), 5);
            m.crew.close();
            helper.join().unwrap();
            assert_eq!(m.processed.load(Ordering::Relaxed), 5);
        });
    }

    #[test]
    fn loom_unannounced_work_is_done_when_somebody_waits_for_quiet() {
        model(2, 2, |m| {
            m.crew.open(true);
            let mutator = {
                let m = m.clone();
                thread::spawn(move || m.queue.lock().push(1))
            };
            m.finish();
            mutator.join().unwrap();
            m.finish();
            assert_eq!(m.processed.load(Ordering::Relaxed), 2);
            m.crew.close();
        });
    }

    #[test]
    fn loom_work_from_outside_wakes_a_resting_worker() {
        model(1, 3, |m| {
            m.crew.open(true);
            let mutator = {
                let m = m.clone();
                thread::spawn(move || m.push(1))
            };
            m.finish();
            mutator.join().unwrap();
            // The mutator has stopped: what it added is found now at the latest.
            m.finish();
            assert_eq!(m.processed.load(Ordering::Relaxed), 2);
            m.crew.close();
        });
    }
}
