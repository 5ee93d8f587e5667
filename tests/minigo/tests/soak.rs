//! Random mixes of everything, for as long as `SOAK_SECONDS` says (5 if it is not set), from the
//! seed `SOAK_SEED` on: what a program prints depends on its seed alone, memory stays bounded, and
//! whatever was taken is given back.
#[macro_use]
mod runner;

use runner::{minigo, number};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Options, and how many tasks each of the program's goroutines does: fewer where each step takes
/// long.
const MIXES: &[(&[&str], usize)] = &[
    (&["--threads", "1"], 60),
    (&["--threads", "1", "--stress", "poison,verify"], 60),
    (
        &[
            "--threads",
            "4",
            "--mark-workers",
            "2",
            "--gc-percent",
            "10",
            "--stress",
            "poison,verify",
        ],
        60,
    ),
    (
        &[
            "--threads",
            "4",
            "--barriers",
            "rescan-limit",
            "--stress",
            "poison,verify,barrier-every-frame",
        ],
        60,
    ),
    (
        &[
            "--threads",
            "3",
            "--memory-limit",
            "4000000",
            "--stress",
            "poison,verify,move-every-poll",
        ],
        60,
    ),
    (
        &[
            "--threads",
            "2",
            "--write-barrier",
            "hybrid",
            "--gc-percent",
            "10",
            "--stress",
            "poison,verify",
        ],
        60,
    ),
    (
        &[
            "--threads",
            "4",
            "--write-barrier",
            "hybrid",
            "--stress",
            "poison,verify,scan-few-frames",
        ],
        60,
    ),
    (
        &[
            "--threads",
            "2",
            "--barriers",
            "rescan-limit",
            "--gc-percent",
            "20",
            "--stress",
            "poison,verify",
        ],
        60,
    ),
    (
        &[
            "--threads",
            "2",
            "--barriers",
            "off",
            "--mark-workers",
            "2",
            "--stress",
            "poison,verify",
        ],
        60,
    ),
    (
        &[
            "--threads",
            "2",
            "--write-barrier",
            "hybrid",
            "--barriers",
            "off",
            "--stress",
            "poison,verify",
        ],
        60,
    ),
    (&["--threads", "1", "--stress", EVERYTHING], 1),
    (
        &[
            "--threads",
            "4",
            "--mark-workers",
            "2",
            "--write-barrier",
            "hybrid",
            "--stress",
            EVERYTHING,
        ],
        1,
    ),
];

/// Each number of tasks gives an output of its own.
const EVERYTHING: &str = runner::ALL_STRESS;

/// For objects, and for stacks.
const BOUND: u64 = 64 << 20;
/// For the whole process, the compiler included.
const PROCESS_BOUND: u64 = 192 << 20;
/// Threads that the scheduler keeps for foreign calls that last, and such calls at the end of a
/// program.
const KEPT_THREADS: u64 = 20;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The program, in a directory with its C file.
fn written(seed: u64, tasks: usize) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak");
    fs::create_dir_all(&directory).unwrap();
    let source = include_str!("soak.go.in")
        .replace("SEED", &seed.to_string())
        .replace("TASKS", &tasks.to_string());
    let file = directory.join("soak.go");
    fs::write(&file, source).unwrap();
    fs::write(directory.join("soak.c"), include_str!("soak.c")).unwrap();
    file
}

/// What must hold of the statistics of a program that has ended all its goroutines and threads.
fn check_counts(statistics: &serde_json::Value, threads: u64, tasks: usize) {
    let count = |path: &str| number(statistics, path);
    for path in ["heap.resident_bytes", "stacks.resident_peak_bytes"] {
        assert!(count(path) < BOUND, "{path} is {}", count(path));
    }
    let resident = count("process.resident_peak_bytes");
    assert!(resident < PROCESS_BOUND, "the process had {resident} bytes");
    let allocated = count("heap.allocated_bytes");
    assert!(
        allocated > tasks as u64 * 4096 && count("heap.live_bytes") < allocated,
        "{allocated} bytes allocated"
    );
    assert!(count("cycles") > 0);

    assert_eq!(statistics["census"]["imbalances"], serde_json::json!([]));
    assert_eq!(count("census.goroutines"), 1, "only the first has not ended");
    assert_eq!(count("census.handles"), 0);
    assert_eq!(count("census.threads_attached"), 0);
    assert_eq!(count("census.machines_spare"), count("census.machines_for_threads"));
    assert!(tasks == 1 || count("census.machines_for_threads") > 1, "threads have called in");
    let machines = count("census.machines") - count("census.machines_for_threads");
    assert!(machines <= threads + KEPT_THREADS, "{machines} machines");
    // What one goroutine has; the rest of the pool is whole again.
    assert!(count("census.stubs_taken") < 100, "{} stubs are taken", count("census.stubs_taken"));
}

#[test]
fn what_a_random_mix_prints_depends_on_its_seed_alone() {
    let end = Instant::now() + Duration::from_secs(from_environment("SOAK_SECONDS", 5));
    let mut seed = from_environment("SOAK_SEED", 1);
    loop {
        let mut printed: Vec<(usize, String)> = Vec::new();
        for &(options, tasks) in MIXES {
            let stats = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.json");
            let mut with_stats = vec!["--stats", stats.to_str().unwrap()];
            with_stats.extend(options);
            println!("seed {seed}, {options:?}");
            let outcome = minigo(&with_stats, &written(seed, tasks));
            let known = printed.iter().position(|(of, _)| *of == tasks).unwrap_or_else(|| {
                printed.push((tasks, outcome.stdout.clone()));
                printed.len() - 1
            });
            let expected = &printed[known].1;
            outcome.expect(0, expected);
            assert!(expected.starts_with(&format!("seed {seed} sum ")), "{expected}");
            assert!(expected.ends_with(" allocations of C 0\n"), "{expected}");
            let statistics = serde_json::from_str(&fs::read_to_string(&stats).unwrap()).unwrap();
            check_counts(&statistics, options[1].parse().unwrap(), tasks);
        }
        println!("seed {seed} is well");
        if Instant::now() > end {
            break;
        }
        seed += 1;
    }
}
