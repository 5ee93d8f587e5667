//! What becomes of the permits, one step after another. The tests set the state that a step begins
//! in; a step that would sleep for ever is not taken.

use super::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

/// The queues and the system.
#[derive(Default)]
struct Around {
    /// The queue of the thread under test, and the shared one.
    own: RefCell<VecDeque<u32>>,
    shared: RefCell<VecDeque<u32>>,
    away: Cell<usize>,
    attached: Cell<usize>,
    /// How many threads the system still gives.
    gives: Cell<usize>,
    started: Cell<usize>,
}

impl Work for Around {
    fn has_work(&self) -> bool {
        !self.shared.borrow().is_empty()
    }
    fn count_away(&self) -> usize {
        self.away.get()
    }
    fn attached_threads(&self) -> usize {
        self.attached.get()
    }
    fn start_thread(&self, state: &mut State) -> std::io::Result<()> {
        let left = self.gives.get().checked_sub(1).ok_or(std::io::ErrorKind::OutOfMemory)?;
        self.gives.set(left);
        self.started.set(self.started.get() + 1);
        state.live += 1;
        Ok(())
    }
}

impl OwnWork for Around {
    type Goroutine = u32;
    fn find(&self) -> Option<u32> {
        let own = self.own.borrow_mut().pop_front();
        own.or_else(|| self.shared.borrow_mut().pop_front())
    }
    fn is_empty(&self) -> bool {
        self.own.borrow().is_empty()
    }
    fn hand_over(&self) {
        self.shared.borrow_mut().append(&mut self.own.borrow_mut());
    }
}

/// With goroutines in the shared queue, and with so many threads to start.
fn around(shared: &[u32], gives: usize) -> Around {
    let around = Around::default();
    around.shared.borrow_mut().extend(shared);
    around.gives.set(gives);
    around
}

/// `count` permits. One thread for each that is not free has one.
fn permits(count: usize, set: impl FnOnce(&mut State)) -> Permits {
    let permits = Permits::new(count);
    let mut state = permits.lock();
    set(&mut state);
    permits.publish(&state);
    permits.hints.crowded.store(state.is_crowded(), Ordering::Relaxed);
    drop(state);
    permits
}

/// (free, sleeping, standby, blocked, live), after a look at the hints.
fn counts(permits: &Permits) -> (usize, usize, usize, usize, usize) {
    let state = permits.lock();
    assert_eq!(permits.hints.unused.load(Ordering::Relaxed), state.unused());
    assert_eq!(permits.hints.wakeable.load(Ordering::Relaxed), state.wakeable());
    (state.free, state.sleeping, state.standby, state.blocked, state.live)
}

fn next(permits: &Permits, around: &Around, permit: &Permit) -> Option<u32> {
    permits.next(around, permit, around, || panic!("no deadlock"))
}

#[test]
fn a_thread_gets_goroutines_until_the_scheduler_stops() {
    let (permits, around) = (permits(2, |state| state.live = 2), around(&[1, 2], 0));
    assert_eq!(permits.count(), 2);
    assert_eq!(next(&permits, &around, &Permit::default()), Some(1));
    assert!(!permits.is_stopping());
    permits.stop(&mut permits.lock());
    assert!(permits.is_stopping() && permits.lock().stopped);
    assert_eq!(next(&permits, &around, &Permit::default()), None);
    assert_eq!(around.shared.borrow().len(), 1);
}

/// Goroutines may become ready while the deadlock is reported. The next one is another deadlock.
#[test]
fn a_deadlock_is_reported_by_the_last_thread_that_sleeps() {
    let (permits, around) = (permits(2, |state| (state.live, state.free) = (1, 1)), around(&[], 0));
    let permit = Permit::default();
    for deadlock in 1..=3 {
        let reported = Cell::new(0);
        let next = permits.next(&around, &permit, &around, || {
            reported.set(reported.get() + 1);
            assert_eq!(counts(&permits), (1, 1, 0, 0, 1));
            assert!(permits.lock().deadlock_reported);
            match deadlock {
                1 => around.own.borrow_mut().push_back(1),
                2 => around.shared.borrow_mut().push_back(2),
                _ => {
                    permits.stop(&mut permits.lock());
                    assert!(permits.lock().stopped, "it would sleep for ever");
                }
            }
        });
        assert_eq!((next, reported.get()), ((deadlock < 3).then_some(deadlock), 1));
        assert_eq!(counts(&permits), (1, 0, 0, 0, 1));
        assert!(!permits.lock().deadlock_reported);
    }
}

