//! The command `minigo-mmtk --mmtk PLAN [options] FILE.go`: minigo on a heap of MMTk's.

mod binding;
mod heap;
mod objects;

use clap::Parser;
use clap::builder::{EnumValueParser, TypedValueParser};
use heap::{Heap, PLANS, REFUSED};
use minigo::{BarrierMode, Options, Stress, threads};
use std::path::PathBuf;
use std::process::ExitCode;

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
    #[arg(
        long,
        value_name = "LIST",
        value_parser = EnumValueParser::<Stress>::new().try_map(on_mmtk),
        value_delimiter = ','
    )]
    stress: Vec<Stress>,
    /// For tests of verification: a collection gets the slots of the last one.
    #[arg(long, hide = true)]
    break_roots: bool,
}

fn plan(name: &str) -> Result<&'static str, String> {
    if let Some(plan) = PLANS.iter().find(|plan| **plan == name) {
        return Ok(plan);
    }
    let refused = REFUSED.iter().find(|(plan, _)| *plan == name);
    let why = refused.map_or("there is no such plan", |(_, why)| why);
    Err(format!("{why}; there are {}", PLANS.join(", ")))
}

/// What a collection does is the heap's own matter, and when there is one.
fn on_mmtk(mode: Stress) -> Result<Stress, &'static str> {
    match mode {
        Stress::CollectEveryPoll => Err("a plan of MMTk's collects after bytes: --collect-every"),
        mode => Ok(mode),
    }
}

fn main() -> ExitCode {
    let a = Arguments::parse();
    let heap = Heap {
        plan: a.mmtk,
        bytes: a.heap_limit,
        every: a.collect_every,
        verify: a.stress.contains(&Stress::Verify),
        keeps_slots: a.break_roots,
    };
    let options = Options {
        file: a.file,
        report: a.report,
        threads: a.threads,
        max_stack: a.max_stack,
        stress: a.stress,
        barriers: BarrierMode::Incremental,
        ..Options::default()
    };
    // A panic has written its message. It comes of the system: a wrong program has an error.
    let Ok(not_run) = std::panic::catch_unwind(|| minigo::run_on(&options, Box::new(heap))) else {
        return ExitCode::from(2);
    };
    not_run.report();
    not_run.status.into()
}
