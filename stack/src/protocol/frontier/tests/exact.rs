//! Where barriers come to lie, and what is counted, by the definitions.

use super::*;

const D: usize = 8 * WORD;

/// A goroutine of these frames, whose scans end at once.
fn goroutine(spacing: Spacing, frames: impl IntoIterator<Item = (bool, usize)>) -> Goroutine {
    let mut g = Goroutine::new(u64::MAX, spacing);
    frames.into_iter().for_each(|(legal, words)| g.call(legal, words));
    g
}

fn depths(g: &Goroutine) -> Vec<usize> {
    g.scan.barriers().unhit().iter().map(|barrier| barrier.depth).collect()
}

proptest! {
    #[test]
    fn the_first_legal_slot_at_or_beyond_each_distance_has_a_barrier(
        frames in prop::collection::vec((prop::bool::weighted(0.7), 0..40usize), 0..100),
        distance in 1..80usize,
    ) {
        let mut g = goroutine(Spacing::Doubling(distance), frames);
        g.begin(Begin::Major, false);
        let (frames, from) = (g.memory.frames.borrow(), g.youngest().depth);
        let at = |distance: usize| {
            let beyond = |frame: &&Frame| frame.is_legal() && from - frame.slot >= distance;
            frames.iter().rev().find(beyond).map(|frame| frame.slot)
        };
        let mut wanted: Vec<_> = (0..20).filter_map(|k| at(distance << k)).collect();
        wanted.dedup();
        wanted.reverse();
        prop_assert_eq!(depths(&g), wanted);
    }
}

#[test]
fn every_legal_slot_has_a_barrier_or_none_has_one_as_the_spacing_says() {
    let frames = [(true, 3), (false, 1), (true, 0), (true, 9), (true, 2)];
    for spacing in [Spacing::EveryFrame, Spacing::Never] {
        let mut g = goroutine(spacing, frames);
        let legal = g.memory.frames.borrow().iter().filter(|frame| frame.is_legal()).count();
        for how in [Begin::Major, Begin::Again, Begin::Minor] {
            g.begin(how, false);
            let wanted = if spacing == Spacing::EveryFrame { legal } else { 0 };
            assert_eq!(depths(&g).len(), wanted, "{how:?}");
            g.run();
        }
    }
}

#[test]
fn scans_that_begin_again_and_again_leave_few_barriers() {
    let mut g = goroutine(Spacing::Doubling(D), [(true, 4)]);
    g.begin(Begin::Major, false);
    let mut most = 0;
    while g.count() + 3 < MOST_FRAMES {
        (0..3).for_each(|_| g.call(true, 4));
        g.begin(Begin::Again, false);
        most = most.max(depths(&g).len());
    }
    let doublings = (g.youngest().depth / D).ilog2() as usize;
    assert!((3..=2 * doublings).contains(&most), "{most} barriers at {doublings} doublings");
}

#[test]
fn a_scan_that_finds_no_stub_for_its_frontier_is_finished_at_once_and_counts_it() {
    let mut g = goroutine(Spacing::Never, [(true, 4); 20]);
    g.budget.frames = 2;
    for (stubs, whole, frames) in [(STUBS as usize, 1, g.count() as u64), (0, 0, 2)] {
        g.starve(stubs);
        let at = position(g.youngest().depth);
        let (memory, pool) = (&g.memory, &g.pool);
        g.scan.begin(&mut access(memory, pool), 1, at, Spacing::Never, false);
        for frame in memory.frames.borrow_mut().iter_mut() {
            *frame = Frame { old: true, visits: 0, ..*frame };
        }
        let Ok(counts) = g
            .scan
            .protect(&mut access(memory, pool), at.depth, g.budget, |at| Walk::new(memory, at));
        let placed = 1 - whole;
        assert_eq!(counts, ScanCounts { frames, placed, removed: 0, whole });
        assert_eq!(g.scan.is_complete(), whole == 1);
    }
}

#[test]
fn each_part_of_a_scan_visits_as_many_frames_as_its_budget_allows() {
    // Of several sizes: some are visited in bulk, others one by one.
    let mut g = goroutine(Spacing::Never, (0..40).map(|at| (true, 2 + at % 4)));
    g.budget.frames = 3;
    g.begin(Begin::Major, false);
    while !g.scan.is_complete() {
        let memory = &g.memory;
        let Ok(visited) = g.scan.visit_frozen(g.cycle, g.budget, |at| Walk::new(memory, at));
        // At the end lies a frame in which no barrier may.
        assert!(visited == 3 || g.scan.is_complete(), "{visited} frames");
    }
}

/// A scan that ends at a foreign call sees few frames. The others are still there.
#[test]
fn frames_beyond_a_foreign_call_at_which_a_scan_ends_still_count() {
    let mut g = goroutine(Spacing::Doubling(D), [(true, 8); 10]);
    g.call_back();
    g.call(false, 1);
    g.begin(Begin::Major, false);
    let (depth, beyond) = g.scan.limit().expect("a barrier beyond the call");
    assert!(beyond > 4, "{beyond} frames");
    let visits = g.memory.visits.get();
    g.begin(Begin::Again, false);
    assert!(g.memory.visits.get() - visits < 4, "it ends at the call");
    assert_eq!(g.scan.limit(), Some((depth, beyond)));
}

