//! The tail of what a program feels: `cargo bench -p minigo --bench tail [-- --quick | -- --seconds
//! N]`.
//!
//! A server (`program/tail.go`) runs for ten minutes: recursions that push frames, goroutines,
//! channels, callbacks, and a goroutine that stays deep. Every *gap* that its goroutines see goes
//! into a histogram, every *request*, and of ours every *stop* of the world and every *hold* of a
//! goroutine, by the collector's own account. Beside ours stand the same program without
//! collections, for as long as memory allows, and real Go with the same source. A plot of all goes
//! to `target/plots/tail.svg`.
//!
//! Then it runs for two minutes more with a trace, which names what happened in the ten longest
//! gaps. A trace slows the program down, so its gaps count for nothing else.

#[path = "../../../peers/src/go.rs"]
#[allow(dead_code, unused_imports)]
mod go;
#[path = "../plot/mod.rs"]
mod plot;
mod trace;

use go::succeed;
use hdrhistogram::Histogram;
use plot::{Curve, Plot};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use trace::{Gap, Trace};

/// The share of the time that the program runs without collections: its garbage stays.
const WITHOUT: u64 = 60;
/// And with a trace.
const TRACED: u64 = 5;

/// What is measured of one run, in nanoseconds.
struct Run {
    name: &'static str,
    key: &'static str,
    measured: Vec<(&'static str, Histogram<u64>)>,
}

struct Bench {
    directory: PathBuf,
}

impl Bench {
    /// Writes the program for so many seconds, and returns its directory.
    fn program(&self, seconds: u64) -> Result<PathBuf, Box<dyn Error>> {
        let directory = self.directory.join(format!("program_{seconds}"));
        std::fs::create_dir_all(&directory)?;
        let text = include_str!("program/tail.go")
            .replace("seconds  = 1\n", &format!("seconds  = {seconds}\n"));
        std::fs::write(directory.join("tail.go"), text)?;
        std::fs::write(directory.join("tail.c"), include_str!("program/tail.c"))?;
        Ok(directory)
    }

    fn minigo(&self, seconds: u64, options: &[&str]) -> Result<String, Box<dyn Error>> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
        command.args(["--threads", "2", "--mark-workers", "1"]).args(options);
        Ok(succeed(command.arg(self.program(seconds)?.join("tail.go")))?)
    }

    fn ours(&self, seconds: u64) -> Result<Run, Box<dyn Error>> {
        let stats = self.directory.join("stats.json");
        let out = self.minigo(seconds, &["--stats", stats.to_str().ok_or("a path in UTF-8")?])?;
        let stats: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(stats)?)?;
        let of = |name: &str| -> Result<Histogram<u64>, Box<dyn Error>> {
            let counts = stats[name].as_array().ok_or("no counts in the statistics")?;
            histogram(counts.iter().filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_u64()?))))
        };
        let (stops, holds) = (of("pauses_by_length")?, of("holds_by_length")?);
        let mut run = felt("ours", "", &out)?;
        run.measured.extend([("stop", stops), ("hold", holds)]);
        Ok(run)
    }

    fn go(&self, seconds: u64, target: &Path) -> Result<Run, Box<dyn Error>> {
        let go = go::Go::find(None, target)?;
        println!("Go is {}", go.version);
        let program = self.directory.join("tail");
        go.build_package(&self.program(seconds)?, &program)?;
        felt("Go", "_go", &succeed(Command::new(program).env("GOMAXPROCS", "2"))?)
    }

    /// Runs with a trace, and says what happened in the longest gaps.
    fn causes(&self, seconds: u64) -> Result<(), Box<dyn Error>> {
        let file = self.directory.join("trace.json");
        let out = self.minigo(seconds, &["--trace", file.to_str().ok_or("a path in UTF-8")?])?;
        let trace = Trace::read(&file)?;
        std::fs::remove_file(file)?;
        let begins = numbers(&out, "begins").next().ok_or("no beginning")?[0];
        let mut gaps: Vec<Gap> = numbers(&out, "long")
            .map(|words| Gap { begin: words[1].saturating_sub(begins), length: words[0] })
            .collect();
        gaps.sort_unstable_by_key(|gap| std::cmp::Reverse(gap.length));
        println!("the longest gaps of {seconds} s with a trace, and what overlapped them:");
        for gap in gaps.iter().take(10) {
            println!("{:>10.1} us: {}", gap.length as f64 / 1e3, trace.causes(gap).join(", "));
        }
        Ok(())
    }
}