/// A thread that is to report a deadlock reports it once, and sleeps on.
#[test]
fn a_deadlock_that_stays_one_is_not_reported_again() {
    let reports = Arc::new(AtomicUsize::new(0));
    let permits = Arc::new(permits(1, |state| state.live = 1));
    let (of_thread, reported) = (permits.clone(), reports.clone());
    let sleeps = std::thread::spawn(move || {
        let around = Around::default();
        let on_deadlock = || {
            reported.fetch_add(1, Ordering::Relaxed);
        };
        of_thread.next(&around, &Permit::default(), &around, on_deadlock)
    });
    limits::wait_until("the thread sleeps", || permits.lock().deadlock_reported);
    // It has been woken for a goroutine that another thread has run.
    for _ in 0..100 {
        permits.waiters.work.notify_all();
        drop(permits.lock());
    }
    permits.stop(&mut permits.lock());
    limits::wait_until("the thread ends", || sleeps.is_finished());
    assert_eq!(sleeps.join().expect("no panic"), None);
    assert_eq!(reports.load(Ordering::Relaxed), 1);
}

/// Invariant 3.
#[test]
fn a_goroutine_can_become_ready_while_a_permit_is_used_or_a_thread_is_waited_for() {
    let quiet = |sleeping, free, blocked, awaited, attached| {
        let (permits, around) = (Permits::new(3), Around::default());
        (0..awaited).for_each(|_| permits.await_wakeup());
        around.attached.set(attached);
        let state = State { sleeping, free, blocked, ..State::default() };
        permits.is_quiescent(&around, &state)
    };
    assert!(quiet(3, 0, 0, 0, 0) && quiet(1, 2, 0, 0, 0) && quiet(0, 3, 0, 0, 0));
    assert!(!quiet(2, 0, 0, 0, 0) && !quiet(1, 1, 0, 0, 0), "a thread runs");
    assert!(!quiet(2, 1, 1, 0, 0), "a thread comes back");
    assert!(!quiet(2, 1, 0, 1, 0) && !quiet(3, 0, 0, 2, 0), "a wake-up is awaited");
    assert!(!quiet(2, 1, 0, 0, 1), "an attached thread runs");
}

#[test]
fn a_wake_up_is_awaited_until_it_is_done() {
    let permits = Permits::new(1);
    (0..2).for_each(|_| permits.await_wakeup());
    assert_eq!(permits.awaited.load(Ordering::Relaxed), 2);
    (0..2).for_each(|_| permits.wakeup_done());
    assert_eq!(permits.awaited.load(Ordering::Relaxed), 0);
    let done = std::panic::AssertUnwindSafe(|| permits.wakeup_done());
    assert!(std::panic::catch_unwind(done).is_err(), "none is awaited");
}

/// A free permit gets a thread when a goroutine is queued: a new one, unless one waits or sleeps.
#[test]
fn a_thread_is_started_for_a_goroutine_if_a_permit_is_free_and_no_thread_is_left() {
    fn free(state: &mut State) {
        (state.free, state.live) = (2, 1);
    }
    let started = |set: fn(&mut State)| {
        let permits = permits(3, |state| {
            free(state);
            set(state);
        });
        let around = around(&[1], 1);
        permits.wake_one(&around);
        (around.started.get(), counts(&permits).0)
    };
    assert_eq!(started(|_| ()), (1, 1));
    assert_eq!(started(|state| state.sleeping = 1), (0, 2));
    assert_eq!(started(|state| state.standby = 1), (0, 2));
    assert_eq!(started(|state| state.stopped = true), (0, 2));
    assert_eq!(started(|state| state.free = 0), (0, 0));
    assert_eq!(started(|state| state.reserved_for_gc = 1), (1, 1));
    assert_eq!(started(|state| state.reserved_for_gc = 2), (0, 2));
}

/// The goroutine that a thread has kept is opened whether a thread can be woken for it or not.
#[test]
fn a_thread_is_roused_for_goroutines_that_another_one_has_kept() {
    for free in 0..3 {
        let permits = permits(3, |state| (state.free, state.live) = (free, 3 - free));
        let around = around(&[], 3);
        permits.rouse(&around, || around.shared.borrow_mut().push_back(7));
        assert_eq!(around.shared.take(), [7]);
        assert_eq!(around.started.get(), usize::from(free > 0));
        assert_eq!(permits.can_wake(), free > 1);
    }
}

