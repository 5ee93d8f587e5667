//! How long a collection stops a program with a deep stack: `cargo bench -p minigo --bench pause
//! [-- --quick | --ours]`.
//!
//! One goroutine recurses to a depth and then runs a loop that goes a few frames up and down and
//! reads the clock, while the main goroutine collects. Two figures for each collection: the longest
//! *stop* that the collector imposes (the world stopped, or a goroutine held), by its own account;
//! and the longest *gap* that the deep goroutine sees, which is what a program feels. In each of
//! our modes, and where each goroutine is a thread on its own stack; in real Go, with the same
//! source; in Java, and in C with the Boehm collector, where they are installed. Two threads run at
//! most, on two cores or more: the scheduler's milliseconds are not the collectors'. The system has
//! gaps of its own, timer interrupts above all: those of the same program without collections are
//! shown too, and every gap is looked for through the same 25 milliseconds, or a longer collection.
//!
//! Medians and maxima over the collections; a plot goes to `target/pause.svg`. Goals are on the
//! medians.

#[path = "../../../peers/src/go.rs"]
#[allow(dead_code, unused_imports)]
mod go;
mod java;
#[path = "../plot/mod.rs"]
mod plot;

use go::succeed;
use plot::{Curve, Plot};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The frames that the deep goroutine's loop touches: its own, and those of `rec(top - 1)`.
const TOUCHED: u64 = 17;

/// One run, an entry for each collection.
#[derive(Default)]
struct Run {
    /// Nanoseconds.
    stops: Vec<u64>,
    gaps: Vec<u64>,
    /// Frames that were visited again while the world was stopped; ours only.
    rescanned: Vec<u64>,
}

fn median(of: &[u64]) -> u64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

fn longest(of: &[u64]) -> u64 {
    of.iter().copied().max().unwrap_or(0)
}

/// What the lines that begin with `word` say.
fn numbers(text: &str, word: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok()).collect()
}

type Results = BTreeMap<(&'static str, usize), Run>;

/// The medians of all runs against the depth, a curve for each name.
fn plot<'a>(title: &'a str, results: &Results, what: fn(&Run) -> &Vec<u64>) -> Plot<'a> {
    let mut curves: Vec<Curve<'a>> = Vec::new();
    for (&(name, depth), run) in results {
        let point = (depth as f64, (median(what(run)) as f64 / 1e3).max(1.0));
        match curves.last_mut() {
            Some(curve) if curve.name == name => curve.points.push(point),
            _ => curves.push(Curve { name, points: vec![point] }),
        }
    }
    Plot { title, below: "frames", left: "microseconds", curves }
}

struct Bench {
    directory: PathBuf,
    collections: usize,
}

