//! When to collect: by how much the heap may grow, and how long marking will take.

/// The smallest goal at 100 percent, in bytes. It is scaled with the percentage, as Go's is.
const MIN_GOAL: usize = 4 << 20;

/// A memory limit leaves the goal a sixteenth of what is live and so many bytes above what is live.
/// With less, cycles would follow each other without a break and free nothing.
const MIN_HEADROOM: usize = 1 << 20;

/// The pace of collections.
///
/// The *goal* is the size that the heap should not exceed. It is what was live after the last
/// cycle, and on top of that a percentage of what that cycle marked and of the stacks that it
/// scanned; less if the memory limit asks for it. The stacks count, since a cycle's work is in
/// proportion to them, too: a million goroutines that wait are scanned no more often than a heap of
/// their size is marked. (After Go 1.18's pacer.)
///
/// What was allocated while the cycle ran counts as live, but most of it is garbage by then. The
/// percentage leaves it out: otherwise the heap of a program that allocates fast would be several
/// times as large as needed.
///
/// A cycle begins before the heap has reached its goal, since goroutines allocate while it runs.
/// How much they will follows from the rate of allocation in the last cycles and from the measured
/// speed of marking.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    percent: Option<u32>,
    /// The most memory to be used for everything, in bytes.
    limit: Option<usize>,
    /// Memory that is used beside the objects, in bytes.
    other_memory: usize,
    live: usize,
    /// What the last cycle marked, in bytes.
    marked: usize,
    /// What was in use of the stacks that it scanned, in bytes.
    stacks: usize,
    /// Nanoseconds that it takes to mark a byte, smoothed.
    ns_per_byte: f64,
    /// Bytes allocated in a nanosecond of a cycle, smoothed.
    allocation_rate: f64,
}

/// What is learned from a cycle.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CycleMeasurement {
    /// Bytes that were marked.
    pub(crate) marked: usize,
    /// Bytes in use of the stacks that were scanned.
    pub(crate) stacks: usize,
    /// Bytes that were allocated while it ran: they are live too.
    pub(crate) allocated: usize,
    /// From its beginning to the end of marking.
    pub(crate) mark_ns: u64,
}

impl Pace {
    /// Without `percent` the heap's growth causes no collection; without `limit`, in bytes, memory
    /// use causes none.
    pub(crate) fn new(percent: Option<u32>, limit: Option<usize>) -> Pace {
        Pace {
            percent,
            limit,
            other_memory: 0,
            live: 0,
            marked: 0,
            stacks: 0,
            ns_per_byte: 0.0,
            allocation_rate: 0.0,
        }
    }

    /// Learns from a cycle.
    pub(crate) fn cycle(&mut self, measured: &CycleMeasurement) {
        self.live = measured.marked.saturating_add(measured.allocated);
        self.marked = measured.marked;
        self.stacks = measured.stacks;
        let time = measured.mark_ns.max(1) as f64;
        let ns_per_byte = time / measured.marked.max(1) as f64;
        self.ns_per_byte = if self.ns_per_byte == 0.0 {
            ns_per_byte
        } else {
            (3.0 * self.ns_per_byte + ns_per_byte) / 4.0
        };
        // Rises at once, falls slowly.
        self.allocation_rate = (measured.allocated as f64 / time).max(self.allocation_rate * 0.75);
    }

    /// Sets what is live and the memory that is used beside the objects, in bytes.
    pub(crate) fn set_live(&mut self, live: usize, other_memory: usize) {
        self.live = live;
        self.other_memory = other_memory;
    }

    /// What the next cycle will probably mark, in bytes.
    pub(crate) fn expected(&self) -> usize {
        self.marked
    }

    /// The size that the heap should not exceed. `usize::MAX`: there is none, and only then.
    pub(crate) fn goal(&self) -> usize {
        let scale = |bytes: usize, percent: u32| {
            (bytes as u128 * u128::from(percent) / 100).min(usize::MAX as u128) as usize
        };
        let wanted = self.percent.map(|percent| {
            let work = self.marked.min(self.live).saturating_add(self.stacks);
            self.live.saturating_add(scale(work, percent)).max(scale(MIN_GOAL, percent))
        });
        let allowed = self.limit.map(|limit| {
            let least = self.live.saturating_add(self.live / 16).saturating_add(MIN_HEADROOM);
            limit.saturating_sub(self.other_memory).max(least)
        });
        let goal = wanted.into_iter().chain(allowed).min();
        // Where words are short, what is wanted may be more than there are addresses.
        goal.map_or(usize::MAX, |goal| goal.min(usize::MAX - 1))
    }