#[test]
fn a_thread_that_the_system_refuses_is_started_later_if_it_is_still_needed() {
    let (permits, around) =
        (permits(2, |state| (state.free, state.live) = (1, 1)), around(&[1], 0));
    permits.try_again(&around);
    permits.wake_one(&around);
    assert!(permits.lock().spawn_failed);
    assert_eq!((around.started.get(), counts(&permits)), (0, (1, 0, 0, 0, 1)));
    // The goroutine was run meanwhile.
    let queued = around.shared.take();
    around.gives.set(2);
    permits.try_again(&around);
    around.shared.replace(queued);
    permits.try_again(&around);
    assert_eq!((around.started.get(), counts(&permits)), (0, (1, 0, 0, 0, 1)), "none has failed");
    permits.lock().spawn_failed = true;
    permits.try_again(&around);
    assert_eq!((around.started.get(), counts(&permits)), (1, (0, 0, 0, 0, 2)));
    assert!(!permits.lock().spawn_failed);
}

#[test]
fn a_permit_is_retaken_while_its_thread_is_away_and_another_thread_gets_it() {
    for queued in [&[][..], &[1]] {
        let (permits, around) = (permits(1, |state| state.live = 1), around(queued, 1));
        let permit = Permit::default();
        assert!(!permits.retake(&around, &permit, || false));
        assert_eq!((permit.is_retaken(), counts(&permits)), (false, (0, 0, 0, 0, 1)));
        assert!(permits.retake(&around, &permit, || true));
        let started = queued.len();
        assert_eq!(around.started.get(), started);
        assert_eq!(
            (permit.is_retaken(), counts(&permits)),
            (true, (1 - started, 0, 0, 1, 1 + started))
        );
    }
}

/// The monitor preempts for threads that come back, also where no goroutine is queued.
#[test]
fn threads_are_blocked_from_the_retaking_of_their_permits_until_they_come_back() {
    let (permits, around) = (permits(2, |state| state.live = 2), around(&[], 0));
    let threads = [Permit::default(), Permit::default()];
    assert!(!permits.any_blocked());
    for permit in &threads {
        assert!(permits.retake(&around, permit, || true) && permits.any_blocked());
    }
    for (permit, others) in threads.iter().zip([true, false]) {
        assert_eq!(permits.regain(&around, permit, &around), Some(()));
        assert_eq!(permits.any_blocked(), others);
    }
}

#[test]
fn a_thread_that_comes_back_takes_a_free_permit() {
    let (permits, around) = (
        permits(3, |state| (state.free, state.blocked, state.live) = (2, 3, 4)),
        around(&[1, 2], 0),
    );
    let permit = Permit::default();
    permit.set_retaken(true);
    around.own.borrow_mut().push_back(7);
    assert_eq!(next(&permits, &around, &permit), Some(7));
    assert_eq!((permit.is_retaken(), counts(&permits)), (false, (1, 0, 0, 2, 4)));
}

/// It ends as one that is blocked: it has no permit to give back.
#[test]
fn a_thread_that_comes_back_ends_if_it_gets_no_permit_and_enough_threads_wait() {
    for (standby, stopped) in [(KEPT_THREADS, false), (KEPT_THREADS, true), (3, true)] {
        for (free, reserved_for_gc) in [(0, 0), (1, 1), (1, 0)] {
            if free > reserved_for_gc && !stopped {
                continue;
            }
            let permits = permits(3, |state| {
                (state.free, state.blocked, state.live) = (free, 2, 20);
                (state.standby, state.stopped) = (standby, stopped);
                state.reserved_for_gc = reserved_for_gc;
            });
            let (around, permit) = (around(&[1], 0), Permit::default());
            permit.set_retaken(true);
            around.own.borrow_mut().extend([7, 8]);
            assert_eq!(permits.regain(&around, &permit, &around), None);
            assert_eq!((permit.is_retaken(), counts(&permits)), (true, (free, 0, standby, 2, 20)));
            let may_take = free > reserved_for_gc;
            assert_eq!(around.own.borrow().len(), if may_take { 2 } else { 0 });
            assert_eq!(around.shared.borrow().len(), if may_take { 1 } else { 3 });
            permits.thread_ends(&around, &permit);
            assert_eq!(counts(&permits), (free, 0, standby, 1, 19));
        }
    }
}

