//! Generations: which cycles are minor, that is collect young objects only, and when they begin.
//!
//! What a cycle has marked is old until a *major* cycle clears the marks. Minor cycles follow each
//! other, one for so many bytes allocated, until what has survived them makes the heap as large as
//! it may be until the next major one: by a percentage larger than what that left alive
//! ([`Pace::goal`](crate::pace::Pace::goal)). A cycle that somebody asks for is a major one, unless
//! he asks for less. The heap keeps the marks
//! ([`Heap::keep_marks`](crate::heap::Heap::keep_marks)), the write barrier records what is stored
//! into old objects ([`write_barrier`](crate::write_barrier)), and of stacks only what has changed
//! is scanned ([`Runtime::begin_scanning_young`](stackmark_stack::Runtime::begin_scanning_young)).

/// How a collector with generations behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generational {
    /// Bytes that are allocated from one cycle to the next, if nothing else makes one begin.
    pub nursery: usize,
    /// Minor cycles scan of each stack only what has run since the last cycle. Otherwise they scan
    /// stacks whole: for comparisons.
    pub short_scans: bool,
}

impl Default for Generational {
    /// 4 MiB, with short scans.
    fn default() -> Self {
        Generational { nursery: 4 << 20, short_scans: true }
    }
}

/// What a cycle collects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// What was allocated since the last cycle.
    Young,
    /// Everything.
    #[default]
    All,
}

/// The policy.
#[derive(Debug)]
pub(crate) struct Generations {
    config: Generational,
    /// The size of the heap at which the next cycle is a major one; 0 before the first cycle.
    limit: usize,
}

impl Generations {
    pub(crate) fn new(config: Generational) -> Generations {
        Generations { config, limit: 0 }
    }

    /// What the cycle that begins now collects, in a heap of `size` bytes.
    pub(crate) fn next(&self, wanted: Generation, size: usize) -> Generation {
        if size >= self.limit { Generation::All } else { wanted }
    }

    /// A cycle has ended. `goal`: the size that the heap should not exceed, going by what is live
    /// now.
    pub(crate) fn ended(&mut self, generation: Generation, goal: usize) {
        if generation == Generation::All {
            self.limit = goal;
        }
    }

    /// The bytes that may be allocated until the next cycle, if without generations it were so
    /// many.
    pub(crate) fn trigger(&self, trigger: usize) -> usize {
        // Without a percentage and a limit there are cycles on request only.
        if trigger == usize::MAX { trigger } else { trigger.min(self.config.nursery.max(1)) }
    }

    pub(crate) fn config(&self) -> Generational {
        self.config
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn minor_cycles_follow_a_major_one_until_the_heap_has_grown() {
        let mut generations = Generations::new(Generational { nursery: 100, short_scans: true });
        assert_eq!(generations.next(Generation::Young, 0), Generation::All, "nothing is old yet");
        generations.ended(Generation::All, 1000);
        assert_eq!(generations.next(Generation::Young, 999), Generation::Young);
        assert_eq!(generations.next(Generation::All, 999), Generation::All);
        generations.ended(Generation::Young, 5000);
        assert_eq!(
            generations.next(Generation::Young, 1000),
            Generation::All,
            "survivors do not raise the limit"
        );
    }

    #[test]
    fn the_nursery_makes_cycles_come_sooner_but_makes_none_where_there_are_none() {
        let generations = Generations::new(Generational { nursery: 100, short_scans: true });
        assert_eq!(
            [50, 500, usize::MAX].map(|trigger| generations.trigger(trigger)),
            [50, 100, usize::MAX]
        );
    }
}
