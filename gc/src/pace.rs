//! When to collect: by how much the heap has grown since the last cycle.

/// The smallest goal, at 100 percent; it is scaled with the percentage, as Go's is.
const MINIMUM: usize = 4 << 20;

/// The pace of collections. The *goal* is the size that the heap should not exceed: what was live after the last cycle, and a
/// percentage on top. The cycle has to begin earlier, since goroutines allocate while it runs: by as much as they did in the
/// last one.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    percent: Option<u32>,
    live: usize,
    /// What was allocated during the last cycles, smoothed.
    during: usize,
}

impl Pace {
    /// `None`: no collection but on request.
    pub(crate) fn new(percent: Option<u32>) -> Pace {
        Pace { percent, live: 0, during: 0 }
    }

    /// Learns from a cycle: what is live after it and what was allocated while it ran.
    pub(crate) fn cycle(&mut self, live: usize, during: usize) {
        self.live = live;
        // Rises at once, falls slowly.
        self.during = during.max(self.during - self.during / 4);
    }

    /// Corrects what is live.
    pub(crate) fn set_live(&mut self, live: usize) {
        self.live = live;
    }

    /// The size that the heap should not exceed.
    pub(crate) fn goal(&self) -> usize {
        let Some(percent) = self.percent else { return usize::MAX };
        let scale = |bytes: usize| (bytes as u128 * u128::from(percent) / 100).min(usize::MAX as u128 / 2) as usize;
        self.live.saturating_add(scale(self.live)).max(scale(MINIMUM))
    }

    /// The bytes that may be allocated from the end of a cycle until the next one begins.
    pub(crate) fn trigger(&self) -> usize {
        let goal = self.goal();
        if goal == usize::MAX {
            return usize::MAX;
        }
        // The heap had `live` bytes then. Never before a third of the room is used up, so that fast allocation does not
        // make cycles follow each other without a break.
        let room = goal.saturating_sub(self.live);
        room.saturating_sub(self.during).max(room / 3).max(1)
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn small_heaps_grow_to_the_minimum_first() {
        assert_eq!(Pace::new(Some(100)).trigger(), 4 * MIB);
        assert_eq!(Pace::new(Some(50)).trigger(), 2 * MIB);
        assert_eq!(Pace::new(None).trigger(), usize::MAX);
        assert_eq!(Pace::new(Some(0)).trigger(), 1);
    }

    #[test]
    fn a_heap_doubles_at_a_hundred_percent() {
        let mut pace = Pace::new(Some(100));
        pace.cycle(100 * MIB, 0);
        assert_eq!((pace.goal(), pace.trigger()), (200 * MIB, 100 * MIB));
        pace.set_live(50 * MIB);
        assert_eq!((pace.goal(), pace.trigger()), (100 * MIB, 50 * MIB));
    }

    #[test]
    fn cycles_begin_early_enough_for_what_is_allocated_meanwhile() {
        let mut pace = Pace::new(Some(100));
        pace.cycle(90 * MIB, 20 * MIB);
        assert_eq!(pace.trigger(), 70 * MIB);
        pace.cycle(90 * MIB, 0);
        assert_eq!(pace.trigger(), 75 * MIB);
        pace.cycle(90 * MIB, 1000 * MIB);
        assert_eq!(pace.trigger(), 30 * MIB);
    }

    #[test]
    fn huge_percentages_do_not_overflow() {
        let mut pace = Pace::new(Some(u32::MAX));
        pace.cycle(usize::MAX / 4, 0);
        assert!(pace.trigger() > usize::MAX / 4);
    }
}