/// A thread that comes back waits until a permit is free and a goroutine is queued.
#[test]
fn a_thread_that_waits_for_a_permit_gets_one_for_a_goroutine() {
    #[derive(Default)]
    struct Shared {
        goroutines: AtomicUsize,
        /// How often they were looked for.
        looks: AtomicUsize,
    }
    impl Work for Shared {
        fn has_work(&self) -> bool {
            self.looks.fetch_add(1, Ordering::Relaxed);
            self.goroutines.load(Ordering::Relaxed) > 0
        }
        fn count_away(&self) -> usize {
            0
        }
        fn attached_threads(&self) -> usize {
            0
        }
        fn start_thread(&self, _: &mut State) -> std::io::Result<()> {
            unreachable!("a thread waits")
        }
    }
    let permits = Arc::new(permits(1, |state| (state.blocked, state.live) = (1, 2)));
    let work = Arc::new(Shared::default());
    let (of_thread, of_thread_work) = (permits.clone(), work.clone());
    let waits = std::thread::spawn(move || {
        let permit = Permit::default();
        permit.set_retaken(true);
        let regained = of_thread.regain(&*of_thread_work, &permit, &Around::default());
        (regained, permit.is_retaken())
    });
    limits::wait_until("it waits", || permits.lock().standby == 1);
    assert_eq!(counts(&permits), (0, 0, 1, 0, 2));
    // A goroutine without a permit, then a permit without a goroutine.
    work.goroutines.store(1, Ordering::Relaxed);
    permits.waiters.permit.notify_all();
    work.goroutines.store(0, Ordering::Relaxed);
    permits.thread_ends(&*work, &Permit::default());
    let looks = || work.looks.load(Ordering::Relaxed);
    let before = looks();
    permits.waiters.permit.notify_all();
    limits::wait_until("it looks", || looks() > before || waits.is_finished());
    assert_eq!(counts(&permits), (1, 0, 1, 0, 1));
    work.goroutines.store(1, Ordering::Relaxed);
    permits.wake_one(&*work);
    limits::wait_until("it is woken", || waits.is_finished());
    assert_eq!(waits.join().expect("no panic"), (Some(()), false));
    assert_eq!(counts(&permits), (0, 0, 0, 0, 1));
}

/// A thread that ends by itself is replaced where there is work, or where it was the last one.
#[test]
fn a_thread_that_ends_gives_its_permit_back_and_is_replaced_if_needed() {
    let ends = |live, queued: &[u32], spawn_failed| {
        let permits = permits(2, |state| {
            (state.live, state.free, state.spawn_failed) = (live, 0, spawn_failed);
        });
        let around = around(queued, 1);
        permits.thread_ends(&around, &Permit::default());
        (around.started.get(), counts(&permits))
    };
    assert_eq!(ends(2, &[], false), (0, (1, 0, 0, 0, 1)));
    assert_eq!(ends(2, &[1], false), (1, (0, 0, 0, 0, 2)));
    assert_eq!(ends(1, &[], false), (1, (0, 0, 0, 0, 1)));
    // The next thread would end in the same way.
    assert_eq!(ends(2, &[1], true), (0, (1, 0, 0, 0, 1)));
    assert_eq!(ends(1, &[], true), (0, (1, 0, 0, 0, 0)));
}

/// Threads give way to a collector one after another, and one goes on.
#[test]
fn threads_give_way_to_a_collector_but_for_the_last() {
    let gives_way = |count, sleeping, free, away| {
        let permits = permits(count, |state| {
            (state.sleeping, state.free, state.live) = (sleeping, free, count - free);
            state.reserved_for_gc = count;
        });
        let around = Around::default();
        around.away.set(away);
        around.own.borrow_mut().push_back(7);
        let gives_way = permits.gives_way(&around, &around);
        assert_eq!(around.shared.borrow().len(), usize::from(gives_way), "with its queue");
        assert!(permits.hints.crowded.load(Ordering::Relaxed), "it still is");
        gives_way
    };
    assert!(gives_way(3, 0, 0, 0) && gives_way(3, 0, 0, 1) && gives_way(3, 1, 0, 0));
    assert!(gives_way(5, 1, 1, 1));
    assert!(!gives_way(1, 0, 0, 0) && !gives_way(3, 1, 0, 1) && !gives_way(4, 1, 1, 1));
    // One that is away counts until its permit is retaken, and then as a free permit.
    assert!(!gives_way(2, 1, 0, 2));
}

