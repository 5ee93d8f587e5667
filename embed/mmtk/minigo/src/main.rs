//! The command `minigo-mmtk --mmtk PLAN [options] FILE.go`: minigo on a heap of MMTk's.

mod binding;
mod heap;
mod objects;

use clap::{Parser, ValueEnum};
use heap::{Heap, PLANS, REFUSED};
use minigo::{BarrierMode, Options, Stress};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Clone, Copy, ValueEnum)]
enum StressName {
    BarrierEveryFrame,
    MoveEveryPoll,
    Poison,
    ScanFewFrames,
}

/// Compiles and runs a Go program on a heap of MMTk's.
#[derive(Parser)]
#[command(name = "minigo-mmtk", version)]
struct Arguments {
    /// The program.
    file: PathBuf,
    /// NoGC, MarkSweep, Immix or ConcurrentImmix.
    #[arg(long, value_name = "PLAN", value_parser = plan)]
    mmtk: &'static str,
    /// The most memory for objects.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    heap_limit: usize,
    /// For tests: a collection each time that so many bytes have been allocated. Immix would move
    /// all objects that are not pinned.
    #[arg(long, value_name = "BYTES")]
    collect_every: Option<usize>,
    /// Print a line about the collections at exit.
    #[arg(long)]
    report: bool,
    /// OS threads that run goroutines.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = threads)]
    threads: usize,
    /// The largest stack of a goroutine.
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000_000)]
    max_stack: usize,
    /// Debugging modes, separated by commas.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    stress: Vec<StressName>,
}

fn plan(name: &str) -> Result<&'static str, String> {
    if let Some(plan) = PLANS.iter().find(|plan| **plan == name) {
        return Ok(plan);
    }
    let refused = REFUSED.iter().find(|(plan, _)| *plan == name);
    let why = refused.map_or("there is no such plan", |(_, why)| why);
    Err(format!("{why}; there are {}", PLANS.join(", ")))
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=1024).contains(&n) => Ok(n),
        _ => Err("a number from 1 to 1024 is needed".into()),
    }
}

fn main() -> ExitCode {
    let a = Arguments::parse();
    let stress = a.stress.iter().map(|s| match s {
        StressName::BarrierEveryFrame => Stress::BarrierEveryFrame,
        StressName::MoveEveryPoll => Stress::MoveEveryPoll,
        StressName::Poison => Stress::Poison,
        StressName::ScanFewFrames => Stress::ScanFewFrames,
    });
    let options = Options {
        file: a.file,
        report: a.report,
        threads: a.threads,
        max_stack: a.max_stack,
        stress: stress.collect(),
        barriers: BarrierMode::Incremental,
        ..Options::default()
    };
    let heap = Heap { plan: a.mmtk, bytes: a.heap_limit, every: a.collect_every };
    // A panic has written its message. It comes of the system: a wrong program has an error.
    let Ok(not_run) = std::panic::catch_unwind(|| minigo::run_on(&options, Box::new(heap))) else {
        return ExitCode::from(2);
    };
    not_run.report();
    not_run.status.into()
}
