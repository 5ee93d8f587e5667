//! Random mixes of everything, for as long as `SOAK_SECONDS` says (5 if it is not set), from the seed `SOAK_SEED` on: what a
//! program prints depends on its seed alone, memory stays bounded and counts balance.
#[macro_use]
mod runner;

use runner::{minigo, number};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Options, and how many tasks each of the program's goroutines does: fewer where each step takes long.
const MIXES: [(&[&str], usize); 5] = [
    (&["--threads", "1"], 60),
    (&["--threads", "1", "--stress", "poison,verify"], 60),
    (&["--threads", "4", "--mark-workers", "2", "--gc-percent", "10", "--stress", "poison,verify"], 60),
    (&["--threads", "4", "--barriers", "rescan-limit", "--stress", "poison,verify,barrier-every-frame"], 60),
    (&["--threads", "3", "--memory-limit", "4000000", "--stress", "poison,verify,move-every-poll"], 60),
];

const BOUND: u64 = 64 << 20;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn written(seed: u64, tasks: usize) -> PathBuf {
    let template = include_str!("soak.go.in");
    let source = template.replace("SEED", &seed.to_string()).replace("TASKS", &tasks.to_string());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.go");
    fs::write(&file, source).unwrap();
    file
}

#[test]
fn what_a_random_mix_prints_depends_on_its_seed_alone() {
    let end = Instant::now() + Duration::from_secs(from_environment("SOAK_SECONDS", 5));
    let mut seed = from_environment("SOAK_SEED", 1);
    loop {
        let mut printed: Option<String> = None;
        for (options, tasks) in MIXES {
            let stats = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.json");
            let mut with_stats = vec!["--stats", stats.to_str().unwrap()];
            with_stats.extend(options);
            let outcome = minigo(&with_stats, &written(seed, tasks));
            let expected = printed.get_or_insert_with(|| outcome.stdout.clone());
            outcome.expect(0, expected);
            assert!(expected.starts_with(&format!("seed {seed} sum ")), "{expected}");
            let statistics: serde_json::Value = serde_json::from_str(&fs::read_to_string(&stats).unwrap()).unwrap();
            let count = |path: &str| number(&statistics, path);
            for path in ["heap.resident_bytes", "stacks.resident_peak_bytes"] {
                assert!(count(path) < BOUND, "{path} is {} for seed {seed}, {options:?}", count(path));
            }
            let settled = count("barriers.hit") + count("barriers.leapfrogged");
            assert!(settled <= count("barriers.placed"), "seed {seed}: {settled} of {}", count("barriers.placed"));
            let allocated = count("heap.allocated_bytes");
            assert!(allocated > 1 << 20 && count("heap.live_bytes") < allocated, "seed {seed}");
            assert!(count("cycles") > 0, "seed {seed}");
        }
        println!("seed {seed} is well");
        if Instant::now() > end {
            break;
        }
        seed += 1;
    }
}
