//! Generations: which cycles are minor, that is collect young objects only, and when they begin.
//!
//! What a cycle has marked is old until a *major* cycle clears the marks. A minor cycle begins
//! whenever a nursery's worth of bytes has been allocated. What survives minor cycles makes the
//! heap grow. When it reaches the goal that followed from the last major cycle
//! ([`Pace::goal`](crate::pace::Pace::goal)), the next cycle is a major one. A requested cycle is a
//! major one unless the request is for a minor one.
//!
//! The heap keeps the marks ([`Heap::keep_marks`](crate::heap::Heap::keep_marks)). The write
//! barrier remembers what is stored into old objects ([`write_barrier`](crate::write_barrier)). Of
//! stacks only what has changed is scanned, with return barriers that outlive a cycle.

/// How a collector with generations behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generational {
    /// Bytes allocated from one cycle to the next, if nothing else makes one begin; 0 counts as 1.
    pub nursery: usize,
    /// Whether minor cycles scan of each stack only what has run since the last cycle. Otherwise
    /// they scan stacks whole, for comparisons.
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

/// Which cycles are minor ones.
#[derive(Debug)]
pub(crate) struct GenerationPolicy {
    config: Generational,
    /// The size of the heap, in bytes, at which the next cycle is a major one; 0 before the first.
    limit: usize,
}

impl GenerationPolicy {
    pub(crate) fn new(config: Generational) -> GenerationPolicy {
        GenerationPolicy { config, limit: 0 }
    }

    /// What the cycle that begins now collects, in a heap of `size` bytes.
    pub(crate) fn next(&self, wanted: Generation, size: usize) -> Generation {
        if size >= self.limit { Generation::All } else { wanted }
    }

    /// Ends a cycle. `goal` is the size that the heap should not exceed, in bytes, given what is
    /// live now.
    pub(crate) fn ended(&mut self, generation: Generation, goal: usize) {
        if generation == Generation::All {
            self.limit = goal;
        }
    }

    /// The bytes that may be allocated until the next cycle. `trigger` is that number without
    /// generations.
    pub(crate) fn trigger(&self, trigger: usize) -> usize {
        // `usize::MAX`: there are cycles on request only.
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
        let mut policy = GenerationPolicy::new(Generational { nursery: 100, short_scans: true });
        assert_eq!(policy.next(Generation::Young, 0), Generation::All, "nothing is old yet");
        policy.ended(Generation::All, 1000);
        assert_eq!(policy.next(Generation::Young, 999), Generation::Young);
        assert_eq!(policy.next(Generation::All, 999), Generation::All);
        policy.ended(Generation::Young, 5000);
        assert_eq!(
            policy.next(Generation::Young, 1000),
            Generation::All,
            "survivors do not raise the limit"
        );
    }

    #[test]
    fn the_nursery_makes_cycles_come_sooner_but_makes_none_where_there_are_none() {
        let policy = GenerationPolicy::new(Generational { nursery: 100, short_scans: true });
        assert_eq!(
            [50, 500, usize::MAX].map(|trigger| policy.trigger(trigger)),
            [50, 100, usize::MAX]
        );
    }
}
