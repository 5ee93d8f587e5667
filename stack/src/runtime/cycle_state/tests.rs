//! What a cycle notes of goroutines, one step after another.

use super::*;
use proptest::prelude::*;

fn goroutine(status: Status) -> Arc<Goroutine> {
    let goroutine = Arc::new(Goroutine::new(1, 0));
    if status != Status::Dead {
        goroutine.status.revive(status);
    }
    goroutine
}

fn is_one_of(goroutine: &Arc<Goroutine>, list: &VecDeque<Arc<Goroutine>>) -> bool {
    list.iter().any(|other| Arc::ptr_eq(goroutine, other))
}

/// A cycle in which these goroutines are dirty, in this order.
fn dirty(statuses: impl IntoIterator<Item = Status>) -> (CycleState, Vec<Arc<Goroutine>>) {
    let cycle = CycleState::new();
    cycle.begin(1, 0);
    cycle.begin_round();
    let goroutines: Vec<_> = statuses.into_iter().map(goroutine).collect();
    for (before, goroutine) in goroutines.iter().enumerate() {
        assert!(!cycle.begins_to_run(goroutine), "nothing is bounded yet");
        assert_eq!(cycle.dirty_goroutines(), before + 1);
    }
    (cycle, goroutines)
}

/// The numbers of the goroutines in the list, in its order.
fn order(cycle: &CycleState, goroutines: &[Arc<Goroutine>]) -> Vec<usize> {
    let number = |goroutine: &Arc<Goroutine>| {
        goroutines.iter().position(|other| Arc::ptr_eq(goroutine, other)).expect("one of these")
    };
    cycle.dirty.lock().iter().map(number).collect()
}

#[test]
fn a_cycle_scans_from_its_beginning_to_its_end_and_may_be_watched_longer() {
    let cycle = CycleState::new();
    let state = |cycle: &CycleState| (cycle.scanning(), cycle.watched(), cycle.is_scanning());
    assert_eq!(state(&cycle), (0, 0, false));
    assert!(!cycle.has_begun());
    cycle.begin(5, 0);
    assert_eq!((state(&cycle), cycle.kept(), cycle.has_begun()), ((5, 5, true), 0, true));
    cycle.end(true);
    assert_eq!(state(&cycle), (0, 5, false));
    assert!(!cycle.has_begun());
    cycle.begin(7, 5);
    assert_eq!((state(&cycle), cycle.kept()), ((7, 7, true), 5));
    cycle.end(false);
    assert_eq!(state(&cycle), (0, 0, false));
}

/// The world would wait until each of them is let go.
#[test]
fn the_goroutines_that_an_ended_cycle_has_listed_are_the_callers_to_let_go() {
    let (cycle, goroutines) = dirty([Status::Parked; 3]);
    cycle.push_unscanned(goroutines[0].clone());
    let held = |goroutines: &[Arc<Goroutine>]| -> Vec<usize> {
        goroutines.iter().map(Arc::strong_count).collect()
    };
    assert_eq!(held(&goroutines), [3, 2, 2]);
    let listed = cycle.end(false);
    assert_eq!((cycle.dirty_goroutines(), cycle.is_visited()), (0, true));
    assert_eq!(held(&goroutines), [3, 2, 2]);
    drop(listed);
    assert_eq!(held(&goroutines), [1, 1, 1]);
}

/// A stack that is being copied is copied again if a stopped world has scanned meanwhile. Where it
/// has given places of roots away, they count.
#[test]
fn scans_in_stopped_worlds_are_counted_and_their_places_of_roots_are_lent_for_a_time() {
    let cycle = CycleState::new();
    for scans in 0..3 {
        assert_eq!((cycle.scans_in_stopped_worlds(), cycle.has_lent_slots()), (scans, false));
        cycle.begin_scan_in_stopped_world();
        cycle.lend_slots(true);
        assert!(cycle.has_lent_slots());
        cycle.lend_slots(false);
    }
}

