use super::*;
use proptest::prelude::*;

#[test]
fn a_stack_of_callbacks_where_no_slot_is_legal_is_scanned_in_bounded_steps() {
    let mut model = Model::new(BarrierMode::Incremental, false, 256 << 10, false);
    model.call_out();
    model.call(0, 1);
    for seed in 0..190 {
        model.call_back(0, seed);
    }
    model.begin(Begin::Major);
    let visited = |model: &Model| model.collected.0.lock().len();
    let all = model.references(0).len();
    assert!(!model.goroutine.scan_lock().is_complete());
    // Each return is a return to a foreign call, where the goroutine visits more frames.
    let mut last = visited(&model);
    assert!(0 < last && last < all / 3, "{last} of {all} roots at once");
    while model.expected.is_some() {
        model.return_once();
        let now = model.expected.as_ref().map_or(all, |_| visited(&model));
        assert!(now - last < all / 3, "{last}, then {now} of {all} roots");
        last = now;
        model.compare();
        model.check();
    }
}

#[test]
fn a_goroutine_that_pushes_and_returns_keeps_its_young_part_within_the_bound() {
    for (mode, few) in [
        (BarrierMode::Incremental, false),
        (BarrierMode::Incremental, true),
        (BarrierMode::RescanLimit, true),
    ] {
        let mut model = Model::new(mode, few, 256 << 10, false);
        model.call_out();
        (0..20).for_each(|seed| model.call(seed % 8, seed));
        model.begin(Begin::Major);
        model.bound();
        for n in [380, 0, 300, 40, 390, 200, 350, 10, 400] {
            while model.frames.len() < n {
                model.call(8, n);
                model.check_bound();
            }
            while model.frames.len() > n {
                model.return_once();
                model.check_bound();
            }
        }
        let caught_up = model.runtime.counters().scanned_stopped.load(Relaxed);
        assert!(caught_up > 400, "{caught_up} frames were visited at polls");
        assert!(caught_up < 4000, "{caught_up} frames were visited at polls");
    }
}

fn deep(frames: usize) -> Model {
    let mut model = Model::new(BarrierMode::Incremental, false, 256 << 10, false);
    model.call_out();
    (0..frames).for_each(|seed| model.call(0, seed));
    model
}

#[test]
fn a_minor_cycle_visits_what_was_returned_to_or_called_since_and_no_more() {
    let mut model = deep(300);
    model.begin(Begin::Major);
    model.finish();
    for cycle in 0..50 {
        (0..3).for_each(|_| model.return_once());
        (0..3).for_each(|seed| model.call(0, cycle + seed));
        model.begin(Begin::Minor);
        assert!(model.goroutine.scan_lock().is_complete(), "a few frames are visited at once");
        model.finish();
        model.verify();
    }
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    assert!(
        count(&model.runtime.counters().kept) > 50 * 200,
        "{} frames",
        count(&model.runtime.counters().kept)
    );
}

#[test]
fn scans_that_begin_again_further_down_visit_at_most_twice_what_was_touched_since_the_first() {
    for step in 1..40 {
        let mut model = deep(390);
        model.begin(Begin::Major);
        while model.frames.len() > step {
            (0..step).for_each(|_| model.return_once());
            model.begin(Begin::Minor);
            model.finish();
            (0..2).for_each(|_| model.return_once());
            // `rescan` checks the bound.
            model.rescan();
        }
    }
}

#[test]
fn the_next_goroutine_of_a_record_inherits_no_scan() {
    let mut model = deep(100);
    model.begin(Begin::Major);
    model.finish();
    let mut scan = model.goroutine.scan_lock();
    assert!(scan.is_frozen(WORD) && scan.is_kept(model.cycle));
    scan.end(stubs());
    assert!(!scan.is_frozen(WORD) && !scan.is_kept(model.cycle));
}

#[test]
fn the_next_goroutine_of_a_record_inherits_no_note_of_having_run() {
    let runtime = deep(0).runtime;
    runtime.cycle.end(false);
    runtime.cycle.begin(7, 0);
    // SAFETY: the goroutine never runs.
    let spawn = || unsafe { runtime.spawn(0, 0) }.expect("memory");
    let first = spawn();
    first.start_running(crate::protocol::Status::Runnable);
    scan::mark_dirty(&runtime, &first);
    first.scan_lock().end(stubs());
    first.status.stop(crate::protocol::Status::Dead);
    runtime.stacks.give(first.memory.lock().take().expect("it has lived"));
    let record = Arc::as_ptr(&first);
    runtime.cycle.take_dirty();
    runtime.registry.has_ended(first);
    let second = spawn();
    assert_eq!(Arc::as_ptr(&second), record);
    scan::mark_dirty(&runtime, &second);
    assert_eq!(
        runtime.cycle.take_dirty().len(),
        1,
        "mark termination looks at the second one, too"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn scans_hits_and_moves_agree_with_the_model(
        bytes in prop::collection::vec(any::<u8>(), 0..160),
    ) {
        super::run(&bytes);
    }
}
