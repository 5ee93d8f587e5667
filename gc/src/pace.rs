//! When to collect: by how much the heap may grow, and how long marking will take.

/// The smallest goal, at 100 percent; it is scaled with the percentage, as Go's is.
const MINIMUM: usize = 4 << 20;

/// How far above what is live a memory limit may press the goal down, at least: cycles that follow
/// each other without a break would free nothing. A sixteenth of what is live, and this.
const BREATH: usize = 1 << 20;

/// The pace of collections. The *goal* is the size that the heap should not exceed: what was live
/// after the last cycle, and a percentage on top of what that cycle marked; less where a limit of
/// memory asks for it. (What was allocated while it ran counts as live, but most of it is garbage
/// by then: a percentage of that, too, and heaps of programs that allocate fast would be several
/// times as large as what they need.) The cycle has to begin earlier, since goroutines allocate
/// while it runs: by as much as they will at the rate of the last cycles in the time that marking
/// will take at its measured speed.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    percent: Option<u32>,
    /// The most memory to be used for everything, in bytes.
    limit: Option<usize>,
    /// Memory that is used beside the objects, in bytes.
    beside: usize,
    live: usize,
    /// What the last cycle marked.
    marked: usize,
    /// Nanoseconds in which a byte is marked, and bytes that are allocated in one meanwhile;
    /// smoothed.
    slowness: f64,
    rate: f64,
}

/// What is learned from a cycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Bytes that were marked.
    pub(crate) marked: usize,
    /// Bytes that were allocated while it ran: they are live too.
    pub(crate) allocated: usize,
    /// How long it took.
    pub(crate) mark_ns: u64,
}

impl Pace {
    /// `None`: no collection because of growth, and no limit.
    pub(crate) fn new(percent: Option<u32>, limit: Option<usize>) -> Pace {
        Pace { percent, limit, beside: 0, live: 0, marked: 0, slowness: 0.0, rate: 0.0 }
    }

    /// Learns from a cycle.
    pub(crate) fn cycle(&mut self, measured: &Measured) {
        self.live = measured.marked + measured.allocated;
        self.marked = measured.marked;
        let time = measured.mark_ns.max(1) as f64;
        let slowness = time / measured.marked.max(1) as f64;
        self.slowness =
            if self.slowness == 0.0 { slowness } else { (3.0 * self.slowness + slowness) / 4.0 };
        // Rises at once, falls slowly.
        self.rate = (measured.allocated as f64 / time).max(self.rate * 0.75);
    }

    /// Corrects what is live, and tells how many bytes of memory are used beside that.
    pub(crate) fn set_live(&mut self, live: usize, beside: usize) {
        self.live = live;
        self.beside = beside;
    }

    /// What the next cycle will probably mark, in bytes.
    pub(crate) fn expected(&self) -> usize {
        self.marked
    }

    /// The size that the heap should not exceed.
    pub(crate) fn goal(&self) -> usize {
        let scale = |bytes: usize, percent: u32| {
            (bytes as u128 * u128::from(percent) / 100).min(usize::MAX as u128 / 2) as usize
        };
        let wanted = self.percent.map_or(usize::MAX, |percent| {
            self.live
                .saturating_add(scale(self.marked.min(self.live), percent))
                .max(scale(MINIMUM, percent))
        });
        let allowed = self.limit.map_or(usize::MAX, |limit| {
            limit.saturating_sub(self.beside).max(self.live + self.live / 16 + BREATH)
        });
        wanted.min(allowed)
    }

