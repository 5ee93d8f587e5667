//! What return barriers are for: a stack a million frames deep, of which a collection looks at the
//! newest again.
#[macro_use]
mod runner;

use runner::{Outcome, Program, Size, number};
use serde_json::Value;

/// How far above the bottom the program still counts as being there: it goes up and down over 100
/// frames.
const SWING: u64 = 150;

/// A stack moves as a whole only up to this size; larger ones grow in place.
const LARGEST_MOVE: u64 = 256 << 10;

/// The cycles that ran wholly at the bottom: those that met the stack at its full depth, both when
/// they scanned it and when they rescanned it. The first is left out: it may have begun during the
/// descent. The program waits there for 20 cycles, the first included. (If the goroutine leaves the
/// bottom during a cycle, the rescan finds the stack shorter. If it does not run during a cycle,
/// there is no rescan.)
fn cycles_at_the_bottom(statistics: &Value, size: u64) -> Vec<&Value> {
    let cycles = statistics["cycles_detail"].as_array().expect("statistics have cycles_detail");
    assert_eq!(cycles.len() as u64, number(statistics, "cycles"));
    let at_the_bottom = |cycle: &&Value| {
        let (rescanned, skipped) = (number(cycle, "rescanned"), number(cycle, "skipped"));
        let at_the_end = rescanned + skipped;
        let stood_still = skipped == 0 && rescanned < SWING;
        number(cycle, "deepest_frames") + SWING >= size
            && (stood_still || at_the_end + SWING >= size)
    };
    let at_bottom: Vec<&Value> = cycles.iter().filter(at_the_bottom).skip(1).collect();
    assert!(at_bottom.len() >= 18, "only {} cycles met the stack at the bottom", at_bottom.len());
    at_bottom
}

#[test]
fn prints_what_go_prints_and_a_report() {
    let Outcome { stderr, .. } = Program::new("deep_recursion").check(&["--report"], Size::Full);
    assert!(stderr.lines().count() > 3, "the report is on standard error: {stderr:?}");
}

#[test]
fn rescans_less_than_one_percent_of_the_frames() {
    let program = Program::new("deep_recursion");
    let statistics = program.statistics(&[], Size::Full);
    for cycle in cycles_at_the_bottom(&statistics, program.full_size()) {
        let (deepest, rescanned) = (number(cycle, "deepest_frames"), number(cycle, "rescanned"));
        assert!(rescanned * 100 < deepest, "rescanned {rescanned} of {deepest} frames: {cycle}");
    }
    assert!(number(&statistics, "barriers.placed") > 0);
    assert!(number(&statistics, "barriers.hit") > 0);
    assert!(number(&statistics, "frames.skipped") > number(&statistics, "frames.rescanned"));
}

#[test]
fn rescans_all_frames_without_barriers() {
    let program = Program::new("deep_recursion");
    let statistics = program.statistics(&["--barriers", "off"], Size::Full);
    assert_eq!(number(&statistics, "barriers.placed"), 0);
    let mut whole = 0;
    for cycle in cycles_at_the_bottom(&statistics, program.full_size()) {
        let (deepest, rescanned) = (number(cycle, "deepest_frames"), number(cycle, "rescanned"));
        // A goroutine that has not run since its scan is not looked at again at all.
        if rescanned >= deepest / 2 {
            assert!(
                rescanned + SWING >= deepest,
                "rescanned {rescanned} of {deepest} frames: {cycle}"
            );
            whole += 1;
        } else {
            assert!(rescanned < 1000, "rescanned {rescanned} of {deepest} frames: {cycle}");
        }
    }
    assert!(
        whole > 0,
        "in no cycle at the bottom did the goroutine run between its scan and the end of marking"
    );
}

#[test]
fn grows_by_moving_and_then_in_place() {
    let program = Program::new("deep_recursion");
    let statistics = program.statistics(&[], Size::Full);
    // 2 KiB doubled up to 256 KiB is seven moves; at least 16 bytes a frame show that it went on
    // from there.
    assert!(number(&statistics, "stacks.grown") >= 7);
    assert!(number(&statistics, "stacks.moved_bytes") > 0);
    assert!(number(&statistics, "stacks.largest_move_bytes") <= LARGEST_MOVE);
    assert!(number(&statistics, "stacks.deepest_bytes") >= 16 * program.full_size());
}

#[test]
fn gives_the_stack_back_when_its_goroutine_has_ended() {
    let statistics = Program::new("deep_recursion").statistics(&[], Size::Full);
    let (now, peak) = (
        number(&statistics, "stacks.resident_bytes"),
        number(&statistics, "stacks.resident_peak_bytes"),
    );
    assert!(now * 4 < peak, "{now} of {peak} bytes are still resident");
}

#[test]
fn gives_the_stack_back_while_its_goroutine_lives_on() {
    let statistics = Program::new("stack_shrinks").statistics(&[], Size::Full);
    let (now, peak) = (
        number(&statistics, "stacks.resident_bytes"),
        number(&statistics, "stacks.resident_peak_bytes"),
    );
    assert!(now * 4 < peak, "{now} of {peak} bytes are still resident");
    assert!(number(&statistics, "stacks.shrunk") > 0);
    assert!(number(&statistics, "stacks.largest_move_bytes") <= LARGEST_MOVE);
}
