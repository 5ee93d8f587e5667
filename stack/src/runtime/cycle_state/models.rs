//! Models of a cycle over stacks: goroutines run, park, end and come to life while it scans them,
//! round by round. A stack is one cell with one reference, which the goroutine changes while it
//! runs. At the end each change is scanned, or its goroutine is in the list that mark termination
//! rescans.

use super::*;
use crate::protocol::Request;
use crate::protocol::sync::{LeftOut, leave_out};
use loom::{cell::UnsafeCell, thread};

/// A goroutine and its stack.
struct Stack {
    goroutine: Arc<Goroutine>,
    reference: UnsafeCell<u32>,
    /// The reference at the last scan. Relaxed: read when all threads have ended.
    seen: AtomicU64,
}

struct Modelled {
    cycle: CycleState,
    stacks: Vec<Stack>,
}

fn modelled(statuses: &[Status]) -> Arc<Modelled> {
    let stacks = statuses.iter().map(|status| {
        let goroutine = Arc::new(Goroutine::new(1, 0));
        if *status != Status::Dead {
            goroutine.status.revive(*status);
        }
        Stack { goroutine, reference: UnsafeCell::new(0), seen: AtomicU64::new(u64::MAX) }
    });
    Arc::new(Modelled { cycle: CycleState::new(), stacks: stacks.collect() })
}

fn bounded(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(model);
}

impl Stack {
    /// A step of managed code.
    fn change(&self) {
        // SAFETY: loom checks that no other thread is there.
        self.reference.with_mut(|reference| unsafe { *reference += 1 });
    }

    /// The visit of a held goroutine, or of its own thread.
    fn visit(&self) {
        // SAFETY: loom checks that no thread writes.
        let reference = self.reference.with(|reference| unsafe { *reference });
        self.seen.store(reference.into(), Ordering::Relaxed);
    }

    fn is_seen(&self) -> bool {
        // SAFETY: as above.
        let reference = self.reference.with(|reference| unsafe { *reference });
        self.seen.load(Ordering::Relaxed) == u64::from(reference)
    }
}

impl Modelled {
    /// A scan of the present round. The caller holds the goroutine or is on its thread.
    fn scan(&self, stack: &Stack) {
        stack.visit();
        stack.goroutine.dirty.clear();
        self.cycle.scanned(&stack.goroutine);
    }

    /// The collector's look at a goroutine: scans it if it stands still, else asks it.
    fn try_scan(&self, stack: &Stack, kept: bool) -> bool {
        let goroutine = &stack.goroutine;
        if self.cycle.has_scanned(goroutine) || goroutine.status() == Status::Dead {
            return true;
        }
        match goroutine.hold() {
            Ok(_held) if self.cycle.has_scanned(goroutine) => true,
            Ok(_held) => {
                if kept && !goroutine.dirty.is_dirty() {
                    self.cycle.scanned(goroutine);
                } else {
                    self.scan(stack);
                }
                true
            }
            Err(Status::Dead) => true,
            Err(_) => {
                goroutine.request(Request::SCAN);
                false
            }
        }
    }

    /// The goroutine begins to run, and helps where that is asked for.
    fn begin_to_run(&self, stack: &Stack) {
        if self.cycle.begins_to_run(&stack.goroutine) {
            self.cycle.help_rescan(&stack.goroutine, |other, _| {
                let other = self.stacks.iter().find(|stack| Arc::ptr_eq(&stack.goroutine, other));
                other.expect("one of these").visit();
            });
        }
    }

    /// The goroutine runs from one parking to the next, with a poll between two steps.
    fn run(&self, stack: &Stack) {
        let goroutine = &stack.goroutine;
        goroutine.status.ready();
        goroutine.start_running(Status::Runnable);
        self.begin_to_run(stack);
        stack.change();
        if goroutine.take_requests().has(Request::SCAN) && self.cycle.is_scanning() {
            let scan = goroutine.scan_lock();
            if !self.cycle.has_scanned(goroutine) {
                self.scan(stack);
            }
            drop(scan);
            self.begin_to_run(stack);
        }
        stack.change();
        goroutine.status.stop(Status::Parked);
    }

    /// Mark termination: no goroutine runs.
    fn terminate(&self) {
        let dirty = self.cycle.take_dirty();
        for stack in &self.stacks {
            let listed = dirty.iter().any(|goroutine| Arc::ptr_eq(goroutine, &stack.goroutine));
            assert!(
                listed || stack.goroutine.status() == Status::Dead || stack.is_seen(),
                "a change is neither scanned nor listed"
            );
        }
    }
}

