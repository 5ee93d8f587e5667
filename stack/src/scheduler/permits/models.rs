//! Models of the permits: threads that run, sleep, lose their permits and find deadlocks. The
//! queues stand behind locks of loom's own, but for their lengths: whether one is empty is seen
//! without any order, so that only the protocol's own fences count.

use super::super::next_slot::NextSlot;
use super::*;
use crate::protocol::sync::leave_out;
use loom::sync::{Arc, Condvar as Signal, Mutex as Locked};
use loom::thread;

/// A goroutine of the models, and what it does when it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goroutine {
    /// Ends at once.
    Ends,
    /// Makes one more ready, and ends.
    Starts,
    /// Is in native code for so long that the monitor sees it.
    GoesAway,
    /// Makes one more ready that runs next, and wakes no thread.
    Keeps,
    /// As [`Goroutine::Keeps`]. Then it goes to native code.
    KeepsAndGoesAway,
    /// Announces that the collector will make it ready, and parks.
    Awaits,
    /// Tells the thread outside that it has run.
    Signals,
}

#[derive(Default)]
struct Queue {
    goroutines: Locked<Vec<Goroutine>>,
    len: AtomicUsize,
}

impl Queue {
    fn push(&self, goroutine: Goroutine) {
        let mut goroutines = self.goroutines.lock().unwrap();
        goroutines.push(goroutine);
        self.len.store(goroutines.len(), Ordering::Relaxed);
    }

    fn pop(&self) -> Option<Goroutine> {
        let mut goroutines = self.goroutines.lock().unwrap();
        let popped = goroutines.pop();
        self.len.store(goroutines.len(), Ordering::Relaxed);
        popped
    }

    fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }
}

struct Modelled {
    permits: Permits,
    shared: Queue,
    workers: Locked<Vec<Arc<Worker>>>,
    threads: Locked<Vec<thread::JoinHandle<()>>>,
    /// How many threads the system still gives.
    gives: AtomicUsize,
    ran: AtomicUsize,
    deadlocks: AtomicUsize,
    attached: AtomicUsize,
    /// A goroutine waits for the collector.
    waits: (Locked<bool>, Signal),
    /// So many goroutines must have run before a deadlock is one.
    all: usize,
}

#[derive(Default)]
struct Worker {
    permit: Permit,
    queue: Queue,
    next: NextSlot<Goroutine>,
    away: AtomicBool,
}

impl Worker {
    fn take_next(&self) -> Option<Goroutine> {
        self.next.take().map(|goroutine| *goroutine)
    }

    /// The goroutine that runs next, if other threads may take it.
    fn is_next_open(&self) -> bool {
        self.away.load(Ordering::Relaxed) && !self.next.is_empty()
    }

    fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.is_next_open()
    }
}

struct Own<'m> {
    modelled: &'m Modelled,
    worker: &'m Worker,
}

impl OwnWork for Own<'_> {
    type Goroutine = Goroutine;
    fn find(&self) -> Option<Goroutine> {
        let own = self.worker.take_next().or_else(|| self.worker.queue.pop());
        own.or_else(|| self.modelled.shared.pop()).or_else(|| self.modelled.steal(self.worker))
    }
    fn is_empty(&self) -> bool {
        self.worker.queue.is_empty() && self.worker.next.is_empty()
    }
    fn hand_over(&self) {
        if let Some(goroutine) = self.worker.take_next() {
            self.modelled.shared.push(goroutine);
        }
        while let Some(goroutine) = self.worker.queue.pop() {
            self.modelled.shared.push(goroutine);
        }
    }
}

/// The threads of the models hold the model by its `Arc`.
struct Handle(Arc<Modelled>);