impl Bench {
    /// The Go program for that depth.
    fn source(&self, depth: usize, collecting: bool) -> Result<PathBuf, Box<dyn Error>> {
        let text = include_str!("deep.go")
            .replace("depth       = 1000", &format!("depth = {depth}"))
            .replace("collecting  = true", &format!("collecting = {collecting}"))
            .replace("collections = 50", &format!("collections = {}", self.collections));
        let file = self.directory.join(format!("deep_{depth}.go"));
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// With these barriers; without collections if there are none named.
    fn ours(
        &self,
        threads: &[&str],
        mode: Option<&str>,
        depth: usize,
    ) -> Result<Run, Box<dyn Error>> {
        let stats = self.directory.join("stats.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
        command.args(threads).args(["--mark-workers", "1", "--gc-percent", "-1", "--barriers"]);
        command.args([mode.unwrap_or("incremental"), "--stats"]).arg(&stats);
        let out = succeed(command.arg(self.source(depth, mode.is_some())?))?;
        let stats: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(stats)?)?;
        let cycles = stats["cycles_detail"].as_array().ok_or("no cycles in the statistics")?;
        let stop = |cycle: &serde_json::Value| {
            let of = |name: &str| cycle[name].as_u64().unwrap_or(0);
            of("world_stop_ns").max(of("longest_hold_ns"))
        };
        let rescanned = |cycle: &serde_json::Value| cycle["rescanned"].as_u64().unwrap_or(0);
        // The first three are not measured.
        Ok(Run {
            stops: cycles.iter().skip(3).map(stop).collect(),
            gaps: numbers(&out, "gap "),
            rescanned: cycles.iter().skip(3).map(rescanned).collect(),
        })
    }

    fn go(&self, go: &go::Go, depth: usize) -> Result<Run, Box<dyn Error>> {
        let program = self.directory.join(format!("deep_{depth}"));
        go.build(&self.source(depth, true)?, &program)?;
        let output =
            Command::new(&program).env("GODEBUG", "gctrace=1").env("GOGC", "off").output()?;
        let trace = String::from_utf8_lossy(&output.stderr);
        let stop = |line: &str| go::longest_stop(line).as_nanos() as u64;
        let collections = trace.lines().filter(|line| line.starts_with("gc ")).skip(3);
        Ok(Run {
            stops: collections.map(stop).collect(),
            gaps: numbers(&String::from_utf8_lossy(&output.stdout), "gap "),
            ..Run::default()
        })
    }

    /// C, compiled with the Boehm collector: the deep thread is the one that collects, so that its
    /// gap is the stop.
    fn boehm(&self, depth: usize) -> Result<Run, Box<dyn Error>> {
        let source = self.directory.join("deep.c");
        std::fs::write(&source, include_str!("deep.c"))?;
        let program = self.directory.join("deep_boehm");
        succeed(Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&source).arg("-lgc"))?;
        let command =
            format!("ulimit -s unlimited; exec {} {depth} {}", program.display(), self.collections);
        let stops = numbers(&succeed(Command::new("sh").args(["-c", &command]))?, "stop ");
        Ok(Run { gaps: stops.clone(), stops, ..Run::default() })
    }
}

/// Goroutines on two threads.
const TWO_THREADS: &[&str] = &["--threads", "2"];
/// Each on its thread's own stack.
const OWN_STACKS: &[&str] = &["--native-stacks"];

const MODES: [(&str, &[&str], Option<&str>); 7] = [
    ("none", TWO_THREADS, None),
    ("incremental", TWO_THREADS, Some("incremental")),
    ("rescan limit", TWO_THREADS, Some("rescan-limit")),
    ("whole", TWO_THREADS, Some("off")),
    ("native none", OWN_STACKS, None),
    ("native", OWN_STACKS, Some("incremental")),
    ("native whole", OWN_STACKS, Some("off")),
];