#[test]
fn a_thread_that_need_not_give_way_gets_its_goroutine() {
    // The only thread, while it is crowded still; then while it is not any more.
    for reserved_for_gc in [1, 0] {
        let permits = permits(1, |state| {
            (state.live, state.reserved_for_gc) = (1, reserved_for_gc);
        });
        permits.hints.crowded.store(true, Ordering::Relaxed);
        assert_eq!(next(&permits, &around(&[7], 0), &Permit::default()), Some(7));
        assert_eq!(permits.hints.crowded.load(Ordering::Relaxed), reserved_for_gc == 1);
    }
}

#[test]
fn a_reservation_that_ends_wakes_as_many_threads_as_it_kept_asleep() {
    for (queued, wanted, started) in [(&[][..], 0, 0), (&[1], 3, 0), (&[1], 1, 2), (&[1], 0, 3)] {
        let (permits, around) =
            (permits(4, |state| (state.free, state.live) = (3, 1)), around(queued, 4));
        permits.reserve(&around, 3);
        assert_eq!((around.started.get(), counts(&permits)), (0, (3, 0, 0, 0, 1)));
        permits.reserve(&around, wanted);
        assert_eq!(permits.lock().reserved_for_gc, wanted);
        assert_eq!(around.started.get(), started);
        assert_eq!(counts(&permits), (3 - started, 0, 0, 0, 1 + started));
    }
}

#[test]
fn a_reservation_that_begins_says_whether_threads_are_to_give_way() {
    let (permits, around) = (permits(3, |state| (state.free, state.live) = (1, 2)), around(&[], 0));
    for (wanted, is_crowded) in
        [(1, false), (2, true), (3, true), (1, false), (3, true), (0, false)]
    {
        permits.reserve(&around, wanted);
        assert_eq!(permits.hints.crowded.load(Ordering::Relaxed), is_crowded, "{wanted}");
        assert_eq!(counts(&permits).0, 1);
    }
}

#[test]
fn the_monitor_looks_sooner_while_goroutines_may_wait_for_a_thread() {
    const DELAY: Duration = Duration::from_micros(20);
    const ASLEEP: Duration = Duration::from_micros(15);
    const PRESSED: Duration = Duration::from_micros(10);
    for (reserved_for_gc, free, queued, delay) in [
        (0, 0, &[][..], DELAY),
        (0, 0, &[1], DELAY),
        (0, 1, &[], ASLEEP),
        (0, 1, &[1], ASLEEP),
        (0, 2, &[], DELAY),
        (1, 1, &[], DELAY),
        (1, 1, &[1], PRESSED),
        (1, 0, &[], PRESSED),
        (2, 1, &[1], PRESSED),
    ] {
        let permits = permits(2, |state| {
            (state.free, state.reserved_for_gc) = (free, reserved_for_gc);
        });
        let mut slept = DELAY;
        let is_crowded = permits.wait_to_look(&around(queued, 0), &mut slept, PRESSED, ASLEEP);
        assert_eq!((is_crowded, slept), (free < reserved_for_gc, delay));
        // It never sleeps longer than it would have.
        let mut slept = Duration::ZERO;
        permits.wait_to_look(&around(queued, 0), &mut slept, PRESSED, ASLEEP);
        assert_eq!(slept, Duration::ZERO);
    }
}

#[test]
fn a_reservation_wakes_the_monitor_where_threads_are_to_give_way() {
    let permits = Arc::new(permits(1, |state| state.live = 1));
    let monitor = permits.clone();
    let looks = std::thread::spawn(move || {
        let (long, mut delay) = (Duration::from_secs(1 << 30), Duration::from_secs(1 << 30));
        monitor.wait_to_look(&Around::default(), &mut delay, long, long)
    });
    limits::wait_until("the monitor looks", || {
        permits.reserve(&Around::default(), 0);
        permits.reserve(&Around::default(), 1);
        looks.is_finished()
    });
}