#[test]
fn barriers_that_wait_for_stubs_are_placed_youngest_first() {
    let mut g = goroutine(Spacing::EveryFrame, [(true, 4); 8]);
    // Two are free, which are kept for the lowest barrier.
    g.starve(STUBS as usize - 2);
    g.begin(Begin::Major, false);
    let slots = |g: &Goroutine, from: usize| -> Vec<usize> {
        let frames = g.memory.frames.borrow();
        frames[from..].iter().filter(|frame| frame.is_legal()).map(|frame| frame.slot).collect()
    };
    let all = slots(&g, 0);
    let wait =
        |g: &mut Goroutine| g.scan.pending.iter_mut().map(|mark| mark.depth).collect::<Vec<_>>();
    assert_eq!(depths(&g), all[all.len() - 1..]);
    assert_eq!(wait(&mut g), all[..all.len() - 1].iter().rev().copied().collect::<Vec<_>>());
    // Those of a later scan come before them.
    (0..3).for_each(|_| g.call(true, 4));
    g.begin(Begin::Again, false);
    let all = slots(&g, 0);
    assert_eq!(depths(&g), [all[all.len() - 4], all[all.len() - 1]]);
    let mut waiting: Vec<_> = all[..all.len() - 1].iter().rev().copied().collect();
    waiting.retain(|slot| *slot != all[all.len() - 4]);
    assert_eq!(wait(&mut g), waiting);
    g.starve(0);
    g.protect(g.youngest().depth);
    assert!(wait(&mut g).is_empty());
    assert_eq!(depths(&g), all);
}

/// However many barriers wait, each return looks at the next one only.
#[test]
fn a_return_asks_for_few_stubs_however_many_barriers_wait() {
    let mut g = goroutine(Spacing::EveryFrame, [(true, 4); MOST_FRAMES / 2]);
    g.starve(STUBS as usize - 2);
    g.begin(Begin::Major, false);
    (g.count()..MOST_FRAMES).for_each(|_| g.call(true, 4));
    g.begin(Begin::Again, false);
    assert!(g.scan.pending.iter_mut().count() > MOST_FRAMES / 2);
    while g.count() > 2 {
        let before = g.pool.exhausted();
        g.return_once();
        g.check();
        assert!(g.pool.exhausted() - before <= 8, "at {} frames", g.count());
    }
}

/// What [`StackScan::check`] says of a goroutine that something has been done to.
fn complains(damage: impl FnOnce(&mut Goroutine)) -> Option<String> {
    let mut g = goroutine(Spacing::Never, [(true, 4); 20]);
    g.budget.frames = 2;
    g.begin(Begin::Major, false);
    damage(&mut g);
    let depth = g.youngest().depth;
    let check = std::panic::AssertUnwindSafe(|| g.scan.check(&&g.memory, &&g.memory, depth));
    std::panic::catch_unwind(check).err().map(|panic| *panic.downcast::<String>().expect("a text"))
}

#[test]
fn the_check_sees_a_slot_that_was_written_and_a_frontier_that_is_gone() {
    assert_eq!(complains(|_| ()), None);
    let written = complains(|g| {
        let barrier = g.scan.barriers().lowest().expect("the frontier");
        (&g.memory).write(barrier.depth, 1, barrier.signed);
    });
    assert!(written.expect("a complaint").contains("the slot of"));
    let gone = complains(|g| {
        g.scan.barriers.leave(&g.pool, 0);
    });
    assert!(gone.expect("a complaint").contains("nothing blocks the way"));
    // What lies beyond the youngest frame's stack pointer is dead memory.
    let dead = complains(|g| {
        let barrier = g.scan.barriers().lowest().expect("the frontier");
        (&g.memory).write(barrier.depth, 1, barrier.signed);
        g.scan.unscanned = None;
        let keep = g.memory.frames.borrow().iter().position(|frame| frame.slot == barrier.depth);
        g.memory.frames.borrow_mut().truncate(keep.expect("its owner"));
    });
    assert_eq!(dead, None);
}

/// Frames that the scan has not visited have no barriers, also where a foreign call blocks the way.
#[test]
fn a_goroutine_catches_up_as_far_as_the_scan_has_come() {
    let mut g = goroutine(Spacing::Doubling(D), [(true, 8); 4]);
    g.budget.frames = 1;
    g.call_back();
    g.call(false, 8);
    g.begin(Begin::Major, false);
    assert!(g.scan.rest.is_some() && depths(&g).is_empty());
    // A word of the frame behind the call changes. The pool has no stub for a barrier there.
    g.starve(STUBS as usize);
    g.thaw(5);
    assert!(g.scan.pending.youngest().is_none() && depths(&g).is_empty() && !g.scan.is_complete());
    g.starve(0);
    let visits = g.memory.visits.get();
    g.catch_up(false);
    assert_eq!(g.memory.visits.get() - visits, 5, "up to the frame with the word");
    assert_eq!(depths(&g).len(), 1);
    g.check();
    while g.count() > 2 {
        g.return_once();
        g.check();
    }
    assert!(g.scan.is_complete());
}