impl Work for Handle {
    fn has_work(&self) -> bool {
        !self.0.shared.is_empty() || self.0.workers().iter().any(|worker| worker.has_work())
    }
    fn count_away(&self) -> usize {
        let away = |worker: &&Arc<Worker>| {
            !worker.permit.is_retaken() && worker.away.load(Ordering::Relaxed)
        };
        self.0.workers().iter().filter(away).count()
    }
    fn attached_threads(&self) -> usize {
        self.0.attached.load(Ordering::Relaxed)
    }
    fn start_thread(&self, state: &mut State) -> std::io::Result<()> {
        if self.0.gives.load(Ordering::Relaxed) == 0 {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        self.0.gives.fetch_sub(1, Ordering::Relaxed);
        state.live += 1;
        let worker = Arc::new(Worker::default());
        self.0.workers.lock().unwrap().push(worker.clone());
        let m = Handle(self.0.clone());
        let thread = thread::spawn(move || m.work(&worker));
        self.0.threads.lock().unwrap().push(thread);
        Ok(())
    }
}

impl Modelled {
    fn workers(&self) -> Vec<Arc<Worker>> {
        self.workers.lock().unwrap().clone()
    }

    fn steal(&self, own: &Worker) -> Option<Goroutine> {
        let others = self.workers().into_iter().filter(|worker| !std::ptr::eq(&**worker, own));
        others.into_iter().find_map(|worker| {
            let next = if worker.is_next_open() { worker.take_next() } else { None };
            next.or_else(|| worker.queue.pop())
        })
    }
}

impl Handle {
    fn work(&self, worker: &Worker) {
        let m = &*self.0;
        drop(m.permits.lock());
        let own = Own { modelled: m, worker };
        let on_deadlock = || {
            assert_eq!(m.ran.load(Ordering::Relaxed), m.all, "a goroutine can still run");
            m.deadlocks.fetch_add(1, Ordering::Relaxed);
            m.permits.stop(&mut m.permits.lock());
        };
        while let Some(goroutine) = m.permits.next(self, &worker.permit, &own, on_deadlock) {
            if matches!(goroutine, Goroutine::Keeps | Goroutine::KeepsAndGoesAway) {
                worker.next.put(std::sync::Arc::new(Goroutine::Ends));
            }
            match goroutine {
                Goroutine::Keeps => {}
                Goroutine::Ends | Goroutine::Signals => {}
                Goroutine::Awaits => m.permits.await_wakeup(),
                Goroutine::Starts => {
                    worker.queue.push(Goroutine::Ends);
                    m.permits.wake_one(self);
                }
                Goroutine::GoesAway | Goroutine::KeepsAndGoesAway => {
                    worker.away.store(true, Ordering::Relaxed);
                    thread::yield_now();
                    worker.away.store(false, Ordering::Relaxed);
                }
            }
            m.ran.fetch_add(1, Ordering::Relaxed);
            if matches!(goroutine, Goroutine::Awaits | Goroutine::Signals) {
                *m.waits.0.lock().unwrap() = true;
                m.waits.1.notify_one();
            }
        }
        own.hand_over();
        m.workers.lock().unwrap().retain(|other| !std::ptr::eq(&**other, worker));
        m.permits.thread_ends(self, &worker.permit);
    }

    /// A goroutine becomes ready outside of the threads.
    fn ready(&self, goroutine: Goroutine) {
        self.0.shared.push(goroutine);
        self.0.permits.wake_one(self);
    }

    /// The monitor looks at all threads.
    fn retake(&self) {
        for worker in self.0.workers() {
            if !worker.permit.is_retaken() && worker.away.load(Ordering::Relaxed) {
                let is_away = || worker.away.load(Ordering::Relaxed);
                self.0.permits.retake(self, &worker.permit, is_away);
            }
        }
    }

    /// The monitor takes the goroutines that run next, as if they had waited for long.
    fn rouse(&self) {
        for worker in self.0.workers() {
            self.0.permits.rouse(self, || {
                if let Some(goroutine) = worker.take_next() {
                    self.0.shared.push(goroutine);
                }
            });
        }
    }