/// A goroutine runs while the cycle begins and scans it.
fn a_goroutine_runs_while_a_cycle_begins(rounds: usize) {
    bounded(3, move || {
        let m = modelled(&[Status::Parked]);
        let stack = &m.stacks[0];
        // Left over from an earlier round, in which it has parked instead of polling.
        stack.goroutine.request(Request::SCAN);
        let runs = m.clone();
        let thread = thread::spawn(move || runs.run(&runs.stacks[0]));
        m.cycle.begin(1, 0);
        m.cycle.begin_round();
        let mut begun = m.try_scan(stack, false);
        for _ in 1..rounds {
            // The collector waits for the end of a round.
            if begun && !m.cycle.begin_rescanning().is_empty() {
                begun = m.try_scan(stack, false);
            }
        }
        thread.join().unwrap();
        if !begun {
            // The collector looks again until it can hold the goroutine.
            assert!(m.try_scan(stack, false), "it is parked");
        }
        m.terminate();
        m.cycle.end(false);
    });
}

#[test]
fn loom_a_goroutine_runs_while_a_cycle_begins() {
    a_goroutine_runs_while_a_cycle_begins(1);
}

#[test]
fn loom_a_goroutine_runs_while_a_cycle_scans_it_again() {
    a_goroutine_runs_while_a_cycle_begins(2);
}

/// A goroutine that sees the cycle begun sees which one it continues, and has the write barrier on.
#[test]
fn loom_a_goroutine_that_sees_a_cycle_sees_what_came_before() {
    for watched in [false, true] {
        loom::model(move || {
            let m = modelled(&[]);
            let barrier_on = Arc::new(UnsafeCell::new(false));
            let (looks, is_on) = (m.clone(), barrier_on.clone());
            let thread = thread::spawn(move || {
                let begun =
                    if watched { looks.cycle.watched() != 0 } else { looks.cycle.is_scanning() };
                if begun {
                    assert_eq!(looks.cycle.kept(), 1);
                    // SAFETY: loom checks that no thread writes.
                    is_on.with(|is_on| unsafe { assert!(*is_on) });
                }
            });
            // SAFETY: loom checks that no other thread is there.
            barrier_on.with_mut(|is_on| unsafe { *is_on = true });
            m.cycle.begin(2, 1);
            thread.join().unwrap();
        });
    }
}

/// The next cycle continues the scans of the last one. The goroutine runs before, while and after
/// it begins, and is left out only if it has not.
fn a_goroutine_runs_between_two_cycles() {
    bounded(3, || {
        let m = modelled(&[Status::Parked]);
        m.cycle.begin(1, 0);
        m.cycle.begin_round();
        assert!(m.try_scan(&m.stacks[0], false));
        m.cycle.end(true);
        let runs = m.clone();
        let thread = thread::spawn(move || runs.run(&runs.stacks[0]));
        assert_eq!(m.cycle.watched(), 1);
        m.cycle.begin(2, 1);
        m.cycle.begin_round();
        let begun = m.try_scan(&m.stacks[0], true);
        thread.join().unwrap();
        if !begun {
            assert!(m.try_scan(&m.stacks[0], true), "it is parked");
        }
        m.terminate();
        m.cycle.end(false);
        assert_eq!(m.cycle.watched(), 0);
    });
}

#[test]
fn loom_a_goroutine_runs_between_two_cycles() {
    a_goroutine_runs_between_two_cycles();
}

#[test]
#[should_panic(expected = "neither scanned nor listed")]
fn loom_twin_of_a_goroutine_that_does_not_say_that_it_has_run() {
    leave_out(LeftOut::DirtyMark);
    a_goroutine_runs_between_two_cycles();
}

/// Two goroutines run while dirty ones are scanned again, and scan each other. None gets lost
/// between two lists.
#[test]
fn loom_two_goroutines_scan_each_other() {
    bounded(2, || {
        let m = modelled(&[Status::Parked, Status::Parked]);
        m.cycle.begin(1, 0);
        m.cycle.begin_round();
        m.stacks.iter().for_each(|stack| assert!(m.try_scan(stack, false)));
        m.cycle.bound_young();
        let other = m.clone();
        let thread = thread::spawn(move || other.run(&other.stacks[1]));
        m.run(&m.stacks[0]);
        thread.join().unwrap();
        m.terminate();
        m.cycle.end(false);
    });
}

