//! Assists: while a cycle marks, threads that allocate mark in proportion, so that allocation
//! cannot outrun marking.
//!
//! A cycle begins with some *room*, the bytes until the heap reaches its goal, and an estimate of
//! its *work*, the bytes of objects to be traced. When a share of the room is used up, the same
//! share of the work must have been done, by any thread. A thread that allocates and finds marking
//! behind helps. Where there is nothing to take it waits a little: one long list can be traced by
//! one thread at a time only. It stops when its goroutine is asked to poll, since a handshake waits
//! for it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use stackmark_stack::Caller;
use stackmark_stack::{Activity, Observed};

use crate::heap::Heap;
use crate::mark::MarkState;

/// The most that an assist traces, in bytes of objects: the goroutine does not stand still for
/// long.
const ASSIST_BYTES: u64 = 64 << 10;

/// How long a thread waits that is due to help and finds nothing to trace.
const WAIT: Duration = Duration::from_micros(50);

/// How much assistance is due in the present cycle. All relaxed: estimates, which order nothing.
#[derive(Debug, Default)]
pub(crate) struct AssistPacer {
    /// The work that is expected, in bytes.
    expected_work: AtomicU64,
    /// The most that the work can be, in bytes.
    most_work: AtomicU64,
    /// Bytes that may be allocated while the cycle marks; 0: no assists.
    room: AtomicU64,
    allocated: AtomicU64,
    /// Bytes that mutators have traced since the last cycle began.
    assisted: AtomicU64,
}

impl AssistPacer {
    /// Begins a cycle in a heap of `size` bytes. It will probably mark `expected` of them. The heap
    /// should not grow beyond `goal` bytes; `usize::MAX` means that no assists are due.
    pub(crate) fn begin(&self, size: usize, expected: usize, goal: usize) {
        let expected = expected.min(size);
        self.expected_work.store(expected as u64, Relaxed);
        self.most_work.store(size as u64, Relaxed);
        self.allocated.store(0, Relaxed);
        self.assisted.store(0, Relaxed);
        // A heap that is at its goal may still grow a little. Otherwise allocation would stop.
        let room = goal.saturating_sub(size).max(expected / 8).max(256 << 10);
        self.room.store(if goal == usize::MAX { 0 } else { room as u64 }, Relaxed);
    }

    /// Marking is complete: no assists are due until the next cycle begins.
    pub(crate) fn end(&self) {
        self.room.store(0, Relaxed);
    }

    /// Bytes that mutators have traced in this cycle; between cycles, in the last one.
    pub(crate) fn assisted(&self) -> u64 {
        self.assisted.load(Relaxed)
    }

    /// Notes that `bytes` more are allocated. Returns by how many bytes marking, which has traced
    /// `traced` bytes, is behind.
    fn debt(&self, bytes: usize, traced: u64) -> u64 {
        let room = self.room.load(Relaxed);
        if room == 0 {
            return 0;
        }
        let allocated = self.allocated.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        let expected = self.expected_work.load(Relaxed);
        // When more is live than was expected, everything may be.
        let work = if traced < expected { expected } else { self.most_work.load(Relaxed) };
        let due = u128::from(work) * u128::from(allocated) / u128::from(room);
        (due.min(u128::from(self.most_work.load(Relaxed))) as u64).saturating_sub(traced)
    }

    /// Has the calling thread do its part of the marking. It has been handed `bytes` bytes.
    pub(crate) fn assist<H: Heap>(
        &self,
        marking: &MarkState<H>,
        observed: &Observed,
        bytes: usize,
    ) {
        let debt = self.debt(bytes, marking.traced());
        if debt == 0 {
            return;
        }
        let _span = observed.span(Activity::Assist, 0);
        let done = marking.help(debt.min(ASSIST_BYTES), is_awaited);
        self.assisted.fetch_add(done, Relaxed);
        if done == 0 {
            let begun = Instant::now();
            while begun.elapsed() < WAIT && !is_awaited() {
                std::thread::yield_now();
            }
        }
    }
}

/// Whether this thread's goroutine is asked to poll.
fn is_awaited() -> bool {
    // SAFETY: used within this function alone.
    unsafe { Caller::try_current() }.is_some_and(|caller| caller.goroutine().is_awaited())
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn marking_is_due_in_proportion_to_allocation() {
        let pacer = AssistPacer::default();
        assert_eq!(pacer.debt(1 << 30, 0), 0);
        pacer.begin(10 << 20, 8 << 20, 14 << 20);
        // A quarter of the room, so a quarter of the work; an eighth is done.
        assert_eq!(pacer.debt(1 << 20, 1 << 20), 1 << 20);
        // Half of it, and all that was expected is done: the work may be all ten.
        assert_eq!(pacer.debt(1 << 20, 8 << 20), 0);
        assert_eq!(pacer.debt(2 << 20, 8 << 20), 2 << 20);
        // Far beyond the goal: the debt is never more than there is.
        assert_eq!(pacer.debt(1 << 30, 9 << 20), 1 << 20);
        pacer.end();
        assert_eq!(pacer.debt(1 << 30, 0), 0);
        pacer.begin(10 << 20, 8 << 20, usize::MAX);
        assert_eq!(pacer.debt(1 << 30, 0), 0);
    }

    #[test]
    fn a_heap_beyond_its_goal_may_still_grow_a_little() {
        let pacer = AssistPacer::default();
        pacer.begin(80 << 20, 80 << 20, 10 << 20);
        assert_eq!(pacer.debt(5 << 20, 0), 40 << 20);
    }
}
