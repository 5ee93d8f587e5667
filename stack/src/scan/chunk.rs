//! How much of a stack is visited at once, and how far apart rescan barriers lie.

use crate::protocol::{Budget, Spacing, YoungBound};
use crate::runtime::{BarrierMode, Config};

/// The distance in bytes of the first rescan barrier from the stack pointer that a scan began at.
/// The others lie at its doublings.
const FIRST_BARRIER: usize = 1024;
/// What a goroutine visits itself at a time: it takes some microseconds.
const OWN_CHUNK: Budget = Budget { frames: 96, bytes: 16 << 10 };
/// What a worker visits at a time. The goroutine may wait for the `scan_lock` that long.
const WORKER_CHUNK: Budget = Budget { frames: 384, bytes: 64 << 10 };
/// What either visits at a time with `Config::scan_few_frames`, so that tests see many steps.
const FEW_FRAMES: Budget = Budget { frames: 6, bytes: 1 << 10 };

/// The bound of young parts. So many bytes are visited in some microseconds: a goroutine does it at
/// a poll, and the stopped world for each of the few goroutines that have run since.
pub(crate) const YOUNG: YoungBound = YoungBound { most: 32 << 10, step: 4 << 10 };
/// The same with `Config::scan_few_frames`.
const LITTLE_YOUNG: YoungBound = YoungBound { most: 2 << 10, step: 256 };

impl BarrierMode {
    pub(crate) fn spacing(self) -> Spacing {
        match self {
            BarrierMode::Incremental | BarrierMode::RescanLimit => Spacing::Doubling(FIRST_BARRIER),
            BarrierMode::EveryFrame => Spacing::EveryFrame,
            BarrierMode::Off => Spacing::Never,
        }
    }
}

impl Config {
    /// How large a rescan in the stopped world may be.
    pub(crate) fn young_bound(&self) -> YoungBound {
        if self.scan_few_frames { LITTLE_YOUNG } else { YOUNG }
    }

    /// How much the goroutine, or a worker, visits at a time.
    #[inline]
    pub(crate) fn chunk(&self, by_worker: bool) -> Budget {
        match self.barriers {
            BarrierMode::Off => Budget::WHOLE,
            _ if self.scan_few_frames => FEW_FRAMES,
            BarrierMode::Incremental if by_worker => WORKER_CHUNK,
            BarrierMode::Incremental => OWN_CHUNK,
            BarrierMode::EveryFrame | BarrierMode::RescanLimit => Budget::WHOLE,
        }
    }
}
