//! Counters of this crate, and a histogram of durations. The accesses are Relaxed: they order
//! nothing. Those of barriers that have gone are an exception: see `Counters::settle`.

use super::observe::Observed;
use crate::os;
use crate::protocol::{REFUSALS, Refusal, Settled};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Instant;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Running totals.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// Barriers not placed, by [`Refusal`].
            pub refused: [AtomicU64; REFUSALS.len()],
        }
    };
}

counters! {
    /// Barriers placed.
    placed,
    /// Barriers returned through.
    hit,
    /// Barriers whose frames were left without a return through them.
    leapfrogged,
    /// Barriers removed from slots that the goroutine may still return through: by a
    /// whole scan, which places new ones, because they lay too close together, or before
    /// a write to their frames.
    removed,
    /// Barriers that moves of stacks have carried along, once for each move.
    moved,
    /// Goroutines started.
    started,
    /// Growths of a stack, by moving or in place.
    grown,
    /// Shrinks of a stack.
    shrunk,
    /// Bytes copied by moves.
    moved_bytes,
    /// The most bytes that one growth copied.
    largest_move_bytes,
    /// The deepest stack seen, in bytes in use.
    deepest_bytes,
    /// Frames visited when their scan began: their goroutine was held, or at a poll.
    scanned_stopped,
    /// Frames visited by workers, while their goroutine ran or could have.
    scanned_running,
    /// Frames visited by their goroutine on its way out of younger ones.
    scanned_returning,
    /// Scans finished at once because no stub was left for a frontier.
    finished_whole,
    /// Frames visited again in mark termination.
    rescanned,
    /// Frames that mark termination did not need to visit again.
    skipped,
    /// Frames that short scans did not need to visit, because they lie beyond a barrier of an
    /// earlier cycle or their goroutine has not run.
    kept,
}

/// Adds to a figure. Often there is nothing to add, and a locked instruction takes as long as many
/// others.
#[inline]
pub(crate) fn count(figure: &AtomicU64, more: u64) {
    if more != 0 {
        figure.fetch_add(more, Relaxed);
    }
}

/// Raises a maximum. Mostly there is nothing to raise, which needs no locked instruction.
#[inline]
pub(crate) fn raise(maximum: &AtomicU64, to: u64) {
    if maximum.load(Relaxed) < to {
        maximum.fetch_max(to, Relaxed);
    }
}

/// Adds barriers that have gone to one of the counters of [`Counters::settle`].
#[inline]
pub(crate) fn count_gone(figure: &AtomicU64, more: u64) {
    if more != 0 {
        // Release: the thread that placed the barrier counted it before it let go of the
        // `scan_lock`, which this thread has had since.
        figure.fetch_add(more, Release);
    }
}

impl Counters {
    /// Counts barriers that have gone. A reader that loads these counters first, Acquire, finds all
    /// of them among those placed.
    #[inline]
    pub(crate) fn settle(&self, settled: Settled) {
        let Settled { hit, leapfrogged, removed } = settled;
        count_gone(&self.hit, hit.into());
        count_gone(&self.leapfrogged, leapfrogged.into());
        count_gone(&self.removed, removed.into());
    }

    pub(crate) fn refuse(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }
}

/// The counts and measurements of a runtime.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) counters: Counters,
    pub(crate) observed: Observed,
    /// How long goroutines stood still that would have run otherwise.
    pub(crate) holds: Histogram,
    /// How long goroutines' own threads ran for those holds in which they scanned themselves.
    pub(crate) own_scans: Histogram,
    /// What [`Statistics::take_cycle_figures`] takes.
    longest_hold: AtomicU64,
    deepest_frames: AtomicU64,
    stack_bytes: AtomicU64,
}

/// What a cycle has met, or part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CycleFigures {
    /// The longest of [`Runtime::holds`](crate::Runtime::holds), in nanoseconds.
    pub longest_hold_ns: u64,
    /// The most frames of one stack.
    pub deepest_frames: u64,
    /// Bytes in use of all stacks that were scanned, each when its scan began. A scan of a stack
    /// that goes on from the last one counts as one of the whole stack.
    pub stack_bytes: u64,
}

impl Statistics {
    /// Records that a goroutine which would have run has stood still since `begun`.
    pub(crate) fn record_hold(&self, begun: Instant) {
        let nanos = begun.elapsed().as_nanos() as u64;
        self.holds.record(nanos);
        raise(&self.longest_hold, nanos);
    }

    /// Records that the goroutine of this thread has scanned itself since `begun`.
    pub(crate) fn record_own_scan(&self, begun: OwnScan) {
        self.record_hold(begun.at);
        if let (Some(from), Some(to)) = (begun.ran, os::thread_time()) {
            self.own_scans.record(to.saturating_sub(from));
        }
    }

