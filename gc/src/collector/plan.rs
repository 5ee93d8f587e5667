//! What the generation of a cycle decides: everything that differs between minor and major cycles.

use super::config::Config;
use crate::generation::{Generation, GenerationPolicy};
use crate::pace::{CycleMeasurement, Pace};
use crate::write_barrier::Kind;

/// Plans cycles, and learns from them when the next one begins.
pub(super) struct Planner {
    pace: Pace,
    generations: Option<GenerationPolicy>,
    write_barrier: Kind,
}

/// How one cycle differs from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    generation: Generation,
    /// Bytes of live objects when the cycle began.
    pub(super) live_before: usize,
    /// The marks of earlier cycles are cleared first.
    pub(super) clears_marks: bool,
    /// Remembered stores are of no use: the cycle finds all that is reachable without them.
    pub(super) forgets_remembered: bool,
    /// Bytes that the cycle will probably mark.
    pub(super) expected: usize,
    /// The size that the heap should not exceed meanwhile. `usize::MAX`: mutators do not assist.
    pub(super) goal: usize,
    /// Stacks are scanned only where they have run since the last cycle.
    pub(super) short_scans: bool,
    /// What becomes of stacks that have run since their scan.
    pub(super) rescan: Rescan,
    /// After the cycle, stacks are watched for the next one's short scans.
    pub(super) watches_stacks: bool,
    /// After the cycle, stores are remembered for the next one.
    pub(super) remembers_stores: bool,
}

/// How stacks that have run since their scan are scanned again before the world stops for what is
/// left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rescan {
    /// Not at all, nor in the stopped world: the write barrier shades what they lose.
    Never,
    /// Once, and again as long as there are many. From then on what is left is bounded. Before, a
    /// goroutine makes and leaves frames as it likes: marking takes long.
    Once,
    /// Only if marking takes long or they are many. What is left is bounded from the beginning.
    IfLongOrMany,
}

impl Plan {
    /// Whether the cycle collects young objects only.
    pub(super) fn is_minor(&self) -> bool {
        self.generation == Generation::Young
    }
}

impl Planner {
    pub(super) fn new(config: &Config) -> Planner {
        Planner {
            pace: Pace::new(config.percent, config.memory_limit),
            generations: config.generational.map(GenerationPolicy::new),
            write_barrier: config.write_barrier,
        }
    }

    /// The bytes that may be allocated until the next cycle begins.
    pub(super) fn trigger(&self) -> usize {
        let trigger = self.pace.trigger();
        self.generations.as_ref().map_or(trigger, |generations| generations.trigger(trigger))
    }

    /// Plans the cycle that begins now, in a heap with `live` bytes in live objects and `size`
    /// bytes in all.
    pub(super) fn plan(&self, wanted: Generation, live: usize, size: usize) -> Plan {
        let generation =
            self.generations.as_ref().map_or(Generation::All, |policy| policy.next(wanted, size));
        let major = generation == Generation::All;
        let short_scans = self.generations.as_ref().is_some_and(|g| g.config().short_scans);
        let hybrid = self.write_barrier == Kind::Hybrid;
        Plan {
            generation,
            live_before: live,
            clears_marks: major && self.generations.is_some(),
            forgets_remembered: major,
            // A minor cycle needs no assists: it traces at most what was allocated since the last
            // one, which bounds what is allocated meanwhile.
            expected: if major { self.pace.expected() } else { 0 },
            goal: if major { self.pace.goal() } else { usize::MAX },
            short_scans: !major && short_scans,
            rescan: match generation {
                _ if hybrid => Rescan::Never,
                Generation::All => Rescan::Once,
                Generation::Young => Rescan::IfLongOrMany,
            },
            watches_stacks: short_scans,
            remembers_stores: self.generations.is_some(),
        }
    }

    /// Learns from a cycle that has marked. `other_memory` bytes are in use beside objects.
    pub(super) fn marked(&mut self, plan: &Plan, cycle: &CycleMeasurement, other_memory: usize) {
        match plan.generation {
            Generation::All => self.pace.cycle(cycle),
            Generation::Young => {
                let new = cycle.marked.saturating_add(cycle.allocated);
                self.pace.set_live(plan.live_before.saturating_add(new), other_memory);
            }
        }
    }

    /// Learns what lives: it is known exactly when the sweep is complete.
    pub(super) fn set_live(&mut self, live: usize, other_memory: usize) {
        self.pace.set_live(live, other_memory);
    }

    /// Ends a cycle whose sweep is complete. Returns how many bytes the heap should keep if it is
    /// to give free memory back to the system now.
    pub(super) fn swept(&mut self, plan: &Plan) -> Option<usize> {
        let goal = self.pace.goal();
        if let Some(generations) = &mut self.generations {
            generations.ended(plan.generation, goal);
        }
        (!plan.is_minor()).then_some(goal)
    }
}
