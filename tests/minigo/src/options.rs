//! What the command line asks for.

use clap::ValueEnum;
pub use stackmark::Generational;
pub use stackmark::stack::{BarrierMode, Detection, ReturnProtection};
pub use stackmark::write_barrier::Kind as BarrierKind;
use std::path::PathBuf;

/// A debugging mode, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stress {
    /// A collection at every poll.
    CollectEveryPoll,
    /// A return barrier in every frame that may have one.
    BarrierEveryFrame,
    /// The stack moves at every poll.
    MoveEveryPoll,
    /// Memory that is free is overwritten.
    Poison,
    /// After each mark everything is walked again with the world stopped.
    Verify,
    /// Stacks are scanned by very few frames at a time.
    ScanFewFrames,
}

/// How many threads there are, of the command line.
///
/// # Errors
/// It is no number from 1 to 1024.
pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=1024).contains(&n) => Ok(n),
        _ => Err("a number from 1 to 1024 is needed".into()),
    }
}

/// How a program is compiled and run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub file: PathBuf,
    /// Print a summary of the collections at exit.
    pub report: bool,
    /// Write the statistics as JSON to this file at exit.
    pub stats: Option<PathBuf>,
    /// Sample where the program is, and write a profile to this file at exit.
    pub profile: Option<PathBuf>,
    /// Keep the C code's shared object in this file.
    pub c_library: Option<PathBuf>,
    /// Draw a stack to this file, as SVG.
    pub picture: Option<PathBuf>,
    /// Write a trace in Chrome's format to this file.
    pub trace: Option<PathBuf>,
    /// Write a line on standard error each second.
    pub progress: bool,
    /// OS threads that run goroutines, unless each has its own.
    pub threads: usize,
    /// Each goroutine is a thread, on whose own stack it runs.
    pub native_stacks: bool,
    /// OS threads that mark; `None`: the library chooses.
    pub mark_workers: Option<usize>,
    /// How much the heap may grow before the next collection, in percent of what was live.
    /// Negative: no collection starts by itself.
    pub gc_percent: i64,
    /// How much memory objects and stacks should use together, in bytes: near it there are more
    /// collections.
    pub memory_limit: Option<usize>,
    /// The most memory for objects, in bytes. A program that needs more ends with an error.
    pub heap_limit: Option<usize>,
    /// The largest stack of a goroutine, in bytes.
    pub max_stack: usize,
    /// Debugging modes.
    pub stress: Vec<Stress>,
    /// Which references a store reports to the collector.
    pub write_barrier: BarrierKind,
    /// Minor collections between the others.
    pub generational: Option<Generational>,
    /// What return barriers are for, where no debugging mode says otherwise.
    pub barriers: BarrierMode,
    /// How the protection of return addresses by the hardware is detected.
    pub protection: Detection,
    /// For tests of verification: stores are not reported to the collector.
    pub break_write_barrier: bool,
}

impl Default for Options {
    /// The command's defaults, with one thread.
    fn default() -> Options {
        Options {
            file: PathBuf::new(),
            report: false,
            stats: None,
            profile: None,
            picture: None,
            c_library: None,
            trace: None,
            progress: false,
            threads: 1,
            native_stacks: false,
            mark_workers: None,
            gc_percent: 100,
            memory_limit: None,
            heap_limit: None,
            max_stack: 1_000_000_000,
            stress: Vec::new(),
            write_barrier: BarrierKind::default(),
            generational: None,
            barriers: BarrierMode::Incremental,
            protection: Detection::Ask,
            break_write_barrier: false,
        }
    }
}

impl Options {
    /// Whether a debugging mode is on.
    pub fn has(&self, s: Stress) -> bool {
        self.stress.contains(&s)
    }
}