    /// Each permit is with one thread or with none, and all threads have ended.
    fn end(self, deadlocks: usize) {
        loop {
            let Some(thread) = self.0.threads.lock().unwrap().pop() else { break };
            thread.join().unwrap();
        }
        let m = &*self.0;
        let state = m.permits.lock();
        assert_eq!((state.live, state.sleeping, state.standby, state.blocked), (0, 0, 0, 0));
        assert_eq!(state.free, m.permits.count(), "every permit comes back");
        assert_eq!(m.ran.load(Ordering::Relaxed), m.all, "every goroutine runs");
        assert_eq!(m.deadlocks.load(Ordering::Relaxed), deadlocks);
        assert_eq!(m.shared.pop(), None);
    }
}

/// `permits` threads with as many permits, and these goroutines in the shared queue. `more`: how
/// many threads the system gives later. `all` goroutines run in the end.
fn model(
    bound: usize,
    permits: usize,
    queued: &'static [Goroutine],
    more: usize,
    all: usize,
    run: impl Fn(Handle) + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(move || {
        let m = Handle(Arc::new(Modelled {
            permits: Permits::new(permits),
            shared: Queue::default(),
            workers: Locked::default(),
            threads: Locked::default(),
            gives: AtomicUsize::new(permits + more),
            ran: AtomicUsize::new(0),
            deadlocks: AtomicUsize::new(0),
            attached: AtomicUsize::new(0),
            waits: (Locked::new(false), Signal::new()),
            all,
        }));
        queued.iter().for_each(|goroutine| m.0.shared.push(*goroutine));
        let mut state = m.0.permits.lock();
        (0..permits).for_each(|_| m.start_thread(&mut state).expect("there are some"));
        drop(state);
        run(m);
    });
}

#[test]
fn loom_a_deadlock_is_found_once_and_not_before_everything_has_run() {
    use Goroutine::{Ends, Starts};
    model(3, 1, &[Starts], 0, 2, |m| m.end(1));
    model(2, 2, &[Ends, Starts], 0, 3, |m| m.end(1));
}

impl Handle {
    fn wait_for_one_that_waits(&self) {
        let mut waits = self.0.waits.0.lock().unwrap();
        while !*waits {
            waits = self.0.waits.1.wait(waits).unwrap();
        }
    }

    /// The collector: makes the goroutine ready that waits for it.
    fn wake_up(&self) {
        self.wait_for_one_that_waits();
        self.ready(Goroutine::Ends);
        self.0.permits.wakeup_done();
    }
}

/// A goroutine that a thread outside makes ready finds a thread, though all go to sleep. A deadlock
/// is one only after that.
#[test]
fn loom_an_awaited_goroutine_finds_a_thread_that_goes_to_sleep() {
    for (bound, permits) in [(3, 1), (2, 2)] {
        model(bound, permits, &[Goroutine::Awaits], 0, 2, |m| {
            m.wake_up();
            m.end(1);
        });
    }
}

/// The wake-up is called off: the goroutine was made ready by another goroutine, for example. Then
/// the deadlock is found.
#[test]
fn loom_a_wake_up_that_makes_nothing_ready_ends_in_a_deadlock() {
    model(3, 1, &[Goroutine::Awaits], 0, 1, |m| {
        m.wait_for_one_that_waits();
        m.0.permits.wakeup_done();
        m.end(1);
    });
}

/// A thread that has called in makes a goroutine ready, once. While it is attached no deadlock is
/// reported, and nothing but the wake-up can wake the thread that sleeps.
fn a_thread_outside_wakes_one() {
    for (bound, permits) in [(3, 1), (2, 2)] {
        model(bound, permits, &[Goroutine::Awaits], 0, 2, |m| {
            m.0.attached.store(1, Ordering::Relaxed);
            m.wait_for_one_that_waits();
            *m.0.waits.0.lock().unwrap() = false;
            m.ready(Goroutine::Signals);
            m.wait_for_one_that_waits();
            m.0.permits.stop(&mut m.0.permits.lock());
            m.end(0);
        });
    }
}

#[test]
fn loom_a_thread_outside_wakes_a_thread_that_goes_to_sleep() {
    a_thread_outside_wakes_one();
}

/// Tells whether a thread was started.
struct Starts(AtomicBool);

impl Work for Starts {
    fn has_work(&self) -> bool {
        true
    }
    fn count_away(&self) -> usize {
        0
    }
    fn attached_threads(&self) -> usize {
        0
    }
    fn start_thread(&self, _: &mut State) -> std::io::Result<()> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Two permits become free, one after the other, while a goroutine is queued. Only the first one
/// fences. A thread is started for the goroutine, or both that have freed a permit see it.
fn two_permits_become_free() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(2));
        let queue = Arc::new(Queue::default());
        let threads = [(); 2].map(|()| {
            let (permits, queue) = (permits.clone(), queue.clone());
            thread::spawn(move || {
                let mut state = permits.lock();
                state.free += 1;
                permits.publish(&state);
                !queue.is_empty()
            })
        });
        queue.push(Goroutine::Ends);
        let starts = Starts(AtomicBool::new(false));
        permits.wake_one(&starts);
        let seen = threads.map(|thread| thread.join().unwrap());
        let started = starts.0.load(Ordering::Relaxed);
        assert!(started || seen == [true; 2], "a goroutine waits for ever: {seen:?}");
    });
}

