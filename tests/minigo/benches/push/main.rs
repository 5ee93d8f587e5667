//! How long collections stop a program that pushes frames as fast as it can: `cargo bench -p minigo
//! --bench push [-- --quick] [--frames N]`.
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
//!
//! Then the other way to leave a deep stack: a goroutine recurses and panics in turn, while another
//! one allocates. Its frames are left at once, by native code, for which the world must not wait.
//! Here a *gap* is the other one's.

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
    /// How long the world took to stop; ours only.
    to_stop: Option<Duration>,
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
    /// What its figures begin with.
    name: &'static str,
    program: &'static str,
    depth: usize,
    rounds: usize,
}

impl Bench {
    fn source(&self, for_go: bool) -> Result<PathBuf, Box<dyn Error>> {
        let start = self.program.find("= 1000\n").ok_or("the program has no depth of 1000")?;
        let (before, after) = (&self.program[..start], &self.program[start + "= 1000".len()..]);
        let mut text = format!("{before}= {}{after}", self.depth);
        if for_go {
            // Go's frames are larger, and its stacks double: the default limit is too low.
            text = text
                .replace("\t\"fmt\"\n", "\t\"fmt\"\n\t\"runtime/debug\"\n")
                .replace("func main() {\n", "func main() {\n\tdebug.SetMaxStack(1 << 32)\n");
        }
        let file = self.directory.join(if for_go { "go.go" } else { "ours.go" });
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
            to_stop: Some(Duration::from_nanos(longest("time_to_stop_ns"))),
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

impl Bench {
    /// Runs all configurations in turn, so that a busy moment of the machine meets all of them.
    fn run(&self, go: Option<&go::Go>) -> Result<(), Box<dyn Error>> {
        std::fs::create_dir_all(&self.directory)?;
        println!(
            "{:<16}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}{:>9}",
            "", "to stop, us", "stop, us", "hold, us", "ran, us", "gap, us", "rescanned", "run, s"
        );
        let mut runs = vec![Vec::new(); OURS.len()];
        for _ in 0..self.rounds {
            for (runs, (_, _, options)) in runs.iter_mut().zip(OURS) {
                runs.push(self.ours(options)?);
            }
        }
        for (runs, (name, key, _)) in runs.iter().zip(OURS) {
            self.show(name, key, runs);
        }
        let Some(go) = go else { return Ok(()) };
        let program = self.directory.join("program");
        go.build(&self.source(true)?, &program)?;
        match (0..self.rounds).map(|_| self.go(&program)).collect::<Result<Vec<_>, _>>() {
            Ok(runs) => self.show("Go", "_go", &runs),
            Err(error) => println!("Go is skipped: {error}"),
        }
        Ok(())
    }

    /// Prints the medians of the runs, and figures with this ending.
    fn show(&self, name: &str, key: &str, runs: &[Run]) {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let of = |what: fn(&Run) -> Duration| median(runs.iter().map(what)).map_or(0.0, us);
        let maybe =
            |what: fn(&Run) -> Option<Duration>| median(runs.iter().filter_map(what)).map(us);
        let (to_stop, hold, ran) =
            (maybe(|run| run.to_stop), maybe(|run| run.hold), maybe(|run| run.ran));
        let shown = |time: Option<f64>| time.map_or("-".into(), |time| format!("{time:.1}"));
        let rescanned = runs.iter().filter_map(|run| run.rescanned).max();
        let (stop, gap) = (of(|run| run.stop), of(|run| run.gap));
        println!(
            "{name:<16}{:>12}{stop:>12.1}{:>12}{:>12}{gap:>12.1}{:>12}{:>9.2}",
            shown(to_stop),
            shown(hold),
            shown(ran),
            rescanned.map_or("-".into(), |frames| frames.to_string()),
            of(|run| run.whole) / 1e6,
        );
        let (own, power) = (self.name, power(self.depth));
        let figure = |what: &str, key: &str, value: f64| {
            println!("figure {own}_{what}_{power}{key} {value:.1} us");
        };
        if key != "none" {
            figure("stop", key, stop);
            for (what, time) in [("to_stop", to_stop), ("hold", hold), ("hold_ran", ran)] {
                time.into_iter().for_each(|time| figure(what, key, time));
            }
        }
        let key = if key == "none" { "_none" } else { key };
        figure("gap", key, gap);
        figure("run", key, of(|run| run.whole));
    }
}

/// A number in the names of figures: `5e6`.
fn power(number: usize) -> String {
    format!("{:e}", number as f64)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let frames = arguments.iter().position(|argument| argument == "--frames");
    let frames = match frames.map(|at| arguments.get(at + 1)) {
        Some(number) => Some(number.ok_or("--frames wants a number")?.parse::<usize>()?),
        None => None,
    };
    let _machine = quiet::Machine::look();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let rounds = if quick { 1 } else { 5 };
    let bench = |name, program, whole| Bench {
        directory: target.join(name),
        name,
        program,
        depth: frames.unwrap_or(if quick { 100_000 } else { whole }),
        rounds,
    };
    let push = bench("push", include_str!("push.go"), 5_000_000);
    let panics = bench("panics", include_str!("panics.go"), 1_000_000);
    let go = if quick {
        Err(std::io::Error::other("not in a quick run"))
    } else {
        go::Go::find(None, target)
    };
    match &go {
        Ok(go) => println!("Go is {}", go.version),
        Err(error) => println!("Go is skipped: {error}"),
    }
    println!("three recursions of {} frames on two threads; the longest of each run", push.depth);
    push.run(go.as_ref().ok())?;
    println!("a recursion of {} frames, left by a panic, twelve times", panics.depth);
    panics.run(go.as_ref().ok())
}
