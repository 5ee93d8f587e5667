//! Every program prints what real Go prints while the collector, the barriers and the moves do
//! their worst.
#[macro_use]
mod runner;

use runner::{ALL_STRESS, Program, Size, VERIFIED, minigo, number};
use std::fs;
use std::path::Path;

fn check(name: &str, options: &[&str]) {
    Program::new(name).check(options, Size::Stress);
}

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use super::*;

            #[test]
            fn collect_every_poll() {
                check(stringify!($name), &["--stress", "collect-every-poll"]);
            }

            #[test]
            fn barrier_every_frame() {
                check(stringify!($name), &["--stress", "barrier-every-frame"]);
            }

            #[test]
            fn move_every_poll() {
                check(stringify!($name), &["--stress", "move-every-poll"]);
            }

            #[test]
            fn poison() {
                check(stringify!($name), &["--stress", "poison"]);
            }

            #[test]
            fn collect_with_barriers_in_every_frame() {
                check(stringify!($name), &["--stress", "collect-every-poll,barrier-every-frame"]);
            }

            #[test]
            fn each_item_verified_on_two_threads() {
                for list in VERIFIED {
                    check(stringify!($name), &["--threads", "2", "--stress", list]);
                }
            }

            #[test]
            fn each_item_verified_on_four_threads() {
                for list in VERIFIED {
                    check(stringify!($name), &["--threads", "4", "--stress", list]);
                }
            }

            #[test]
            fn move_and_poison() {
                check(stringify!($name), &["--stress", "move-every-poll,poison"]);
            }

            #[test]
            fn collect_a_few_frames_at_a_time() {
                let list = "collect-every-poll,scan-few-frames,verify";
                check(stringify!($name), &["--stress", list]);
            }

            #[test]
            fn collect_with_a_hybrid_write_barrier() {
                let list = "collect-every-poll,scan-few-frames,verify";
                check(stringify!($name), &["--write-barrier", "hybrid", "--stress", list]);
            }

            #[test]
            fn all_together_with_a_hybrid_write_barrier() {
                let mut options = vec!["--write-barrier", "hybrid", "--threads", "4"];
                options.extend(["--mark-workers", "2", "--stress", ALL_STRESS]);
                check(stringify!($name), &options);
            }

            #[test]
            fn collect_minor() {
                let list = "collect-every-poll,verify,poison";
                check(stringify!($name), &["--generational", "--threads", "1", "--stress", list]);
            }

            #[test]
            fn collect_minor_while_the_heap_grows() {
                let list = "verify,poison,barrier-every-frame";
                let options = ["--generational=8192", "--threads", "2", "--stress", list];
                check(stringify!($name), &options);
            }

            #[test]
            fn collect_minor_with_a_hybrid_write_barrier() {
                let list = "collect-every-poll,scan-few-frames,verify";
                let options = ["--generational", "--write-barrier", "hybrid", "--stress", list];
                check(stringify!($name), &options);
            }

            #[test]
            fn all_together_and_minor_on_four_threads() {
                let options = ["--generational", "--threads", "4", "--stress", ALL_STRESS];
                check(stringify!($name), &options);
            }

            #[test]
            fn all_together() {
                check(stringify!($name), &["--stress", ALL_STRESS]);
            }

            #[test]
            fn all_together_without_barriers() {
                let list = "collect-every-poll,move-every-poll,poison,verify";
                check(stringify!($name), &["--barriers", "off", "--stress", list]);
            }
        })*
    };
}

for_each_program!(tests);

/// The statistics of a small recursion with an array in each frame.
fn statistics(stress: &[&str]) -> serde_json::Value {
    Program::new("f128").statistics(stress, Size::Stress)
}

#[test]
fn collecting_at_every_poll_collects_at_every_call() {
    // 12 goroutines, 129 calls of each.
    assert!(number(&statistics(&["--stress", "collect-every-poll"]), "cycles") >= 12 * 129);
}

#[test]
fn moving_at_every_poll_moves_at_every_call() {
    let (moving, growing) = (statistics(&["--stress", "move-every-poll"]), statistics(&[]));
    assert!(number(&moving, "stacks.moved_bytes") > 10 * number(&growing, "stacks.moved_bytes"));
}

#[test]
fn minor_collections_leave_frames_alone_and_a_few_are_major() {
    let s = statistics(&["--generational", "--stress", "collect-every-poll"]);
    let (cycles, minor) = (number(&s, "cycles"), number(&s, "minor_cycles"));
    assert!(minor > cycles / 2 && minor < cycles, "{minor} of {cycles}");
    assert!(number(&s, "frames.kept") > 1000, "{}", number(&s, "frames.kept"));
    let whole = statistics(&["--generational", "--whole-scans", "--stress", "collect-every-poll"]);
    assert_eq!(number(&whole, "frames.kept"), 0);
    assert!(number(&whole, "minor_cycles") > 0);
}

/// There are many times more frames than stubs: most barriers wait for one. The limit is processor
/// time, which grew with the square of the depth.
#[test]
fn a_deep_stack_with_a_barrier_in_every_frame_comes_forward() {
    let source = "package main\n\nimport \"runtime\"\n\ntype node struct{ next *node }\n\n\
                  func deep(n int, up *node) int {\n\
                  \tif n == 0 {\n\t\truntime.GC()\n\t\treturn 0\n\t}\n\
                  \town := &node{up}\n\tdepth := deep(n-1, own)\n\
                  \tif own.next != up {\n\t\tpanic(\"another object\")\n\t}\n\
                  \treturn depth + 1\n}\n\n\
                  func main() {\n\tprintln(deep(300000, nil))\n}\n";
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deep_every_frame.go");
    fs::write(&file, source).expect("a directory of this test");
    let outcome = minigo(&["--stress", "barrier-every-frame"], &file);
    outcome.expect(0, "").expect_stderr("300000\n");
}

#[test]
fn barriers_in_every_frame_are_more_than_a_few() {
    let every = statistics(&["--stress", "collect-every-poll,barrier-every-frame"]);
    let doubling = statistics(&["--stress", "collect-every-poll"]);
    assert!(number(&every, "barriers.placed") > 5 * number(&doubling, "barriers.placed"));
    assert!(number(&every, "barriers.hit") > 0);
}

/// Barriers meet all that can happen to one where panics leave frames of stacks that move.
#[test]
fn barriers_are_placed_hit_moved_and_leapfrogged() {
    let counts = Program::new("panics_move")
        .statistics(&["--threads", "1", "--stress", ALL_STRESS], Size::Stress);
    for path in ["barriers.placed", "barriers.hit", "barriers.leapfrogged", "barriers.moved"] {
        let count = number(&counts, path);
        println!("{path} {count}");
        assert!(count > 0, "{path}");
    }
}