#[test]
fn loom_a_goroutine_is_seen_by_all_that_free_permits_or_a_thread_is_started() {
    two_permits_become_free();
}

#[test]
#[should_panic(expected = "a goroutine waits for ever")]
fn loom_twin_of_permits_that_become_free_without_a_fence() {
    leave_out(LeftOut::WakeFence);
    two_permits_become_free();
}

/// A goroutine goes to native code and another waits. The monitor retakes the permit, and a thread
/// is started for the other. The first thread comes back at any moment.
#[test]
fn loom_a_permit_is_retaken_while_its_thread_comes_back() {
    use Goroutine::{Ends, GoesAway};
    model(3, 1, &[Ends, GoesAway], 1, 2, |m| {
        m.retake();
        m.end(1);
    });
}

/// The system gives no thread for the permit: the thread that comes back runs the goroutine, or
/// the monitor finds it when it tries again.
#[test]
fn loom_a_permit_is_retaken_and_the_system_gives_no_thread() {
    use Goroutine::{Ends, GoesAway};
    model(3, 1, &[Ends, GoesAway], 0, 2, |m| {
        m.retake();
        m.0.permits.try_again(&m);
        m.end(1);
    });
}

/// No thread is woken for a goroutine. Its thread runs it, or another one to which the monitor
/// gives it. No deadlock is found in between.
fn a_goroutine_is_kept() {
    for (bound, permits) in [(3, 1), (2, 2)] {
        model(bound, permits, &[Goroutine::Keeps], 0, 2, |m| {
            m.rouse();
            m.end(1);
        });
    }
}

#[test]
fn loom_a_goroutine_that_no_thread_was_woken_for_runs_before_a_deadlock() {
    a_goroutine_is_kept();
}

#[test]
#[should_panic(expected = "a goroutine can still run")]
fn loom_twin_a_goroutine_is_on_its_way_while_a_thread_looks_for_a_deadlock() {
    leave_out(LeftOut::RouseLock);
    a_goroutine_is_kept();
}

/// The thread of a goroutine that no thread was woken for loses its permit, and comes back at any
/// moment.
#[test]
fn loom_a_permit_is_retaken_from_a_thread_that_keeps_a_goroutine() {
    model(3, 1, &[Goroutine::KeepsAndGoesAway], 1, 2, |m| {
        m.retake();
        m.end(1);
    });
}

/// A collector reserves a permit and gives it back while goroutines are queued.
#[test]
fn loom_a_reservation_comes_and_goes_while_goroutines_are_queued() {
    use Goroutine::{Awaits, Ends};
    model(2, 2, &[Ends, Awaits], 0, 3, |m| {
        m.0.permits.reserve(&m, 1);
        m.wake_up();
        m.0.permits.reserve(&m, 0);
        m.end(1);
    });
}

/// The scheduler stops while threads sleep.
#[test]
fn loom_every_thread_ends_when_the_scheduler_stops() {
    model(2, 2, &[Goroutine::Awaits], 0, 1, |m| {
        m.wait_for_one_that_waits();
        m.0.permits.stop(&mut m.0.permits.lock());
        m.0.permits.wait_for_the_end();
        assert_eq!(m.0.permits.lock().live, 0, "it waits for all");
        m.end(0);
    });
}
