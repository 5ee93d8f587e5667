//! How a collector behaves.

use std::ops::RangeInclusive;

use super::error::StartError;
use crate::generation::Generational;
use crate::write_barrier::Kind;

/// How a collector behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads that mark, the one that runs cycles among them: at most [`Config::MOST_WORKERS`]; 0
    /// counts as 1. The collector uses so many processors at a time.
    pub workers: usize,
    /// By how many percent of what the last cycle marked, and of the stacks that it scanned, the
    /// heap may grow before the next one. `None`: growth makes no cycles.
    pub percent: Option<u32>,
    /// How much memory objects and stacks should use together, in bytes: at least 1. Near it cycles
    /// come more often than `percent` asks for. It is exceeded where more is live. A heap's own
    /// limit, beyond which it refuses to allocate, is another matter.
    pub memory_limit: Option<usize>,
    /// Which references a store shades. With [`Kind::Hybrid`] no stack is visited twice.
    pub write_barrier: Kind,
    /// Minor cycles between the major ones. A minor cycle takes the time that young objects need,
    /// whatever the size of the heap.
    pub generational: Option<Generational>,
    /// For debugging: after each mark, with the world stopped, walk everything again and abort if a
    /// reachable object is unmarked.
    pub verify: bool,
    /// For debugging: a goroutine waits for a collection at each poll. With generations, seven of
    /// eight are minor. Polls are seldom called without
    /// [`poll_always`](stackmark_stack::Config::poll_always).
    pub collect_every_poll: bool,
}

impl Config {
    /// The most [`Config::workers`].
    pub const MOST_WORKERS: usize = 256;

    /// # Errors
    /// [`StartError::Option`].
    pub(super) fn check(&self) -> Result<(), StartError> {
        let check = |option, value, range: RangeInclusive<usize>| {
            let (least, most) = (*range.start(), *range.end());
            let error = StartError::Option { option, value, least, most };
            range.contains(&value).then_some(()).ok_or(error)
        };
        check("workers", self.workers, 0..=Config::MOST_WORKERS)?;
        check("memory_limit", self.memory_limit.unwrap_or(usize::MAX), 1..=usize::MAX)
    }
}

impl Default for Config {
    /// As Go: a quarter of the cores, at least one; 100 percent.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Config {
            workers: (cores / 4).max(1),
            percent: Some(100),
            memory_limit: None,
            write_barrier: Kind::default(),
            generational: None,
            verify: false,
            collect_every_poll: false,
        }
    }
}
