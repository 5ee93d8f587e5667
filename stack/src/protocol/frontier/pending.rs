//! The rescan barriers of one stack that are not placed yet.
//!
//! Marks come youngest first from a scan, and are placed youngest first. A scan that begins again
//! ends at the lowest unhit barrier, and marks that have waited until then lie beyond it. So two
//! queues keep them in order, and each mark costs a constant time.

use crate::protocol::barrier::Barrier;
use std::collections::VecDeque;

/// A slot that a barrier will be placed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) depth: usize,
    /// The number of the frame that owns the slot: see [`Barrier::frame`].
    pub(super) frame: i64,
    /// See [`Barrier::signed`].
    pub(super) signed: bool,
}

impl Placement {
    /// The barrier, with this stub.
    pub(super) fn barrier(self, stub: u32) -> Barrier {
        let Placement { depth, frame, signed } = self;
        Barrier { depth, stub, frame, signed }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Of the present scan, youngest first.
    fresh: VecDeque<Placement>,
    /// Of earlier scans, youngest first. They are older than all of `fresh`.
    waiting: VecDeque<Placement>,
}

impl Pending {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.waiting.is_empty()
    }

    /// The youngest mark.
    pub(super) fn youngest(&self) -> Option<Placement> {
        self.fresh.front().or_else(|| self.waiting.front()).copied()
    }

    /// All marks, youngest first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Placement> {
        self.fresh.iter_mut().chain(&mut self.waiting)
    }

    /// A scan begins where an earlier one has ended.
    pub(super) fn begin_again(&mut self) {
        while let Some(mark) = self.fresh.pop_back() {
            self.waiting.push_front(mark);
        }
    }

    /// Adds the oldest mark of the present scan.
    pub(super) fn add_oldest(&mut self, mark: Placement) {
        debug_assert!(self.fresh.back().is_none_or(|other| other.depth > mark.depth));
        debug_assert!(self.waiting.front().is_none_or(|other| other.depth < mark.depth));
        self.fresh.push_back(mark);
    }

    /// Adds a mark that is younger than all others.
    pub(super) fn add_youngest(&mut self, mark: Placement) {
        debug_assert!(self.youngest().is_none_or(|other| other.depth < mark.depth));
        self.fresh.push_front(mark);
    }

    /// Takes the youngest mark.
    pub(super) fn pop_youngest(&mut self) -> Option<Placement> {
        self.fresh.pop_front().or_else(|| self.waiting.pop_front())
    }

    /// Drops the marks at `depth` and deeper.
    pub(super) fn drop_younger(&mut self, depth: usize) {
        while self.youngest().is_some_and(|mark| mark.depth >= depth) {
            self.pop_youngest();
        }
    }

    pub(super) fn clear(&mut self) {
        self.fresh.clear();
        self.waiting.clear();
    }
}
