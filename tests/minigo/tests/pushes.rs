//! The stopped world visits a bounded number of frames, however fast goroutines push them, in each
//! mode of barriers, with each write barrier and with generations.

#[macro_use]
mod runner;

use runner::{minigo, number};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The most bytes of frames that the stopped world visits of one goroutine.
const YOUNG_BYTES: u64 = stackmark::stack::CycleDriver::YOUNG_BYTES as u64;
/// The fewest bytes of a frame of the program.
const LEAST_FRAME: u64 = 48;
/// The frames that a goroutine may have beyond its young part: the one that it runs, and those that
/// cannot have a barrier.
const BESIDES: u64 = 8;

/// Runs the program, and returns its cycles.
fn cycles(name: &str, goroutines: u32, depth: u32, rounds: u32, options: &[&str]) -> Vec<Value> {
    let source = include_str!("pushes.go.in")
        .replace("GOROUTINES", &goroutines.to_string())
        .replace("DEPTH", &depth.to_string())
        .replace("ROUNDS", &rounds.to_string());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pushes-{name}"));
    fs::create_dir_all(&directory).unwrap();
    let (program, stats) = (directory.join("pushes.go"), directory.join("stats.json"));
    fs::write(&program, source).unwrap();
    let stats_file = stats.to_str().unwrap();
    // Deep stacks count in the pace: with few percent there are cycles enough beside them.
    let mut with_stats = vec!["--stats", stats_file, "--threads", "4", "--gc-percent", "20"];
    with_stats.extend(options);
    let outcome = minigo(&with_stats, &program);
    outcome.expect_status(0);
    let stats: Value = serde_json::from_str(&fs::read_to_string(stats).unwrap()).unwrap();
    stats["cycles_detail"].as_array().expect("the cycles").clone()
}

/// Asserts that no stop has visited more than the young parts of `goroutines` goroutines.
fn check(cycles: &[Value], goroutines: u64) {
    let most = goroutines * (YOUNG_BYTES / LEAST_FRAME + BESIDES);
    for (i, cycle) in cycles.iter().enumerate() {
        let rescanned = number(cycle, "rescanned");
        assert!(rescanned <= most, "cycle {i} visited {rescanned} frames again: {cycle}");
    }
    assert!(cycles.len() >= 3, "{} cycles", cycles.len());
}

const MODES: [(&str, &[&str]); 5] = [
    ("incremental", &[]),
    ("rescan_limit", &["--barriers", "rescan-limit"]),
    ("short_scans", &["--generational=1048576"]),
    ("whole_scans", &["--generational=1048576", "--whole-scans"]),
    ("hybrid", &["--write-barrier", "hybrid"]),
];

#[test]
fn one_goroutine_that_pushes_leaves_its_young_part_to_the_stopped_world() {
    for (name, options) in MODES {
        let cycles = cycles(&format!("one_{name}"), 1, 1_000_000, 2, options);
        let deepest = cycles.iter().map(|cycle| number(cycle, "deepest_frames")).max();
        // With the hybrid barrier no frames are counted but those of a scan's beginning.
        assert!(name == "hybrid" || deepest > Some(50_000), "cycles met {deepest:?} frames");
        // The other one waits in `main`.
        check(&cycles, 2);
    }
}

#[test]
fn a_thousand_goroutines_that_push_leave_few_young_parts_to_the_stopped_world() {
    for (name, options) in MODES {
        let cycles = cycles(&format!("thousand_{name}"), 1000, 5000, 1, options);
        // Sixteen, and those that have run while the world came to its stop, on four threads.
        check(&cycles, 20);
    }
}
