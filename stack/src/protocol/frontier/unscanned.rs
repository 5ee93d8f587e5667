//! How far a scan that is not complete has come, and where it next has something to decide.

use super::access::{Budget, Position, Spacing};
use crate::protocol::barrier::Barrier;

/// A scan that is not complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unscanned {
    pub(super) at: Position,
    /// Depth of the stack pointer that the scan began at.
    pub(super) from: usize,
    pub(super) spacing: Spacing,
    /// Frames visited so far.
    pub(super) frames: u64,
    /// The owner of this barrier's slot is the last frame to visit: beyond it the barriers of an
    /// earlier scan still hold. `None`: to the end.
    pub(super) until: Option<Barrier>,
    /// The scan also ends at a foreign call at less depth than this: it has not returned since an
    /// earlier scan visited it. 0: there is none.
    pub(super) reached: usize,
}

impl Unscanned {
    pub(super) fn is_due(&self, slot: usize) -> bool {
        match self.spacing {
            Spacing::Doubling(distance) => self.from.saturating_sub(slot) >= distance,
            Spacing::EveryFrame => true,
            Spacing::Never => false,
        }
    }

    /// The depth of the deepest return slot at which the scan, which began to visit at depth `top`,
    /// may have more to do than to visit the frame, if that is a plain one.
    pub(super) fn next_stop(&self, top: usize, budget: Budget) -> usize {
        let due = match self.spacing {
            Spacing::Doubling(distance) => self.from.saturating_sub(distance),
            Spacing::EveryFrame => usize::MAX,
            Spacing::Never => 0,
        };
        let until = self.until.map_or(0, |b| b.depth);
        due.max(until).max(top.saturating_sub(budget.bytes))
    }

    /// Uses up the distances that `slot` has passed. One huge frame may span several doublings, and
    /// gets one barrier.
    pub(super) fn use_up(&mut self, slot: usize) {
        if let Spacing::Doubling(distance) = &mut self.spacing {
            while self.from.saturating_sub(slot) >= *distance {
                *distance *= 2;
            }
        }
    }
}
