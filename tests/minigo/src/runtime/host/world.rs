//! What there is once in a process: the heap, the runtime, the collector, the scheduler.

use super::heap::Heap;
use super::threads::Threads;
use crate::options::Options;
use crate::os::exit_now;
use crate::runtime::output;
use stackmark::Collector;
use stackmark::mark_sweep::MarkSweep;
use stackmark::stack::scheduler::Scheduler;
use stackmark::stack::{Runtime, ending};
use stackmark::trace_file::TraceFile;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

/// What objects are allocated from, and what collects them.
pub(super) enum Memory {
    Own { heap: Arc<MarkSweep>, collector: Collector<MarkSweep> },
    Other(Box<dyn Heap>),
}

pub(super) struct World {
    pub(super) memory: Memory,
    pub(super) runtime: Arc<Runtime>,
    pub(super) scheduler: Arc<Scheduler>,
    /// Runs goroutines instead of the scheduler, if each has a thread.
    pub(super) threads: Option<Threads>,
    pub(super) entry: AtomicUsize,
    pub(super) raise: AtomicUsize,
    pub(super) trace: Option<Arc<TraceFile>>,
    pub(super) options: Options,
}

impl World {
    /// The library's collector, if it is the one.
    pub(super) fn collector(&self) -> Option<&Collector<MarkSweep>> {
        match &self.memory {
            Memory::Own { collector, .. } => Some(collector),
            Memory::Other(_) => None,
        }
    }
}

pub(super) static WORLD: OnceLock<World> = OnceLock::new();

pub(super) fn world() -> &'static World {
    WORLD.get().expect("the runtime is set up before anything is compiled")
}

/// Ends the process after an error of the library.
pub(super) fn fatal(error: &dyn std::error::Error) -> ! {
    ending::claim();
    output::error(format!("minigo: {error}\n").as_bytes());
    exit_now(2)
}