#[test]
fn the_end_of_a_cycle_forgets_goroutines_and_bounds() {
    let (cycle, goroutines) = dirty([Status::Running]);
    cycle.bound_young();
    cycle.push_unscanned(goroutines[0].clone());
    cycle.end(true);
    assert_eq!((cycle.dirty_goroutines(), cycle.has_unscanned()), (0, false));
    assert!(!cycle.bounds_young());
}

#[test]
fn a_goroutine_counts_as_scanned_until_the_next_round() {
    let (cycle, goroutine) = (CycleState::new(), goroutine(Status::Parked));
    cycle.begin(1, 0);
    for _ in 0..3 {
        cycle.begin_round();
        assert!(!cycle.has_scanned(&goroutine));
        cycle.scanned(&goroutine);
        assert!(cycle.has_scanned(&goroutine));
    }
    cycle.begin_rescanning();
    assert!(!cycle.has_scanned(&goroutine));
}

proptest! {
    /// `true` begins a visit, `false` ends the one that was begun first. A stack has 3 chunks.
    #[test]
    fn all_frames_are_visited_when_no_stack_waits_and_no_visit_goes_on(
        stacks in 0..6usize,
        steps in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let cycle = CycleState::new();
        cycle.begin(1, 0);
        let stacks: Vec<_> = (0..stacks).map(|_| goroutine(Status::Parked)).collect();
        let mut waiting: VecDeque<_> = stacks.iter().map(|stack| (stack.clone(), 3)).collect();
        stacks.into_iter().for_each(|stack| cycle.push_unscanned(stack));
        let mut visited = VecDeque::new();
        for begins in steps {
            prop_assert_eq!(cycle.has_unscanned(), !waiting.is_empty());
            prop_assert_eq!(cycle.is_visited(), waiting.is_empty() && visited.is_empty());
            if begins {
                let begun = cycle.begin_visit();
                let wanted = waiting.pop_front();
                prop_assert_eq!(begun.is_some(), wanted.is_some());
                if let (Some(stack), Some((wanted, chunks))) = (begun, wanted) {
                    prop_assert!(Arc::ptr_eq(&stack, &wanted), "the one that waits longest");
                    visited.push_back((stack, chunks));
                }
            } else if let Some((stack, chunks)) = visited.pop_front() {
                let rest = (chunks > 1).then_some(stack);
                waiting.extend(rest.clone().map(|stack| (stack, chunks - 1)));
                cycle.end_visit(1, rest);
            }
        }
    }
}

#[test]
fn a_visit_that_outlasts_its_cycle_leaves_its_stack_to_the_next_cycle() {
    let cycle = CycleState::new();
    for (visited, now) in [(1, 2), (3, 0)] {
        cycle.begin(visited, 0);
        cycle.push_unscanned(goroutine(Status::Parked));
        let stack = cycle.begin_visit().expect("it waits");
        cycle.end(false);
        if now != 0 {
            cycle.begin(now, 0);
        }
        assert!(!cycle.is_visited(), "a visit goes on");
        cycle.end_visit(visited, Some(stack));
        assert!(cycle.is_visited() && !cycle.has_unscanned());
        if now != 0 {
            cycle.end(false);
        }
    }
}

#[test]
fn a_goroutine_that_begins_to_run_is_listed_once_in_a_cycle() {
    let (cycle, goroutine) = (CycleState::new(), goroutine(Status::Running));
    let begins = || (cycle.begins_to_run(&goroutine), cycle.dirty_goroutines());
    assert!(cycle.is_dirty(&goroutine), "there is no cycle to be dirty for");
    assert_eq!((begins(), goroutine.dirty.is_dirty()), ((false, 0), false));
    cycle.begin(1, 0);
    assert!(!cycle.is_dirty(&goroutine));
    assert_eq!(begins(), (false, 1));
    assert!(cycle.is_dirty(&goroutine) && goroutine.dirty.is_marked(1));
    assert_eq!(begins(), (false, 1));
    // Between cycles the mark alone tells.
    cycle.end(true);
    goroutine.dirty.clear();
    assert!(!cycle.is_dirty(&goroutine));
    assert_eq!((begins(), goroutine.dirty.is_marked(1)), ((false, 0), true));
    assert!(cycle.is_dirty(&goroutine));
    // A mark of the last cycle is none of this one.
    cycle.begin(2, 1);
    assert!(!cycle.is_dirty(&goroutine));
    cycle.bound_young();
    assert_eq!(begins(), (true, 1));
    assert_eq!(begins(), (false, 1), "it has helped already");
    cycle.end(false);
    assert!(cycle.is_dirty(&goroutine) && goroutine.dirty.is_dirty());
    assert_eq!(begins(), (false, 0));
}

