//! How long the goroutines that wait for a thread would wait.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A thread is woken for goroutines that would otherwise wait for so long. To wake it takes a fifth
/// of that, and it runs after two fifths.
const WORTH_A_WAKE: Duration = Duration::from_micros(50);
/// So much longer, in nanoseconds, a goroutine's turn takes on a thread that it has not run on
/// before: some ten cache lines of its record, its stack and what it works on come from another
/// processor. Turns of 240 ns took 1,370 where two threads took them from each other.
const MOVE: u64 = 1_000;
/// The clock is read every this many turns: it takes as long as a short turn.
const TURNS: u32 = 64;

/// What a thread knows about the turns of its goroutines.
#[derive(Debug)]
pub(super) struct Turns {
    /// How long one takes, in nanoseconds. At first, as long as is worth a wake.
    each: Cell<u64>,
    /// When the present measurement began. `None`: the thread has slept since.
    since: Cell<Option<Instant>>,
    /// How many turns begin until the clock is read. At least 1.
    left: Cell<u32>,
}

impl Turns {
    pub(super) fn new() -> Turns {
        Turns {
            each: Cell::new(WORTH_A_WAKE.as_nanos() as u64 + MOVE),
            since: Cell::new(None),
            left: Cell::new(1),
        }
    }

    /// A goroutine begins to run.
    #[inline]
    pub(super) fn begin(&self) {
        self.begin_by(Instant::now);
    }

    #[inline]
    fn begin_by(&self, clock: impl FnOnce() -> Instant) {
        let left = self.left.get() - 1;
        self.left.set(left);
        if left == 0 {
            let now = clock();
            self.measure(now, TURNS);
            self.since.set(Some(now));
            self.left.set(TURNS);
        }
    }

    /// The thread finds no goroutine, and may sleep: that is no part of a turn.
    pub(super) fn interrupt(&self) {
        self.interrupt_by(Instant::now);
    }

    fn interrupt_by(&self, clock: impl FnOnce() -> Instant) {
        if self.since.get().is_some() {
            self.measure(clock(), TURNS - self.left.get() + 1);
            self.since.set(None);
            self.left.set(1);
        }
    }

    /// So many turns have ended since the measurement began, if it did.
    #[cold]
    fn measure(&self, now: Instant, turns: u32) {
        if let Some(since) = self.since.get() {
            let nanoseconds = now.duration_since(since).as_nanos() / u128::from(turns);
            let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
            // At most twice as long as before: the thread may have lost its processor meanwhile.
            self.each.set(nanoseconds.min(self.each.get().saturating_mul(2)).max(1));
        }
    }

    /// Whether another thread is to take some of so many goroutines, and is to be woken for that.
    #[inline]
    pub(super) fn is_worth_a_wake(&self, goroutines: usize) -> bool {
        let gain = self.each.get().saturating_sub(MOVE).max(1);
        gain.saturating_mul(goroutines as u64) >= WORTH_A_WAKE.as_nanos() as u64
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    /// A thread with a clock of its own.
    struct Thread {
        turns: Turns,
        now: Instant,
    }

    impl Thread {
        fn new() -> Thread {
            Thread { turns: Turns::new(), now: Instant::now() }
        }

        /// `count` turns that take so long each.
        fn run(&mut self, count: u32, each: Duration) {
            for _ in 0..count {
                self.turns.begin_by(|| self.now);
                self.now += each;
            }
        }

        fn sleep(&mut self) {
            self.turns.interrupt_by(|| self.now);
            self.now += Duration::from_secs(1);
        }

        /// The fewest goroutines that are worth a wake.
        fn fewest(&self) -> usize {
            (0..1_000_000).find(|count| self.turns.is_worth_a_wake(*count)).expect("a million are")
        }
    }

    #[test]
    fn each_goroutine_is_worth_a_wake_until_short_turns_are_measured() {
        let mut thread = Thread::new();
        assert_eq!(thread.fewest(), 1);
        thread.run(TURNS, Duration::from_micros(2));
        assert_eq!(thread.fewest(), 1);
        thread.run(1, Duration::from_micros(2));
        assert_eq!(thread.fewest(), 50);
    }

    #[test]
    fn time_that_the_thread_has_slept_is_not_measured() {
        let mut thread = Thread::new();
        for turns in 1..=3 * TURNS {
            thread.run(turns, Duration::from_micros(2));
            thread.sleep();
            assert_eq!(thread.fewest(), 50, "{turns} turns");
            // It looks again, and finds nothing.
            thread.sleep();
        }
    }

    #[test]
    fn a_measurement_at_most_doubles_what_was_known() {
        let mut thread = Thread::new();
        thread.run(TURNS + 1, Duration::from_micros(2));
        thread.now += Duration::from_secs(1);
        thread.run(TURNS, Duration::from_micros(2));
        assert_eq!(thread.fewest(), 17);
        thread.run(TURNS, Duration::from_micros(2));
        assert_eq!(thread.fewest(), 50);
        thread.run(8 * TURNS, Duration::from_millis(1));
        assert_eq!(thread.fewest(), 1);
    }

    #[test]
    fn turns_shorter_than_a_move_do_not_end_all_wakes() {
        for each in [Duration::ZERO, Duration::from_nanos(MOVE)] {
            let mut thread = Thread::new();
            thread.run(3 * TURNS, each);
            assert_eq!(thread.fewest(), 50_000);
        }
        let mut thread = Thread::new();
        thread.run(3 * TURNS, Duration::ZERO);
        thread.run(30 * TURNS, Duration::from_millis(1));
        assert_eq!(thread.fewest(), 1);
    }
}
