//! Random mixes of everything, for as long as `SOAK_SECONDS` says (5 if it is not set), from the
//! seed `SOAK_SEED` on: what a program prints depends on its seed alone, memory stays bounded, and
//! whatever was taken is given back.
// Its table has the system calls of x86-64.
#![cfg(target_arch = "x86_64")]
// C code is not supported on Windows.
#![cfg(not(windows))]

#[path = "faults/compiler.rs"]
mod compiler;
#[path = "faults/injector.rs"]
mod injector;
#[path = "faults/rows.rs"]
mod rows;
#[macro_use]
mod runner;

use injector::{Answer, Asked};
use limits::Limits;
use rows::{ROWS, Row};

use runner::{minigo, number};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
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

/// The program, in a directory of this name with its C file.
fn written(name: &str, seed: u64, tasks: usize) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
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
            let outcome = minigo(&with_stats, &written("soak", seed, tasks));
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

/// Numbers that look random.
struct Random(u64);

impl Random {
    /// Neighbouring seeds give unlike numbers.
    fn new(seed: u64) -> Random {
        Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }
}

/// The same while system calls fail: three of them, at random, for `SOAK_FAULT_SECONDS`. A program
/// ends right, or with a line and status 2, and never hangs.
#[test]
#[cfg_attr(any(stackmark_asan, stackmark_tsan), ignore = "a sanitizer makes calls of its own")]
fn a_random_mix_ends_right_or_with_a_line_while_calls_fail() {
    let end = Instant::now() + Duration::from_secs(from_environment("SOAK_FAULT_SECONDS", 5));
    let mut seed = from_environment("SOAK_SEED", 1);
    let limits = Limits { cpu: Duration::from_secs(240), standstill: Duration::from_secs(30) };
    let (mut right, mut lines) = (0, std::collections::BTreeMap::<String, u32>::new());
    while Instant::now() < end || right + lines.len() == 0 {
        let mut random = Random::new(seed);
        let (options, tasks) = MIXES[random.below(MIXES.len() as u64) as usize];
        let rows: Vec<&Row> =
            (0..3).map(|_| &ROWS[random.below(ROWS.len() as u64) as usize]).collect();
        let calls: Vec<_> = rows.iter().map(|row| row.call).collect();
        let one_in = [3, 30, 300][random.below(3) as usize];
        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        let what = format!("seed {seed}, {options:?}, one in {one_in} of {names:?}");
        println!("{what}");
        let answer = |call, _| {
            let row = rows.iter().find(|row| row.call == call);
            let Some(row) = row.filter(|_| random.below(one_in) == 0) else { return Answer::GoOn };
            let which = random.below(row.failures.len().max(1) as u64) as usize;
            row.failures.get(which).copied().unwrap_or(Answer::GoOn)
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
        command.args(options).arg(written("soak_faults", seed, tasks));
        command.env("PATH", compiler::path()).env("RUST_BACKTRACE", "0");
        let ended = injector::run(command, limits, Asked::These(&calls), answer);
        let said = ended.said();
        let status =
            ended.status.as_ref().unwrap_or_else(|exceeded| panic!("{what}: it {exceeded}"));
        match status.code() {
            Some(0) => {
                assert!(ended.stdout.starts_with(&format!("seed {seed} sum ")), "{what}");
                assert!(ended.stdout.ends_with(" allocations of C 0\n"), "{what}");
                right += 1;
            }
            // 1: it could not be compiled.
            Some(2) | Some(1) if !said.is_empty() => *lines.entry(said).or_default() += 1,
            _ => panic!("{what}: {status}\n{}\n{}", ended.stdout, ended.stderr),
        }
        seed += 1;
    }
    println!("{right} ended right, and others with these lines: {lines:#?}");
}