#[test]
fn young_parts_are_bounded_from_the_first_round_of_rescans_on() {
    for rescans in [false, true] {
        let (cycle, goroutines) = dirty([Status::Parked, Status::Running]);
        assert!(!cycle.bounds_young());
        if rescans {
            let taken = cycle.begin_rescanning();
            assert!(goroutines.iter().all(|goroutine| is_one_of(goroutine, &taken)));
            assert_eq!((taken.len(), cycle.dirty_goroutines()), (2, 0));
        } else {
            cycle.bound_young();
            assert_eq!(cycle.take_dirty().len(), 2);
            assert_eq!(cycle.dirty_goroutines(), 0);
        }
        assert!(cycle.bounds_young());
        cycle.end(false);
        assert!(!cycle.bounds_young());
    }
}

/// A list that is long gets shorter with each goroutine that comes into it.
#[test]
fn one_dirty_goroutine_is_scanned_for_each_that_comes_and_two_of_a_long_list() {
    for (listed, left) in [(1, 0), (2, 1), (8, 7), (9, 8), (10, 8), (11, 9), (30, 28)] {
        let (cycle, goroutines) = dirty(std::iter::repeat_n(Status::Parked, listed));
        let mut seen = VecDeque::new();
        cycle.help_rescan(&goroutine(Status::Running), |other, _| seen.push_back(other.clone()));
        assert_eq!((cycle.dirty_goroutines(), seen.len()), (left, listed - left));
        for goroutine in &goroutines {
            let scanned = is_one_of(goroutine, &seen);
            assert_eq!(cycle.has_scanned(goroutine), scanned);
            assert_eq!(goroutine.dirty.is_dirty(), !scanned);
            assert!(goroutine.hold_now().is_some_and(|held| held.is_ok()), "it is let go");
        }
    }
}

#[test]
fn goroutines_that_cannot_be_held_at_once_go_to_the_end_of_the_list() {
    use Status::{Dead, Foreign, Parked, Running};
    let (cycle, all) = dirty([Running, Parked, Dead, Foreign, Parked, Parked]);
    let mut seen = Vec::new();
    // Another thread has this one's lock.
    let lock = all[1].scan_lock();
    let mut help = |changed| {
        cycle.help_rescan(changed, |other, _| seen.push(other.clone()));
        (order(&cycle, &all), seen.len())
    };
    assert_eq!(help(&all[3]), (vec![4, 5, 0, 1, 3], 0), "four are looked at");
    assert_eq!(help(&all[4]), (vec![0, 1, 3, 4], 1), "another one than itself");
    drop(lock);
    assert_eq!(help(&all[4]), (vec![3, 4, 0], 2));
    assert_eq!(help(&all[4]), (vec![4, 0], 3));
    assert_eq!(help(&all[4]), (vec![4, 0], 3), "there is no other that stands still");
    assert!([5, 1, 3].iter().zip(&seen).all(|(number, seen)| Arc::ptr_eq(&all[*number], seen)));
}

#[test]
fn the_thread_that_waits_for_scans_sleeps_until_it_is_told_or_its_time_is_over() {
    let cycle = Arc::new(CycleState::new());
    let timeout = Duration::from_millis(2);
    let begun = std::time::Instant::now();
    cycle.wait_for_scanned(timeout);
    assert!(begun.elapsed() >= timeout);
    let other = cycle.clone();
    let waits = std::thread::spawn(move || other.wait_for_scanned(Duration::from_secs(1 << 30)));
    limits::wait_until("the waiter is told", || {
        cycle.notify_scanned();
        waits.is_finished()
    });
}
