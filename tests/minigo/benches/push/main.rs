//! How long collections stop a program that pushes frames as fast as it can: `cargo bench -p minigo
//! --bench push [-- --quick]`.
//!
//! Three goroutines recurse to a depth and allocate an object in each frame. So what a collection
//! has scanned of their stacks is soon the smaller part. Three figures, each the longest of a run,
//! and of them the median of the runs: a *stop* of the world; a *hold*, for which one goroutine
//! stands still while it is scanned; and a *gap*, the time between two readings of the clock in 64
//! frames, which is what the program feels. Four threads want two processors, so the system lets
//! some wait in the middle of what they do. Its part is to be seen beside ours: *ran* is the
//! processor time of the longest scan that a goroutine did of itself, the whole of such a hold but
//! for the system's part; and gaps of the same program without collections are shown. With each
//! write barrier, and with generations; in real Go with the same source, where it is to be had.

#[path = "../../../peers/src/go.rs"]
#[allow(dead_code, unused_imports)]
mod go;

use go::succeed;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The longest of one run.
#[derive(Clone, Copy, Default)]
struct Run {
    stop: Duration,
    hold: Option<Duration>,
    /// The most processor time that a goroutine's scan of itself took.
    ran: Option<Duration>,
    gap: Duration,
    /// Frames that were visited while the world was stopped; ours only.
    rescanned: Option<u64>,
    /// How long the program took.
    whole: Duration,
}

/// Our configurations: a name, how the figures are called, and the options.
const OURS: [(&str, &str, &[&str]); 5] = [
    ("no collections", "none", &["--gc-percent", "-1"]),
    ("insertion", "", &["--write-barrier", "insertion"]),
    ("hybrid", "_hybrid", &["--write-barrier", "hybrid"]),
    ("generations", "_generational", &["--generational", "--write-barrier", "insertion"]),
    ("both", "_hybrid_generational", &["--generational", "--write-barrier", "hybrid"]),
];

struct Bench {
    directory: PathBuf,
    depth: usize,
}

impl Bench {
    fn source(&self, for_go: bool) -> Result<PathBuf, Box<dyn Error>> {
        let depth = format!("depth      = {}", self.depth);
        let mut text = include_str!("push.go").replace("depth      = 1000", &depth);
        if for_go {
            // Go's frames are larger, and its stacks double: the default limit is too low.
            text = text
                .replace("\t\"fmt\"\n", "\t\"fmt\"\n\t\"runtime/debug\"\n")
                .replace("func main() {\n", "func main() {\n\tdebug.SetMaxStack(1 << 32)\n");
        }
        let file = self.directory.join(if for_go { "push_go.go" } else { "push.go" });
        std::fs::write(&file, text)?;
        Ok(file)
    }

    fn ours(&self, options: &[&str]) -> Result<Run, Box<dyn Error>> {
        let stats = self.directory.join("stats.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
        command.args(["--threads", "2", "--mark-workers", "1", "--stats"]).arg(&stats);
        let begun = Instant::now();
        let out = succeed(command.args(options).arg(self.source(false)?))?;
        let whole = begun.elapsed();
        let stats: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(stats)?)?;
        let cycles = stats["cycles_detail"].as_array().ok_or("no cycles in the statistics")?;
        let longest = |name: &str| {
            cycles.iter().filter_map(|cycle| cycle[name].as_u64()).max().unwrap_or_default()
        };
        Ok(Run {
            stop: Duration::from_nanos(longest("world_stop_ns")),
            hold: Some(Duration::from_nanos(longest("longest_hold_ns"))),
            ran: stats["own_scans_ns"]["max"].as_u64().map(Duration::from_nanos),
            gap: gap(&out),
            rescanned: Some(longest("rescanned")),
            whole,
        })
    }

