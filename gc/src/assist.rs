//! Assists: while a cycle marks, threads that allocate mark in proportion, so that allocation
//! cannot outrun marking.
//!
//! A cycle begins with some *room* until the heap has reached its goal, and about so much *work*,
//! bytes of objects to be traced. When a share of the room is used up, the same share of the work
//! must have been done, by whomever. A thread that allocates and finds marking behind helps; where
//! there is nothing to take, as in one long list, which one thread at a time can trace, it waits a
//! little. It stops when its goroutine is asked to poll: others would wait for it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use stackmark_stack::Caller;
use stackmark_stack::observe::{Activity, Observed};

use crate::heap::Heap;
use crate::mark::Shared;

/// The most that a thread traces at a time, in bytes of objects: it does not stand still for long.
const PORTION: u64 = 64 << 10;

/// How long a thread waits that could not help.
const WAIT: Duration = Duration::from_micros(50);

/// The schedule of one cycle. All relaxed: estimates, which order nothing.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// The work that is expected, and the most that it can be, in bytes.
    expected: AtomicU64,
    most: AtomicU64,
    /// Bytes that may be allocated meanwhile; 0: no assists.
    room: AtomicU64,
    allocated: AtomicU64,
    /// Bytes that mutators have traced since the last cycle began.
    assisted: AtomicU64,
}

impl Schedule {
    /// A cycle begins in a heap of `size` bytes, `expected` of which will probably be marked; it
    /// shall not grow beyond `goal`.
    pub(crate) fn begin(&self, size: usize, expected: usize, goal: usize) {
        let expected = expected.min(size);
        self.expected.store(expected as u64, Relaxed);
        self.most.store(size as u64, Relaxed);
        self.allocated.store(0, Relaxed);
        self.assisted.store(0, Relaxed);
        // A heap that is at its goal already may still grow a little: the alternative is to stand
        // still.
        let room = goal.saturating_sub(size).max(expected / 8).max(256 << 10);
        self.room.store(if goal == usize::MAX { 0 } else { room as u64 }, Relaxed);
    }

    /// Bytes that mutators have traced in this cycle, or in the last one.
    pub(crate) fn assisted(&self) -> u64 {
        self.assisted.load(Relaxed)
    }

    /// How far marking, which has traced `traced` bytes, is behind once `bytes` more are allocated.
    fn debt(&self, bytes: usize, traced: u64) -> u64 {
        let room = self.room.load(Relaxed);
        if room == 0 {
            return 0;
        }
        let allocated = self.allocated.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        let expected = self.expected.load(Relaxed);
        // More lives than was thought: then it may be everything.
        let work = if traced < expected { expected } else { self.most.load(Relaxed) };
        let due = u128::from(work) * u128::from(allocated) / u128::from(room);
        (due.min(u128::from(self.most.load(Relaxed))) as u64).saturating_sub(traced)
    }

    /// Called by a thread that has been handed `bytes` while a cycle marks: it does its part.
    pub(crate) fn assist<H: Heap>(&self, marking: &Shared<H>, observed: &Observed, bytes: usize) {
        let debt = self.debt(bytes, marking.traced());
        if debt == 0 {
            return;
        }
        let _span = observed.span(Activity::Assist, 0);
        let done = marking.help(debt.min(PORTION), is_awaited);
        self.assisted.fetch_add(done, Relaxed);
        if done == 0 {
            let begun = Instant::now();
            while begun.elapsed() < WAIT && !is_awaited() {
                std::thread::yield_now();
            }
        }
    }
}

/// Whether somebody waits for this thread's goroutine to poll.
fn is_awaited() -> bool {
    // SAFETY: used within this function alone.
    unsafe { Caller::try_current() }.is_some_and(|caller| caller.goroutine().is_awaited())
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn marking_is_due_in_proportion_to_allocation() {
        let schedule = Schedule::default();
        assert_eq!(schedule.debt(1 << 30, 0), 0);
        schedule.begin(10 << 20, 8 << 20, 14 << 20);
        // A quarter of the room, so a quarter of the work; an eighth is done.
        assert_eq!(schedule.debt(1 << 20, 1 << 20), 1 << 20);
        // Half of it, and all that was expected is done: it may be all ten.
        assert_eq!(schedule.debt(1 << 20, 8 << 20), 0);
        assert_eq!(schedule.debt(2 << 20, 8 << 20), 2 << 20);
        // Far beyond the goal: never more than there is.
        assert_eq!(schedule.debt(1 << 30, 9 << 20), 1 << 20);
        schedule.begin(10 << 20, 8 << 20, usize::MAX);
        assert_eq!(schedule.debt(1 << 30, 0), 0);
    }

    #[test]
    fn a_heap_beyond_its_goal_may_still_grow_a_little() {
        let schedule = Schedule::default();
        schedule.begin(80 << 20, 80 << 20, 10 << 20);
        assert_eq!(schedule.debt(5 << 20, 0), 40 << 20);
    }
}