/// The collector takes the list while the goroutines in it are scanned by others.
#[test]
fn loom_a_goroutine_scans_another_while_the_collector_does() {
    bounded(2, || {
        let m = modelled(&[Status::Parked, Status::Parked]);
        m.cycle.begin(1, 0);
        m.cycle.begin_round();
        m.stacks.iter().for_each(|stack| assert!(m.try_scan(stack, false)));
        m.run(&m.stacks[0]);
        m.cycle.bound_young();
        let runs = m.clone();
        let thread = thread::spawn(move || runs.run(&runs.stacks[1]));
        let dirty = m.cycle.begin_rescanning();
        let waiting: Vec<_> = m
            .stacks
            .iter()
            .filter(|stack| dirty.iter().any(|dirty| Arc::ptr_eq(dirty, &stack.goroutine)))
            .filter(|stack| !m.try_scan(stack, false))
            .collect();
        thread.join().unwrap();
        assert!(waiting.iter().all(|stack| m.try_scan(stack, false)), "they are parked");
        m.terminate();
        m.cycle.end(false);
    });
}

/// A record comes to life while a cycle begins: the scan sees the goroutine, or the goroutine
/// delivers its own roots.
#[test]
fn loom_a_goroutine_comes_to_life_while_a_cycle_begins() {
    for status in [Status::Runnable, Status::Foreign] {
        bounded(3, move || {
            let m = modelled(&[Status::Dead]);
            let begins = m.clone();
            let thread = thread::spawn(move || {
                let stack = &begins.stacks[0];
                stack.change();
                stack.goroutine.status.revive(status);
                if begins.cycle.has_begun() {
                    stack.visit();
                    begins.cycle.scanned(&stack.goroutine);
                }
            });
            m.cycle.begin(1, 0);
            m.cycle.begin_round();
            assert!(m.try_scan(&m.stacks[0], false), "it does not run");
            thread.join().unwrap();
            assert!(m.stacks[0].is_seen(), "the first root is lost");
        });
    }
}

/// The collector sees, without a lock, that a goroutine has scanned itself: the roots are there.
#[test]
fn loom_a_goroutine_that_has_scanned_itself_has_delivered_its_roots() {
    loom::model(|| {
        let m = modelled(&[Status::Running]);
        m.cycle.begin(1, 0);
        m.cycle.begin_round();
        let goroutine = m.clone();
        let thread = thread::spawn(move || {
            let stack = &goroutine.stacks[0];
            let _scan = stack.goroutine.scan_lock();
            stack.change();
            goroutine.cycle.scanned(&stack.goroutine);
        });
        if m.cycle.has_scanned(&m.stacks[0].goroutine) {
            // SAFETY: loom checks that no thread writes.
            m.stacks[0].reference.with(|reference| unsafe { assert_eq!(*reference, 1) });
        }
        thread.join().unwrap();
    });
}

/// A worker visits frozen frames. When all frames count as visited, its roots are delivered.
#[test]
fn loom_frames_count_as_visited_when_their_roots_are_delivered() {
    bounded(3, || {
        let m = modelled(&[Status::Parked]);
        m.cycle.begin(1, 0);
        m.cycle.push_unscanned(m.stacks[0].goroutine.clone());
        let worker = m.clone();
        let thread = thread::spawn(move || {
            // Two chunks.
            for rest in [true, false] {
                if let Some(goroutine) = worker.cycle.begin_visit() {
                    worker.stacks[0].change();
                    worker.cycle.end_visit(1, rest.then_some(goroutine));
                }
            }
        });
        if m.cycle.is_visited() {
            // SAFETY: loom checks that no thread writes.
            m.stacks[0].reference.with(|reference| unsafe { assert_eq!(*reference, 2) });
        }
        thread.join().unwrap();
        assert!(m.cycle.is_visited() && !m.cycle.has_unscanned());
    });
}

/// A worker that comes late does not put a goroutine into the next cycle's list.
#[test]
fn loom_a_late_visit_leaves_nothing_to_the_next_cycle() {
    bounded(3, || {
        let m = modelled(&[Status::Parked]);
        m.cycle.begin(1, 0);
        m.cycle.push_unscanned(m.stacks[0].goroutine.clone());
        let worker = m.clone();
        let thread = thread::spawn(move || {
            if let Some(goroutine) = worker.cycle.begin_visit() {
                worker.cycle.end_visit(1, Some(goroutine));
            }
        });
        m.cycle.end(false);
        m.cycle.begin(2, 0);
        thread.join().unwrap();
        assert!(m.cycle.is_visited(), "cycle 2 has found no stack yet");
    });
}
