//! What a pause was, for the binding's statistics.

use std::time::Duration;

/// What a pause does with stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PauseKind {
    /// It visits the frames that have run since the last pause.
    Short,
    /// It visits whole stacks.
    Whole,
    /// It begins to visit stacks, and workers go on while the world runs.
    InitialMark,
    /// It visits what is left of that, which is nothing as a rule, or has no roots to visit.
    FinalMark,
}

/// A pause, as [`StackHost::paused`](crate::StackHost::paused) hears of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Pause {
    /// What it did with stacks.
    pub kind: PauseKind,
    /// Whether it was a nursery collection.
    pub nursery: bool,
    /// From MMTk's request until all mutators had stopped.
    pub stopping: Duration,
    /// The time in which roots of stacks were visited, added up over workers. Rescans count.
    pub roots: Duration,
    /// The whole pause, verification left out.
    pub total: Duration,
    /// How many slots of stacks went to MMTk in the first round.
    pub slots: u64,
}
