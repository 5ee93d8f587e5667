//! Models of running, holding, parking and coming back from foreign calls.

use super::*;
use crate::protocol::sync::leave_out;
use loom::{cell::UnsafeCell, sync::Arc, thread};

/// A goroutine whose frames are one cell: loom reports any two accesses that nothing orders.
struct Modelled {
    status: StatusWord,
    scan: Mutex<u32>,
    frames: UnsafeCell<u32>,
    requested: AtomicU32,
}

impl Modelled {
    fn new(status: Status) -> Arc<Self> {
        Arc::new(Modelled {
            status: StatusWord::new(status),
            scan: Mutex::new(0),
            frames: UnsafeCell::new(0),
            requested: AtomicU32::new(0),
        })
    }

    /// A step of managed code, which changes its frames.
    fn run_a_step(&self) {
        // SAFETY: loom checks that no other thread is there.
        self.frames.with_mut(|frames| unsafe { *frames += 1 });
    }

    /// Scans at most once. Returns whether the goroutine is scanned now.
    fn try_scan(&self) -> bool {
        match self.status.hold(&self.scan) {
            Ok(mut held) => {
                if *held.state == 0 {
                    // SAFETY: loom checks that no thread writes.
                    self.frames.with(|frames| unsafe { assert!(*frames <= 3) });
                    *held.state += 1;
                }
                true
            }
            Err(Status::Dead) => true,
            Err(_) => {
                self.requested.store(1, Ordering::Release);
                false
            }
        }
    }

    fn poll(&self) {
        if self.requested.load(Ordering::Acquire) != 0 {
            let mut scanned = self.scan.lock();
            if *scanned == 0 {
                self.run_a_step();
                *scanned += 1;
            }
        }
    }
}

#[test]
fn loom_a_request_meets_a_goroutine_that_parks() {
    a_goroutine_parks();
}

#[test]
#[should_panic]
fn loom_twin_of_a_park_that_publishes_nothing() {
    leave_out(LeftOut::StopRelease);
    a_goroutine_parks();
}

fn a_goroutine_parks() {
    loom::model(|| {
        let g = Modelled::new(Status::Running);
        let goroutine = g.clone();
        let thread = thread::spawn(move || {
            goroutine.run_a_step();
            goroutine.poll();
            goroutine.run_a_step();
            goroutine.status.stop(Status::Parked);
        });
        if !g.try_scan() {
            thread.join().unwrap();
            assert!(g.try_scan(), "a parked goroutine can be held");
        } else {
            thread.join().unwrap();
        }
        assert_eq!(*g.scan.lock(), 1, "scanned once");
    });
}

#[test]
fn loom_a_held_goroutine_is_made_ready_and_run() {
    loom::model(|| {
        let g = Modelled::new(Status::Parked);
        let goroutine = g.clone();
        let thread = thread::spawn(move || {
            goroutine.status.ready();
            goroutine.status.start_running(Status::Runnable, &goroutine.scan);
            goroutine.run_a_step();
            goroutine.status.stop(Status::Dead);
        });
        g.try_scan();
        thread.join().unwrap();
        assert_eq!(g.status.get(), Status::Dead);
    });
}

#[test]
#[should_panic]
fn loom_twin_of_a_foreign_return_that_nobody_can_hold() {
    leave_out(LeftOut::Held);
    two_holders_and_a_foreign_return();
}

fn two_holders_and_a_foreign_return() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let g = Modelled::new(Status::Foreign);
        let (goroutine, other) = (g.clone(), g.clone());
        let runs = thread::spawn(move || {
            goroutine.status.start_running(Status::Foreign, &goroutine.scan);
            goroutine.run_a_step();
            goroutine.status.stop(Status::Foreign);
        });
        let holds = thread::spawn(move || {
            other.try_scan();
        });
        g.try_scan();
        holds.join().unwrap();
        runs.join().unwrap();
        assert!(*g.scan.lock() <= 1);
    });
}

#[test]
fn loom_two_holders_and_a_foreign_return() {
    two_holders_and_a_foreign_return();
}

/// Whether the word has this status at this moment. It orders nothing.
fn is_now(g: &Modelled, wanted: Status) -> bool {
    Status::of(g.status.word.load(Ordering::Relaxed)) == wanted
}

/// The runner sees what the waker wrote. No queue or lock orders more.
#[test]
fn loom_a_runner_sees_what_the_waker_wrote() {
    loom::model(|| {
        let g = Modelled::new(Status::Parked);
        let runs = g.clone();
        let runs = thread::spawn(move || {
            if is_now(&runs, Status::Runnable) {
                runs.status.start_running(Status::Runnable, &runs.scan);
                runs.run_a_step();
            }
        });
        g.run_a_step();
        g.status.ready();
        runs.join().unwrap();
    });
}

