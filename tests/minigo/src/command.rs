//! The options of a run, on the command line.

use crate::options::{
    BarrierKind, BarrierMode, Detection, Generational, Options, ReturnProtection, Stress, threads,
};
use clap::{Args, Parser, ValueEnum};
use std::path::PathBuf;

#[derive(Clone, Copy, ValueEnum)]
enum WriteBarrier {
    Insertion,
    Hybrid,
}

#[derive(Clone, Copy, ValueEnum)]
enum Barriers {
    Incremental,
    RescanLimit,
    Off,
}

/// How a program is run.
#[derive(Args)]
pub struct Runs {
    /// Print a summary of the collections at exit.
    #[arg(long)]
    report: bool,
    /// Write the statistics as JSON to this file at exit.
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Sample where the program is, a thousand times a second, and write a profile to this file at
    /// exit.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Keep the C code's shared object in this file: for debuggers of core files.
    #[arg(long, value_name = "FILE")]
    c_library: Option<PathBuf>,
    /// Draw a stack to this file at exit, as SVG: that of the goroutine that has called runtime.GC
    /// last, as the collection has left it. If none has, the deepest one at exit.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Write a trace of the collections, one track for each thread, to this file: for
    /// chrome://tracing or Perfetto.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write a line about collections, memory and goroutines on standard error each second.
    #[arg(long)]
    progress: bool,
    /// OS threads that run goroutines.
    #[arg(long, value_name = "N", default_value_t = default_threads(), value_parser = threads)]
    threads: usize,
    /// Each goroutine is a thread, and runs on the thread's own stack, which does not move. Managed
    /// code calls the runtime's functions there.
    #[arg(long, conflicts_with = "threads")]
    native_stacks: bool,
    /// OS threads that mark objects [default: a quarter of the cores, at least one].
    #[arg(long, value_name = "N", value_parser = threads)]
    mark_workers: Option<usize>,
    /// How much the heap may grow before the next collection, in percent of what was live;
    /// negative: no collections.
    #[arg(long, value_name = "N", default_value_t = 100, allow_negative_numbers = true)]
    gc_percent: i64,
    /// How much memory objects and stacks should use together: near it there are more collections.
    #[arg(long, value_name = "BYTES")]
    memory_limit: Option<usize>,
    /// The most memory for objects: a program that needs more ends with an error.
    #[arg(long, value_name = "BYTES")]
    heap_limit: Option<usize>,
    /// The largest stack of a goroutine.
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000_000)]
    max_stack: usize,
    /// Debugging modes, separated by commas.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    stress: Vec<Stress>,
    /// Which references a store reports: the new one, or also the overwritten one (hybrid).
    #[arg(long, value_enum, default_value_t = WriteBarrier::Insertion)]
    write_barrier: WriteBarrier,
    /// Minor collections, one for so many bytes allocated, until the heap has grown as much as
    /// --gc-percent says. Collections that the program asks for collect everything.
    #[arg(
        long,
        value_name = "BYTES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "4194304"
    )]
    generational: Option<usize>,
    /// For comparisons: minor collections scan stacks whole.
    #[arg(long, requires = "generational")]
    whole_scans: bool,
    /// What return barriers are for. incremental: a stack is scanned a little at a time.
    /// rescan-limit: a stack is scanned whole, and they limit the rescan. off: there are none. The
    /// default is incremental, but off where the hardware protects return addresses.
    #[arg(long, value_enum)]
    barriers: Option<Barriers>,
    /// For tests of what is done where the hardware protects return addresses: with a shadow stack.
    #[arg(long, hide = true)]
    assume_shadow_stack: bool,
    /// For tests of verification: stores are not reported to the collector.
    #[arg(long, hide = true)]
    break_write_barrier: bool,
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

impl Runs {
    /// As options, for the program in `file`.
    pub fn options(self, file: PathBuf) -> Options {
        let a = self;
        Options {
            file,
            report: a.report,
            stats: a.stats,
            profile: a.profile,
            picture: a.picture,
            c_library: a.c_library,
            trace: a.trace,
            progress: a.progress,
            threads: a.threads,
            native_stacks: a.native_stacks,
            mark_workers: a.mark_workers,
            gc_percent: a.gc_percent,
            memory_limit: a.memory_limit,
            heap_limit: a.heap_limit,
            max_stack: a.max_stack,
            stress: a.stress,
            write_barrier: match a.write_barrier {
                WriteBarrier::Insertion => BarrierKind::Insertion,
                WriteBarrier::Hybrid => BarrierKind::Hybrid,
            },
            generational: a
                .generational
                .map(|nursery| Generational { nursery, short_scans: !a.whole_scans }),
            barriers: match a.barriers {
                Some(Barriers::Incremental) | None => BarrierMode::Incremental,
                Some(Barriers::RescanLimit) => BarrierMode::RescanLimit,
                Some(Barriers::Off) => BarrierMode::Off,
            },
            protection: match a.barriers {
                Some(_) => Detection::Ignore,
                None if a.assume_shadow_stack => Detection::Assume(ReturnProtection::ShadowStack),
                None => Detection::Ask,
            },
            break_write_barrier: a.break_write_barrier,
        }
    }
}

/// A program that minigo has built.
#[derive(Parser)]
struct Built {
    #[command(flatten)]
    runs: Runs,
}

/// The options of a program that was built, of its command line.
pub(crate) fn of_built() -> Options {
    // Without arguments the parser is not begun at all, which would take memory.
    if std::env::args_os().len() <= 1 {
        return Options { threads: default_threads(), ..Options::default() };
    }
    Built::parse().runs.options(PathBuf::new())
}