    /// The bytes that may be allocated from the end of a cycle until the next one begins.
    pub(crate) fn trigger(&self) -> usize {
        let goal = self.goal();
        if goal == usize::MAX {
            return usize::MAX;
        }
        // The heap had `live` bytes then. Never before a third of the room is used up, so that fast
        // allocation does not make cycles follow each other without a break; threads that allocate
        // help to mark instead.
        let room = goal.saturating_sub(self.live);
        let meanwhile = (self.rate * self.slowness * self.marked as f64) as usize;
        room.saturating_sub(meanwhile).max(room / 3).max(1)
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn measured(marked: usize, allocated: usize) -> Measured {
        Measured { marked: marked * MIB, allocated: allocated * MIB, mark_ns: 1_000_000 }
    }

    #[test]
    fn small_heaps_grow_to_the_minimum_first() {
        assert_eq!(Pace::new(Some(100), None).trigger(), 4 * MIB);
        assert_eq!(Pace::new(Some(50), None).trigger(), 2 * MIB);
        assert_eq!(Pace::new(None, None).trigger(), usize::MAX);
        assert_eq!(Pace::new(Some(0), None).trigger(), 1);
    }

    #[test]
    fn a_heap_doubles_at_a_hundred_percent() {
        let mut pace = Pace::new(Some(100), None);
        pace.cycle(&measured(100, 0));
        assert_eq!((pace.goal(), pace.trigger()), (200 * MIB, 100 * MIB));
        pace.set_live(50 * MIB, 0);
        assert_eq!((pace.goal(), pace.trigger()), (100 * MIB, 50 * MIB));
    }

    /// Rounded, since speeds are fractions.
    fn trigger_mib(pace: &Pace) -> usize {
        (pace.trigger() + MIB / 2) / MIB
    }

    #[test]
    fn cycles_begin_early_enough_for_what_is_allocated_meanwhile() {
        let mut pace = Pace::new(Some(100), None);
        pace.cycle(&measured(70, 20));
        assert_eq!(trigger_mib(&pace), 50);
        // The same rate of allocation and speed of marking, twice as much to mark.
        pace.cycle(&Measured { marked: 140 * MIB, allocated: 40 * MIB, mark_ns: 2_000_000 });
        assert_eq!(trigger_mib(&pace), 100);
        // The rate falls slowly.
        pace.cycle(&Measured { marked: 140 * MIB, allocated: 0, mark_ns: 2_000_000 });
        assert_eq!(trigger_mib(&pace), 110);
        // It rises at once, and cycles do not follow each other without a break.
        pace.cycle(&Measured { marked: 90 * MIB, allocated: 1000 * MIB, mark_ns: 2_000_000 });
        assert_eq!(trigger_mib(&pace), 30);
    }

    #[test]
    fn what_was_allocated_meanwhile_is_allowed_for_once() {
        let mut pace = Pace::new(Some(100), None);
        pace.cycle(&measured(20, 50));
        assert_eq!(pace.goal(), 90 * MIB);
        // It has survived.
        pace.cycle(&measured(70, 0));
        assert_eq!(pace.goal(), 140 * MIB);
    }

    #[test]
    fn slower_marking_begins_earlier() {
        let mut pace = Pace::new(Some(100), None);
        pace.cycle(&measured(100, 10));
        let before = pace.trigger();
        pace.cycle(&Measured { marked: 100 * MIB, allocated: 40 * MIB, mark_ns: 4_000_000 });
        pace.set_live(110 * MIB, 0);
        assert!(pace.trigger() < before);
    }

    #[test]
    fn a_limit_brings_the_goal_down_but_leaves_room_to_breathe() {
        let mut pace = Pace::new(Some(100), Some(150 * MIB));
        pace.cycle(&measured(100, 0));
        pace.set_live(100 * MIB, 10 * MIB);
        assert_eq!(pace.goal(), 140 * MIB);
        pace.set_live(160 * MIB, 10 * MIB);
        assert_eq!(pace.goal(), 171 * MIB);
        // Without a percentage the limit alone makes cycles.
        let mut pace = Pace::new(None, Some(150 * MIB));
        pace.set_live(20 * MIB, 10 * MIB);
        assert_eq!((pace.goal(), pace.trigger()), (140 * MIB, 120 * MIB));
    }

    #[test]
    fn huge_percentages_do_not_overflow() {
        let mut pace = Pace::new(Some(u32::MAX), None);
        pace.cycle(&Measured { marked: usize::MAX / 4, allocated: 0, mark_ns: 1 });
        assert!(pace.trigger() > usize::MAX / 4);
    }
}