/// So does it if the goroutine parked and the waker wrote nothing.
#[test]
fn loom_a_runner_sees_what_the_parked_goroutine_wrote() {
    loom::model(|| {
        let g = Modelled::new(Status::Running);
        let (wakes, runs) = (g.clone(), g.clone());
        let wakes = thread::spawn(move || {
            if is_now(&wakes, Status::Parked) {
                wakes.status.ready();
            }
        });
        let runs = thread::spawn(move || {
            if is_now(&runs, Status::Runnable) {
                runs.status.start_running(Status::Runnable, &runs.scan);
                runs.run_a_step();
            }
        });
        g.run_a_step();
        g.status.stop(Status::Parked);
        wakes.join().unwrap();
        runs.join().unwrap();
    });
}

/// The waker reads a plain word that the goroutine wrote before it parked: whether it is in a
/// callback, for example.
#[test]
fn loom_a_waker_sees_what_the_parked_goroutine_wrote() {
    loom::model(|| {
        let g = Modelled::new(Status::Running);
        let waker = g.clone();
        let wakes = thread::spawn(move || {
            if is_now(&waker, Status::Parked) {
                waker.status.ready();
                // SAFETY: loom checks that no thread writes.
                waker.frames.with(|frames| unsafe { assert_eq!(*frames, 1) });
            }
        });
        g.run_a_step();
        g.status.stop(Status::Parked);
        wakes.join().unwrap();
    });
}

/// A record begins a new life while a holder looks at it: the holder reads what was written
/// before.
#[test]
fn loom_a_record_comes_to_life_under_the_eyes_of_a_holder() {
    for life in [Status::Runnable, Status::Foreign] {
        loom::model(move || {
            let g = Modelled::new(Status::Dead);
            let holder = g.clone();
            let holds = thread::spawn(move || {
                if let Ok(held) = holder.status.hold(&holder.scan) {
                    assert_eq!(held.status, life);
                    // SAFETY: loom checks that no thread writes.
                    holder.frames.with(|frames| unsafe { assert_eq!(*frames, 1) });
                }
            });
            g.run_a_step();
            g.status.revive(life);
            holds.join().unwrap();
        });
    }
}

/// A record ends a life InForeign and begins another. The word says Running all the time but
/// for a moment, which the holder may miss.
#[test]
fn loom_a_record_of_a_foreign_thread_changes_hands_under_the_eyes_of_a_holder() {
    loom::model(|| {
        let g = Modelled::new(Status::Running);
        let holder = g.clone();
        let holds = thread::spawn(move || {
            if let Ok(held) = holder.status.hold(&holder.scan) {
                assert_eq!(held.status, Status::Foreign);
                // SAFETY: loom checks that no thread writes.
                holder.frames.with(|frames| unsafe { assert_eq!(*frames, 1) });
            }
        });
        g.status.stop(Status::Dead);
        g.run_a_step();
        g.status.revive(Status::Foreign);
        holds.join().unwrap();
    });
}

/// A thread that sees a goroutine parked, without a lock, sees what it saved before.
#[test]
fn loom_a_status_shows_what_was_saved_before() {
    loom::model(|| {
        let g = Modelled::new(Status::Running);
        let looks = g.clone();
        let looks = thread::spawn(move || {
            if looks.status.get() == Status::Parked {
                // SAFETY: loom checks that no thread writes.
                looks.frames.with(|frames| unsafe { assert_eq!(*frames, 1) });
            }
        });
        g.run_a_step();
        g.status.stop(Status::Parked);
        looks.join().unwrap();
    });
}

/// Another thread looks without a lock, while a holder makes the goroutine take its return
/// back. A goroutine that is seen InForeign has written what it saved before.
#[test]
fn loom_a_return_taken_back_still_shows_what_was_saved() {
    // It needs none of the fences, which are full ones only in models.
    leave_out(LeftOut::ForeignFence);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let g = Modelled::new(Status::Running);
        let (holder, looks) = (g.clone(), g.clone());
        let holds = thread::spawn(move || drop(holder.status.hold(&holder.scan)));
        let looks = thread::spawn(move || {
            if looks.status.get() == Status::Foreign {
                // SAFETY: loom checks that no thread writes.
                looks.frames.with(|frames| unsafe { assert_eq!(*frames, 1) });
            }
        });
        g.run_a_step();
        g.status.stop(Status::Foreign);
        g.status.try_start(Status::Foreign);
        holds.join().unwrap();
        looks.join().unwrap();
    });
}

#[test]
#[should_panic]
fn loom_twin_without_fences_runs_a_goroutine_that_is_held_in_a_foreign_call() {
    leave_out(LeftOut::ForeignFence);
    two_holders_and_a_foreign_return();
}