fn main() -> Result<(), Box<dyn Error>> {
    let given = |name: &str| std::env::args().any(|argument| argument == name);
    let (quick, ours) = (given("--quick"), given("--ours"));
    let machine = quiet::Machine::look();
    let depths: &[usize] =
        if quick { &[100, 10_000] } else { &[100, 1_000, 10_000, 100_000, 1_000_000] };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = target.join("pause");
    std::fs::create_dir_all(&directory)?;
    let bench = Bench { directory, collections: if quick { 5 } else { 51 } };
    println!(
        "{} cores; at most 2 threads that run: the deep goroutine's and the collector's",
        cores()
    );
    println!(
        "{:<14}{:>9}{:>13}{:>13}{:>13}{:>13}",
        "", "depth", "stop, us", "longest", "gap, us", "longest"
    );

    let mut results = Results::new();
    let mut run = |name: &'static str, depth: usize, run: Result<Run, Box<dyn Error>>| match run {
        Ok(run) => {
            let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
            let [stop, stops, gap, gaps] =
                [median(&run.stops), longest(&run.stops), median(&run.gaps), longest(&run.gaps)]
                    .map(us);
            println!("{name:<14}{depth:>9}{stop:>13}{stops:>13}{gap:>13}{gaps:>13}");
            results.insert((name, depth), run);
        }
        Err(error) => println!("{name:<14}{depth:>9} skipped: {error}"),
    };
    for &depth in depths {
        for (name, threads, mode) in MODES {
            run(name, depth, Ok(bench.ours(threads, mode, depth)?));
        }
    }
    if !quick && !ours {
        match go::Go::find(None, target) {
            Ok(go) => {
                println!("Go is {}", go.version);
                depths.iter().for_each(|&depth| run("Go", depth, bench.go(&go, depth)));
            }
            Err(error) => println!("Go is skipped: {error}"),
        }
        for (name, option) in java::COLLECTORS {
            depths.iter().for_each(|&depth| {
                run(name, depth, java::run(&bench.directory, option, depth, 51))
            });
        }
        depths.iter().for_each(|&depth| run("Boehm", depth, bench.boehm(depth)));
        let file = target.join("../pause.svg");
        let stops = plot("longest stop of a collection, median", &results, |run| &run.stops);
        let gaps = plot("longest gap seen by the deep thread, median", &results, |run| &run.gaps);
        plot::write(&file, &[stops, gaps])?;
        println!("plotted in {}", file.display());
    }
    drop(machine);
    figures(&results, depths);
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

fn figures(results: &Results, depths: &[usize]) {
    let (first, last) = (depths[0], depths[depths.len() - 1]);
    let of = |name: &str, depth: usize, what: fn(&Run) -> &Vec<u64>| {
        results
            .iter()
            .find(|((n, d), _)| *n == name && *d == depth)
            .map(|(_, run)| median(what(run)) as f64)
    };
    let gap = |name: &str, depth| of(name, depth, |run| &run.gaps);
    let stop = |name: &str, depth| of(name, depth, |run| &run.stops);
    let ratio = |name: &str, over: Option<f64>, under: Option<f64>| {
        if let (Some(over), Some(under)) = (over, under.filter(|under| *under > 0.0)) {
            println!("figure {name} {:.3} ratio", over / under);
        }
    };
    let power = |depth: usize| format!("1e{}", depth.ilog10());
    for depth in [first, last] {
        for name in [
            "none",
            "incremental",
            "rescan limit",
            "whole",
            "native none",
            "native",
            "native whole",
            "Go",
            "ZGC",
            "Shenandoah",
            "G1",
            "Boehm",
        ] {
            let key = name.to_lowercase().replace(' ', "_");
            for (what, value) in [("gap", gap(name, depth)), ("stop", stop(name, depth))] {
                if let Some(value) = value {
                    println!("figure {what}_{key}_{} {:.1} us", power(depth), value / 1e3);
                }
            }
        }
    }
    let ours = "incremental";
    ratio(&format!("gap_{}_vs_{}", power(last), power(first)), gap(ours, last), gap(ours, first));
    ratio(
        &format!("stop_{}_vs_{}", power(last), power(first)),
        stop(ours, last),
        stop(ours, first),
    );
    let flat = |what: &str, of: &dyn Fn(&str, usize) -> Option<f64>| {
        let name = format!("{what}_native_{}_vs_{}", power(last), power(first));
        ratio(&name, of("native", last), of("native", first));
    };
    flat("gap", &gap);
    flat("stop", &stop);
    ratio(
        &format!("gap_whole_vs_incremental_{}", power(last)),
        gap("whole", last),
        gap(ours, last),
    );
    ratio(&format!("gap_go_vs_incremental_{}", power(last)), gap("Go", last), gap(ours, last));
    let rescanned = of(ours, last, |run| &run.rescanned);
    ratio(&format!("rescanned_vs_touched_{}", power(last)), rescanned, Some(TOUCHED as f64));
    ratio(&format!("stop_zgc_vs_incremental_{}", power(last)), stop("ZGC", last), stop(ours, last));
}