    /// Records that a stack has this many frames.
    pub(crate) fn record_frames(&self, frames: u64) {
        raise(&self.deepest_frames, frames);
    }

    /// Records that a scan begins of a stack with so many bytes in use.
    pub(crate) fn record_scan(&self, bytes: usize) {
        self.stack_bytes.fetch_add(bytes as u64, Relaxed);
        raise(&self.counters.deepest_bytes, bytes as u64);
    }

    /// The figures since the last call.
    pub(crate) fn take_cycle_figures(&self) -> CycleFigures {
        CycleFigures {
            longest_hold_ns: self.longest_hold.swap(0, Relaxed),
            deepest_frames: self.deepest_frames.swap(0, Relaxed),
            stack_bytes: self.stack_bytes.swap(0, Relaxed),
        }
    }
}

/// The beginning of a hold in which the goroutine of this thread scans itself.
pub(crate) struct OwnScan {
    at: Instant,
    ran: Option<u64>,
}

impl OwnScan {
    pub(crate) fn begin() -> OwnScan {
        OwnScan { at: Instant::now(), ran: os::thread_time() }
    }
}

const SUB_BITS: u32 = 5;
const BUCKETS: usize = ((64 - SUB_BITS as usize) << SUB_BITS) + (1 << SUB_BITS);

/// A histogram of nanoseconds with an error below 1/32, filled from any thread.
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    max: AtomicU64,
}

/// The summary of a [`Histogram`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of durations.
    pub count: u64,
    /// The median, in nanoseconds.
    pub p50: u64,
    /// The 99th percentile, in nanoseconds.
    pub p99: u64,
    /// The longest duration, in nanoseconds. It is exact.
    pub max: u64,
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.summary().fmt(f)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            max: AtomicU64::new(0),
        }
    }
}

fn bucket(nanos: u64) -> usize {
    let high = 63 - (nanos | 1 << SUB_BITS).leading_zeros();
    let shift = high - SUB_BITS;
    ((shift as usize) << SUB_BITS) + (nanos >> shift) as usize
}

fn upper_end(bucket: usize) -> u64 {
    let shift = (bucket >> SUB_BITS).saturating_sub(1) as u32;
    let mantissa = (bucket - ((shift as usize) << SUB_BITS)) as u64;
    ((mantissa + 1) << shift) - 1
}

impl Histogram {
    /// Adds one duration, in nanoseconds.
    pub fn record(&self, nanos: u64) {
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.max.fetch_max(nanos, Relaxed);
    }

    /// How many durations there were of each length, as `(nanoseconds, count)`, shortest first. The
    /// length is at most 1/32 too long. Lengths without durations are left out.
    pub fn counts(&self) -> Vec<(u64, u64)> {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).enumerate();
        counts.filter(|(_, count)| *count != 0).map(|(at, count)| (upper_end(at), count)).collect()
    }

    /// Count, median, 99th percentile, maximum.
    pub fn summary(&self) -> Summary {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max = self.max.load(Relaxed);
        let at = |share: f64| {
            let rank = ((count as f64 * share).ceil() as u64).max(1);
            let mut seen = 0;
            let found = counts.iter().position(|&c| {
                seen += c;
                seen >= rank
            });
            found.map_or(0, |b| upper_end(b).min(max))
        };
        Summary { count, p50: at(0.50), p99: at(0.99), max }
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_rounds_to_its_upper_end() {
        for n in (0..5000).chain((0..64).map(|i| (1u64 << i) - 1 + (1 << i) / 3)) {
            let end = upper_end(bucket(n));
            assert!(end >= n && end - n <= n / 32 + 1, "{n} in a bucket that ends at {end}");
        }
    }

    #[test]
    fn durations_are_counted_by_their_length() {
        let h = Histogram::default();
        assert_eq!(h.counts(), []);
        [3, 1000, 1007, 1008, 5_000_000].iter().for_each(|n| h.record(*n));
        assert_eq!(h.counts(), [(3, 1), (1007, 2), (1023, 1), (5_111_807, 1)]);
    }

    #[test]
    fn percentiles_are_within_a_thirtieth() {
        let h = Histogram::default();
        (1..=10_000).for_each(|n| h.record(n * 100));
        let s = h.summary();
        assert_eq!((s.count, s.max), (10_000, 1_000_000));
        assert!(s.p50.abs_diff(500_000) < 17_000 && s.p99.abs_diff(990_000) < 33_000, "{s:?}");
    }
}
