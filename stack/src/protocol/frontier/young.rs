//! The *young part* of a stack: the frames that a rescan visits, up to the owner of the lowest
//! unhit barrier. Its bound is what keeps the stopped world short.
//!
//! 12. *Young part*: let most and step be those of [`YoungBound`], and b the depth of the lowest
//!     unhit barrier, or 0 without one. While a cycle bounds young parts, a goroutine that runs and
//!     has been scanned in the cycle has its stack pointer at a depth of at most b + most, but for
//!     the frame that it makes after its last poll. So a rescan visits at most that many bytes of
//!     frames, whatever the goroutine pushes or leaves, and however fast.
//!
//!     - *Pushing*: the poll word asks for a poll at depth b + most ([`StackScan::polls_at`]). At
//!       that poll the goroutine visits its young part itself and puts a barrier below it
//!       ([`StackScan::catch_up`]). The one that pushes pays, and in proportion to what it pushed.
//!     - *Leaving*: when a barrier is settled because the goroutine runs an older frame, the next
//!       barrier may lie far beyond, since rescan barriers lie at doublings. The goroutine then
//!       places one at the distance step ([`StackScan::follow`]). The frames up to there are
//!       frozen, so nothing is visited. The poll word is written anew.
//!
//!     The bound needs a slot that may have a barrier, and a stub. Where frames have none (a
//!     recursion of functions that move their return address, a chain of callbacks) or the pool is
//!     empty, the goroutine polls at doublings of its young part: what it pays stays in proportion,
//!     and the bound is lost until it polls without them. An empty pool is counted.
//!
//! Barriers of earlier scans are thinned out, so a goroutine has O(log depth) barriers however
//! often it catches up.

use super::StackScan;
use super::access::{Frames, Position, Spacing, StackAccess};
use super::pending::Placement;
use super::unscanned::Unscanned;
use crate::protocol::barrier::{Settled, Slots, StubPool, Table};
use crate::protocol::sync::{LeftOut, left_out};

/// The bound of invariant 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct YoungBound {
    /// The most bytes between the lowest unhit barrier and the stack pointer.
    pub(crate) most: usize,
    /// How far from the stack pointer the next barrier is placed, at least, when one is settled.
    /// At most an eighth of `most`.
    pub(crate) step: usize,
}

/// What [`StackScan::catch_up`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CaughtUp {
    /// Frames visited.
    pub(crate) frames: u64,
    /// Barriers placed.
    pub(crate) placed: u64,
    /// What became of earlier barriers.
    pub(crate) settled: Settled,
}

impl StackScan {
    /// The depth at which the goroutine, whose stack pointer is at `depth`, polls to
    /// [catch up](StackScan::catch_up).
    pub(crate) fn polls_at(&self, depth: usize, bound: YoungBound) -> usize {
        if left_out(LeftOut::YoungPoll) {
            return usize::MAX;
        }
        let lowest = self.limit().map_or(0, |(lowest, _)| lowest);
        let young = depth.saturating_sub(lowest);
        // Beyond the bound no barrier could be placed.
        if young < bound.most { lowest + bound.most } else { depth + young }
    }

    /// The owner visits the young part: the frames from `at`, its youngest, up to the owner of the
    /// lowest unhit barrier. Places barriers there. A scan that is not complete stays as it is.
    /// Called after [`StackScan::protect`], in the cycle of the last scan.
    ///
    /// # Errors
    /// The stack cannot be walked.
    pub(crate) fn catch_up<F: Frames, S: Slots, T: Table>(
        &mut self,
        access: &mut StackAccess<'_, S, T>,
        at: Position,
        spacing: Spacing,
        foreign: bool,
        frames: &mut F,
    ) -> Result<CaughtUp, F::Error> {
        let mut settled = self.barriers.leave(access.pool, at.depth);
        let mut placed = self.place_pending(access, at.depth).barriers;
        let until = self.barriers.lowest();
        let (unscanned, reached) = (self.unscanned, self.reached);
        let mut due = Unscanned { at, from: at.depth, spacing, frames: 0, until, reached };
        let mut marks = Vec::new();
        // The number, in the order of earlier scans, of the last frame that is visited.
        let last = loop {
            let Some(slot) = frames.visit()? else { break self.oldest };
            due.frames += 1;
            if let Some(until) = until.filter(|until| until.depth == slot) {
                break until.frame;
            }
            if frames.may_rest() && frames.position().depth < reached {
                break self.oldest;
            }
            if slot != 0 && due.is_due(slot) && frames.refusal().is_none() {
                let (frame, signed) = (due.frames as i64, frames.is_signed());
                marks.push(Placement { depth: slot, frame, signed });
                due.use_up(slot);
            }
            // Not always at a foreign call: `thaw` visits frames beyond the one that blocks the
            // way, and may find no stub for a barrier there.
            if let Some(scan) = unscanned.filter(|scan| frames.position().depth <= scan.at.depth) {
                break scan.frames as i64;
            }
        };
        let count = due.frames as i64;
        for mark in marks.into_iter().rev() {
            self.pending.add_youngest(Placement { frame: last - count + mark.frame, ..mark });
        }
        (self.youngest, self.reached) = (last - count, at.depth);
        placed += self.place_pending(access, at.depth).barriers;
        if spacing != Spacing::EveryFrame {
            // An incomplete scan ends at the barrier `until`: nothing beyond it is touched.
            let down_to =
                self.unscanned.map_or(0, |scan| scan.until.map_or(scan.at.depth, |b| b.depth + 1));
            settled.removed = self.barriers.thin_out(
                &mut access.slots,
                &access.table,
                access.pool,
                (at.depth, down_to),
                foreign,
            );
        }
        Ok(CaughtUp { frames: due.frames, placed, settled })
    }