    fn go(&self, program: &Path) -> Result<Run, Box<dyn Error>> {
        let begun = Instant::now();
        let output =
            Command::new(program).env("GODEBUG", "gctrace=1").env("GOMAXPROCS", "2").output()?;
        if !output.status.success() {
            return Err(format!("Go's program: {}", output.status).into());
        }
        Ok(Run {
            stop: go::longest_stop(&String::from_utf8_lossy(&output.stderr)),
            gap: gap(&String::from_utf8_lossy(&output.stdout)),
            whole: begun.elapsed(),
            ..Run::default()
        })
    }
}

/// The longest gap that the program has printed.
fn gap(out: &str) -> Duration {
    let gaps = out.lines().filter_map(|line| line.strip_prefix("gap ")?.trim().parse().ok());
    Duration::from_nanos(gaps.max().unwrap_or_default())
}

fn median<T: Ord + Copy>(of: impl Iterator<Item = T>) -> Option<T> {
    let mut sorted: Vec<T> = of.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// Prints the medians of the runs, and figures with this ending.
fn show(name: &str, key: &str, power: &str, runs: &[Run]) {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let of = |what: fn(&Run) -> Duration| median(runs.iter().map(what)).map_or(0.0, us);
    let maybe = |what: fn(&Run) -> Option<Duration>| median(runs.iter().filter_map(what)).map(us);
    let (hold, ran) = (maybe(|run| run.hold), maybe(|run| run.ran));
    let shown = |time: Option<f64>| time.map_or("-".into(), |time| format!("{time:.1}"));
    let rescanned = runs.iter().filter_map(|run| run.rescanned).max();
    let (stop, gap) = (of(|run| run.stop), of(|run| run.gap));
    println!(
        "{name:<16}{stop:>12.1}{:>12}{:>12}{gap:>12.1}{:>12}{:>9.2}",
        shown(hold),
        shown(ran),
        rescanned.map_or("-".into(), |frames| frames.to_string()),
        of(|run| run.whole) / 1e6,
    );
    if key != "none" {
        println!("figure push_stop_{power}{key} {stop:.1} us");
        if let Some(hold) = hold {
            println!("figure push_hold_{power}{key} {hold:.1} us");
        }
        if let Some(ran) = ran {
            println!("figure push_hold_ran_{power}{key} {ran:.1} us");
        }
    }
    let key = if key == "none" { "_none" } else { key };
    println!("figure push_gap_{power}{key} {gap:.1} us");
}

fn main() -> Result<(), Box<dyn Error>> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let _machine = quiet::Machine::look();
    let (depth, power, count) = if quick { (100_000, "1e5", 1) } else { (5_000_000, "5e6", 5) };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = target.join("push");
    std::fs::create_dir_all(&directory)?;
    let bench = Bench { directory, depth };
    println!("three recursions of {depth} frames on two threads; the longest of each run");
    println!(
        "{:<16}{:>12}{:>12}{:>12}{:>12}{:>12}{:>9}",
        "", "stop, us", "hold, us", "ran, us", "gap, us", "rescanned", "run, s"
    );
    // In turn, so that a busy moment of the machine meets all of them.
    let mut runs = vec![Vec::new(); OURS.len()];
    for _ in 0..count {
        for (runs, (_, _, options)) in runs.iter_mut().zip(OURS) {
            runs.push(bench.ours(options)?);
        }
    }
    for (runs, (name, key, _)) in runs.iter().zip(OURS) {
        show(name, key, power, runs);
    }
    if quick {
        return Ok(());
    }
    match go::Go::find(None, target) {
        Ok(go) => {
            println!("Go is {}", go.version);
            let program = bench.directory.join("push");
            go.build(&bench.source(true)?, &program)?;
            let runs: Result<Vec<_>, _> = (0..count).map(|_| bench.go(&program)).collect();
            match runs {
                Ok(runs) => show("Go", "_go", power, &runs),
                Err(error) => println!("Go is skipped: {error}"),
            }
        }
        Err(error) => println!("Go is skipped: {error}"),
    }
    Ok(())
}