    /// The bytes that may be allocated from the end of a cycle until the next one begins.
    pub(crate) fn trigger(&self) -> usize {
        let goal = self.goal();
        if goal == usize::MAX {
            return usize::MAX;
        }
        // The heap has `live` bytes at the end of a cycle. The next one begins when a third of the
        // room is used up at the earliest, so that fast allocation does not make cycles follow each
        // other without a break. Threads that allocate help to mark instead.
        let room = goal.saturating_sub(self.live);
        let meanwhile = (self.allocation_rate * self.ns_per_byte * self.marked as f64) as usize;
        room.saturating_sub(meanwhile).max(room / 3).max(1)
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1 << 20;

    fn measured(marked: usize, allocated: usize) -> CycleMeasurement {
        let (marked, allocated) = (marked * MIB, allocated * MIB);
        CycleMeasurement { marked, allocated, mark_ns: 1_000_000, ..CycleMeasurement::default() }
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
        pace.cycle(&CycleMeasurement { mark_ns: 2_000_000, ..measured(140, 40) });
        assert_eq!(trigger_mib(&pace), 100);
        // The rate falls slowly.
        pace.cycle(&CycleMeasurement { mark_ns: 2_000_000, ..measured(140, 0) });
        assert_eq!(trigger_mib(&pace), 110);
        // It rises at once, and cycles do not follow each other without a break.
        pace.cycle(&CycleMeasurement { mark_ns: 2_000_000, ..measured(90, 1000) });
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
        pace.cycle(&CycleMeasurement { mark_ns: 4_000_000, ..measured(100, 40) });
        pace.set_live(110 * MIB, 0);
        assert!(pace.trigger() < before);
    }

    #[test]
    fn a_limit_lowers_the_goal_but_leaves_headroom() {
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
    fn stacks_that_were_scanned_count_as_what_was_marked() {
        let mut pace = Pace::new(Some(50), None);
        pace.cycle(&CycleMeasurement { stacks: 200 * MIB, ..measured(20, 0) });
        assert_eq!(pace.goal(), 130 * MIB);
        // The goroutines have ended.
        pace.cycle(&measured(20, 0));
        assert_eq!(pace.goal(), 30 * MIB);
    }

    /// Sizes of all magnitudes, many of them near the most that a word can hold.
    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![
            (0..usize::BITS).prop_flat_map(|shift| 0..=usize::MAX >> shift),
            (0..16 * MIB).prop_map(|less| usize::MAX - less),
            (0..16 * MIB).prop_map(|less| usize::MAX / 2 - less),
        ]
    }

    fn percent() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..400, any::<u32>()]
    }

    proptest! {
        /// The goal is what the same sums are without limits, cut to what a word can hold.
        #[test]
        fn sizes_near_the_end_of_addresses_have_a_goal_and_a_trigger(
            percent in prop::option::of(percent()),
            limit in prop::option::of(size()),
            cycles in prop::collection::vec((size(), size(), size(), 0u64..1 << 40), 1..4),
            swept in prop::option::of(size()),
            other_memory in size(),
        ) {
            let mut pace = Pace::new(percent, limit);
            let wide = |bytes: usize| bytes as u128;
            let mut live = 0;
            for &(marked, allocated, stacks, mark_ns) in &cycles {
                pace.cycle(&CycleMeasurement { marked, stacks, allocated, mark_ns });
                live = wide(marked) + wide(allocated);
            }
            if let Some(swept) = swept {
                pace.set_live(swept, other_memory);
                live = wide(swept);
            }
            let live = live.min(wide(usize::MAX));
            let &(marked, _, stacks, _) = cycles.last().expect("at least one");
            let wanted = percent.map(|percent| {
                let scale = |bytes: u128| bytes * u128::from(percent) / 100;
                let work = (wide(marked).min(live) + wide(stacks)).min(wide(usize::MAX));
                (live + scale(work)).max(scale(wide(MIN_GOAL)))
            });
            let other_memory = if swept.is_some() { other_memory } else { 0 };
            let allowed = limit.map(|limit| {
                let least = live + live / 16 + wide(MIN_HEADROOM);
                wide(limit.saturating_sub(other_memory)).max(least)
            });
            let Some(expected) = wanted.into_iter().chain(allowed).min() else {
                prop_assert_eq!((pace.goal(), pace.trigger()), (usize::MAX, usize::MAX));
                return Ok(());
            };
            let expected = expected.min(wide(usize::MAX - 1));
            prop_assert_eq!(wide(pace.goal()), expected);
            let room = expected.saturating_sub(live) as usize;
            prop_assert!((room / 3..=room.max(1)).contains(&pace.trigger()));
            prop_assert_ne!(pace.trigger(), 0);
        }
    }

    #[test]
    fn huge_percentages_do_not_overflow() {
        let mut pace = Pace::new(Some(u32::MAX), None);
        let marked = usize::MAX / 4;
        pace.cycle(&CycleMeasurement { marked, stacks: usize::MAX, allocated: 0, mark_ns: 1 });
        assert!(pace.trigger() > usize::MAX / 4);
    }
}