/// The numbers behind `word`, of each line that begins with it.
fn numbers<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = Vec<u64>> + 'a {
    text.lines().filter_map(move |line| {
        let words = line.strip_prefix(word)?.strip_prefix(' ')?;
        words.split(' ').map(|number| number.parse().ok()).collect()
    })
}

fn histogram(counts: impl Iterator<Item = (u64, u64)>) -> Result<Histogram<u64>, Box<dyn Error>> {
    let mut histogram = Histogram::new(3)?;
    for (length, count) in counts {
        histogram.record_n(length, count)?;
    }
    Ok(histogram)
}

/// What the program has printed.
fn felt(name: &'static str, key: &'static str, out: &str) -> Result<Run, Box<dyn Error>> {
    let of = |word| histogram(numbers(out, word).map(|numbers| (numbers[0], numbers[1])));
    Ok(Run { name, key, measured: vec![("gap", of("gap")?), ("request", of("request")?)] })
}

/// Which of a histogram are shown, and how they are called in figures.
const QUANTILES: [(f64, &str); 5] =
    [(0.5, "p50"), (0.99, "p99"), (0.999, "p999"), (0.9999, "p9999"), (1.0, "max")];

fn show(runs: &[Run]) {
    print!("{:<24}{:>12}", "", "count");
    QUANTILES.iter().for_each(|(_, name)| print!("{name:>10}"));
    println!("  (microseconds)");
    for run in runs {
        for (what, histogram) in &run.measured {
            print!("{:<24}{:>12}", format!("{}, {what}", run.name), histogram.len());
            for (quantile, _) in QUANTILES {
                print!("{:>10.1}", histogram.value_at_quantile(quantile) as f64 / 1e3);
            }
            println!();
        }
    }
}

/// A point for each step towards the longest: below it lies all but one in so many.
fn curve<'a>(name: &'a str, histogram: &Histogram<u64>) -> Curve<'a> {
    let mut points = Vec::new();
    let mut one_in = 2.0;
    while one_in <= histogram.len() as f64 {
        let length = histogram.value_at_quantile(1.0 - 1.0 / one_in) as f64 / 1e3;
        points.push((one_in, length.max(0.1)));
        one_in *= 1.5;
    }
    Curve { name, points }
}

fn draw(runs: &[Run]) -> Result<(), Box<dyn Error>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plots");
    std::fs::create_dir_all(&directory)?;
    let of = |title: &'static str, wanted: &[&str]| {
        let chosen = runs.iter().flat_map(|run| {
            let of_run = run.measured.iter().filter(|(what, _)| wanted.contains(what));
            of_run.map(|(what, histogram)| (format!("{}, {what}", run.name), histogram))
        });
        let names: Vec<(String, &Histogram<u64>)> = chosen.filter(|of| of.1.len() > 1).collect();
        (title, names)
    };
    let parts =
        [of("gaps, stops and holds", &["gap", "stop", "hold"]), of("requests", &["request"])];
    let plots: Vec<Plot<'_>> = parts
        .iter()
        .map(|(title, names)| Plot {
            title,
            below: "one in so many is longer",
            left: "microseconds",
            curves: names.iter().map(|(name, histogram)| curve(name, histogram)).collect(),
        })
        .collect();
    let file = directory.join("tail.svg");
    plot::write(&file, &plots)?;
    println!("wrote {}", file.display());
    Ok(())
}

/// How long the program runs.
fn seconds(quick: bool) -> Result<u64, Box<dyn Error>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--seconds");
    match arguments.nth(1) {
        Some(seconds) => Ok(seconds.parse().map_err(|_| "--seconds N")?),
        None => Ok(if quick { 2 } else { 600 }),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let machine = quiet::Machine::look();
    let seconds = seconds(quick)?;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let bench = Bench { directory: target.join("tail") };
    std::fs::create_dir_all(&bench.directory)?;
    let without = (seconds / WITHOUT).max(1);
    let out = bench.minigo(without, &["--gc-percent", "-1"])?;
    let mut runs = vec![felt("no collections", "_none", &out)?, bench.ours(seconds)?];
    if !quick {
        match bench.go(seconds, target) {
            Ok(run) => runs.push(run),
            Err(error) => println!("Go is skipped: {error}"),
        }
    }
    show(&runs);
    draw(&runs)?;
    bench.causes((seconds / TRACED).max(1))?;
    drop(machine);
    for Run { key, measured, .. } in &runs {
        for (what, histogram) in measured {
            for (quantile, name) in QUANTILES {
                let us = histogram.value_at_quantile(quantile) as f64 / 1e3;
                println!("figure tail_{what}_{name}{key} {us:.1} us");
            }
        }
    }
    Ok(())
}