    /// The owner is about to run the frame at `at`, and has settled at least one barrier in a
    /// younger one: so the frames older than `at` are visited and frozen. Places a barrier a `step`
    /// away if the next one is much further. Called after [`StackScan::protect`]. Returns how many
    /// barriers it has placed.
    ///
    /// # Errors
    /// The stack cannot be walked.
    pub(crate) fn follow<F: Frames, S: Slots, T: Table>(
        &mut self,
        access: &mut StackAccess<'_, S, T>,
        at: Position,
        step: usize,
        frames: impl FnOnce() -> F,
    ) -> Result<u64, F::Error> {
        let least = self.limit().map_or(0, |(depth, _)| depth);
        if at.depth.saturating_sub(least) <= 2 * step || left_out(LeftOut::Follow) {
            return Ok(0);
        }
        // Only frames that are visited and frozen may be passed.
        let end = self.unscanned.map_or(0, |unscanned| unscanned.at.depth);
        let mut frames = frames();
        let mut passed = 0;
        while let Some(slot) = frames.pass()? {
            passed += 1;
            if slot <= least || slot <= end {
                break;
            }
            if at.depth - slot >= step && frames.refusal().is_none() {
                let (frame, signed) = (self.youngest + passed, frames.is_signed());
                self.pending.add_youngest(Placement { depth: slot, frame, signed });
                return Ok(self.place_pending(access, at.depth).barriers);
            }
        }
        Ok(0)
    }

    /// The owner leaves all frames younger than the one at `at` without returning through them.
    /// Settles their barriers. A scan that has not come so far goes on from there: what is left is
    /// not visited. `foreign_call` says that the frame is that of a foreign call that has called
    /// back. Followed by [`StackScan::protect`].
    pub(crate) fn leave_for(
        &mut self,
        pool: &StubPool,
        at: Position,
        foreign_call: bool,
    ) -> Settled {
        let settled = self.leave(pool, at.depth);
        if let Some(mut scan) = self.unscanned.filter(|scan| scan.at.depth > at.depth) {
            self.frontier = None;
            if scan.until.is_some_and(|until| until.depth > at.depth)
                || foreign_call && at.depth < scan.reached
            {
                // Everything older was visited by an earlier scan, and has not run since.
                self.unscanned = None;
            } else {
                scan.at = at;
                self.unscanned = Some(scan);
            }
        }
        settled
    }

    /// The goroutine has left all frames with return slots deeper than `depth` without returning
    /// through them.
    pub(super) fn leave(&mut self, pool: &StubPool, depth: usize) -> Settled {
        // The oldest frame with a barrier that is left has a number.
        let left = self.barriers.unhit().iter().rev().take_while(|b| b.depth > depth).last();
        self.youngest = left.map_or(self.youngest, |b| b.frame);
        self.barriers.leave(pool, depth)
    }

    /// How many frames are older than the one with this number.
    pub(super) fn beyond(&self, frame: i64) -> u64 {
        (self.oldest - frame).max(0) as u64
    }

    /// Numbers the frames younger than `depth` anew.
    pub(super) fn renumber_younger(&mut self, depth: usize, more: i64) {
        self.barriers.renumber_younger(depth, more);
        for mark in self.pending.iter_mut().take_while(|mark| mark.depth > depth) {
            mark.frame += more;
        }
        self.youngest += more;
    }
}
