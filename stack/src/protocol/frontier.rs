//! The scan of one stack, a little at a time. It has a position, a *frontier* and *rescan
//! barriers*. The frontier is the barrier that keeps the goroutine out of unvisited frames. Rescan
//! barriers (also known as watermarks) bound how much the next scan visits again.
//!
//! Plain Rust without raw memory, over [`Frames`], [`Slots`] and [`Table`], so that models run this
//! very code. All of it runs under the goroutine's `scan_lock`. The *owner* is the goroutine
//! itself, at a poll, at a hit or on its way out of frames, or the holder of a goroutine that
//! stands still. A *worker* is any other thread.
//!
//! A depth is stack_hi - address, so younger frames lie deeper. Invariants, besides those of
//! [`barrier`](super::barrier):
//!
//! 6. *Frozen*: frames at `unscanned.at` and older have not run since the scan began. Since then
//!    only stores through the write barrier have changed them.
//! 7. *Blocking*: while a scan is incomplete and the goroutine runs managed code, one of two
//!    things blocks its way to unvisited frames. Either an unhit barrier lies in a frame that this
//!    scan has visited; the lowest such barrier is the frontier. Or every running frame is younger
//!    than a native call at depth `rest`, whose return passes [`StackScan::protect`]: a foreign
//!    call, or one that [`StackScan::watched`] names.
//! 8. *Reading*: a worker visits frozen frames only, and writes no slot. It records the barriers to
//!    place in `pending`. Their frames are visited and still frozen, because an unhit barrier or
//!    `rest` blocks the way to them. The owner places them before it gets there.
//! 9. *Bounded*: a complete scan leaves rescan barriers at distances D, 2 D, 4 D ... from the stack
//!    pointer that it began at. The next scan visits frames up to the owner of the lowest unhit
//!    barrier and no further. Let
//!    - sp(s) be the depth of the stack pointer at which scan s began, and l the last scan;
//!    - d be the largest sp(s) of the scans from the last whole one to l;
//!    - m be the least depth of the goroutine's stack pointer, and of words given to
//!      [`StackScan::thaw`], since l began;
//!    - touched be d - m;
//!    - b be the depth of the lowest unhit barrier, or 0 without one.
//!
//!    Then sp(l) - b <= touched + max(D, touched), but for frames in which no barrier lies: a
//!    barrier lies in the first frame at or beyond its distance that may have one. So of the frames
//!    that scan l left visited, the next scan visits what was touched, and beyond it as much again
//!    or D. d counts, not sp(l), because a scan that begins again keeps the barriers beyond the
//!    frames that it visits: they stay where the scan that began at d has placed them.
//! 10. *Epochs*: a scan belongs to one cycle. A worker with another cycle's number does nothing.
//!     The barriers of a complete scan outlive its cycle, and frames beyond the lowest unhit
//!     barrier stay frozen. So a later cycle's scan may end at that barrier
//!     ([`StackScan::begin_again`]). It visits nothing of a goroutine that has not run
//!     ([`StackScan::keep`]).
//! 11. *Leaving*: before the owner runs an older frame, it settles the barriers of all younger ones
//!     and makes invariant 7 true. It calls [`StackScan::hit`] or [`StackScan::leave_for`], and
//!     then [`StackScan::protect`].
//!
//! [`young`] has invariant 12, which bounds what the stopped world visits.
//!
//! After "Incremental stack scanning with return barriers" as in Cheng, Harper and Lee,
//! "Generational stack collection and profile-driven pretenuring" (PLDI 1998), and Yuasa, Nakagawa
//! et al., "Return barrier" (2002).

use crate::protocol::barrier::{BarrierList, Settled, Slots, StubPool, Table, UnknownHit};
use crate::protocol::sync::{LeftOut, left_out};
use access::{Budget, Frames, Position, RescanStart, ScanCounts, Spacing, StackAccess};
use pending::{Pending, Placement};
use unscanned::Unscanned;

pub(crate) mod access;
mod pending;
mod unscanned;
mod unvisited;
mod watched;
pub(crate) mod young;

/// What came of the barriers that were to be placed.
#[derive(Clone, Copy, Debug, Default)]
struct Placed {
    barriers: u64,
    /// There was a place for a barrier that cannot wait, and no stub.
    short: bool,
}

/// The state of one goroutine's scan, and its barriers.
#[derive(Debug, Default)]
pub(crate) struct StackScan {
    barriers: BarrierList,
    epoch: u64,
    unscanned: Option<Unscanned>,
    /// Rescan barriers that are not placed yet.
    pending: Pending,
    /// Where the next frontier will be placed.
    frontier: Option<Placement>,
    /// Depth of the native call that takes the place of the frontier.
    rest: Option<usize>,
    /// The number of the oldest frame that the last complete scan found.
    oldest: i64,
    /// The number of the frame beyond the youngest that a scan has visited. Too small where frames
    /// without barriers were left at once: counts of frames are made of it, and no more.
    youngest: i64,
    /// The least depth that protect, calls_back or thaw was called with since the scan began. No
    /// foreign call at less depth has returned or called back since.
    reached: usize,
}

impl StackScan {
    /// The barriers that have not been hit.
    pub(crate) fn barriers(&self) -> &BarrierList {
        &self.barriers
    }

    /// The cycle that the last scan belongs to.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether every frame has been visited.
    pub(crate) fn is_complete(&self) -> bool {
        self.unscanned.is_none()
    }

    /// How far a rescan goes after a complete scan: the depth of the return slot of the last frame
    /// that may have changed since its visit, and the number of frames beyond. `None`: to the end.
    pub(crate) fn limit(&self) -> Option<(usize, u64)> {
        let lowest = self.barriers.lowest().map(|b| (b.depth, b.frame));
        // Frames of pending barriers are visited and blocked (invariant 8).
        let pending = self.pending.youngest().map(|mark| (mark.depth, mark.frame));
        lowest.max(pending).map(|(depth, frame)| (depth, self.beyond(frame)))
    }

    /// Begins a scan of the whole stack from `at`, the youngest frame of a goroutine that stands
    /// still. Removes earlier barriers. `foreign` says that the goroutine is InForeign. Followed by
    /// [`StackScan::protect`].
    pub(crate) fn begin<S: Slots, T: Table>(
        &mut self,
        access: &mut StackAccess<'_, S, T>,
        epoch: u64,
        at: Position,
        spacing: Spacing,
        foreign: bool,
    ) -> Settled {
        let settled = self.barriers.remove_all(
            &mut access.slots,
            &access.table,
            access.pool,
            at.depth,
            foreign,
        );
        self.pending.clear();
        (self.frontier, self.rest, self.epoch, self.reached) = (None, None, epoch, usize::MAX);
        self.youngest = 0;
        self.unscanned =
            Some(Unscanned { at, from: at.depth, spacing, frames: 0, until: None, reached: 0 });
        settled
    }

    /// Begins a scan of what has changed since the last scan, which is complete: the frames from
    /// `at` up to the owner of the lowest unhit barrier. Followed by [`StackScan::protect`].
    ///
    /// If the last scan belongs to an earlier cycle, this is a *short* scan. The objects that the
    /// last scan found are then old, and do not move. Every store since into frames beyond the
    /// barrier has gone through the write barrier, or came after [`StackScan::thaw`].
    pub(crate) fn begin_again<S: Slots, T: Table>(
        &mut self,
        access: &mut StackAccess<'_, S, T>,
        epoch: u64,
        at: Position,
        spacing: Spacing,
        foreign: bool,
    ) -> RescanStart {
        debug_assert!(self.is_complete(), "one scan at a time");
        let mut settled = self.barriers.leave(access.pool, at.depth);
        let placed = self.place_pending(access, at.depth).barriers;
        self.pending.begin_again();
        if spacing != Spacing::EveryFrame {
            settled.removed = self.barriers.thin_out(
                &mut access.slots,
                &access.table,
                access.pool,
                (at.depth, 0),
                foreign,
            );
        }
        let (until, reached) = (self.barriers.lowest(), self.reached);
        (self.rest, self.epoch, self.reached) = (None, epoch, usize::MAX);
        self.youngest = 0;
        self.unscanned = Some(Unscanned { at, from: at.depth, spacing, frames: 0, until, reached });
        let beyond = until.map_or(0, |until| self.beyond(until.frame));
        RescanStart { settled, placed, beyond }
    }

    /// Whether the last scan belongs to cycle `kept`, and so a later scan may
    /// continue it. Cycle 0 means none.
    pub(crate) fn is_kept(&self, kept: u64) -> bool {
        kept != 0 && self.epoch == kept || left_out(LeftOut::Kept)
    }

    /// Makes the last scan, which is complete, a scan of cycle `epoch`. The goroutine has not run
    /// since, and only stores through the write barrier have changed its frames. Returns the number
    /// of frames that need not be visited.
    pub(crate) fn keep(&mut self, epoch: u64) -> u64 {
        debug_assert!(self.is_complete(), "only a complete scan can be kept");
        self.epoch = epoch;
        self.beyond(self.youngest)
    }

    /// The owner is about to run the frame whose stack pointer is at `depth`, and has settled all
    /// younger barriers. Makes invariant 7 true; visits unvisited frames where it must.
    ///
    /// # Errors
    /// The stack cannot be walked.
    #[inline]
    pub(crate) fn protect<F: Frames, S: Slots, T: Table>(
        &mut self,
        access: &mut StackAccess<'_, S, T>,
        depth: usize,
        budget: Budget,
        frames: impl FnMut(Position) -> F,
    ) -> Result<ScanCounts, F::Error> {
        if self.is_protected(depth) {
            return Ok(ScanCounts::default());
        }
        self.place_and_visit(access, depth, budget, frames)
    }

    /// Begins [`StackScan::protect`]. Returns whether that is all: there is nothing to place, and
    /// invariant 7 is true. So it is behind most hits.
    #[inline]
    pub(crate) fn is_protected(&mut self, depth: usize) -> bool {
        self.reached = self.reached.min(depth);
        self.rest = self.rest.filter(|rest| *rest < depth);
        self.pending.is_empty()
            && self.frontier.is_none()
            && self.unscanned.as_ref().is_none_or(|scan| self.is_blocked(scan, depth))
    }

    /// Places barriers and visits frames for [`StackScan::protect`].
    fn place_and_visit<F: Frames, S: Slots, T: Table>(
        &mut self,
        access: &mut StackAccess<'_, S, T>,
        depth: usize,
        budget: Budget,
        mut frames: impl FnMut(Position) -> F,
    ) -> Result<ScanCounts, F::Error> {
        let mut counts = ScanCounts::default();
        let mut walk: Option<F> = None;
        loop {
            let placed = self.place_pending(access, depth);
            counts.placed += placed.barriers;
            let Some(unscanned) = self.unscanned else { return Ok(counts) };
            let enough = left_out(LeftOut::Frontier) && counts.frames > 0;
            if enough || self.is_blocked(&unscanned, depth) {
                return Ok(counts);
            }
            counts.whole += u64::from(placed.short);
            let walk = walk.get_or_insert_with(|| frames(unscanned.at));
            let budget = if placed.short { Budget::WHOLE } else { budget };
            counts.frames += self.advance(walk, budget)?;
        }
    }

    /// Whether invariant 7 holds for a goroutine whose youngest frame is at `depth`. Barriers lie
    /// only in visited frames, or at and beyond `until`.
    #[inline]
    fn is_blocked(&self, unscanned: &Unscanned, depth: usize) -> bool {
        self.barriers.lowest().is_some_and(|b| b.depth > unscanned.at.depth)
            || self.rest.is_some_and(|rest| rest < depth)
    }

    /// Visits frozen frames for cycle `epoch`, as many as the budget allows. Returns how many; 0 if
    /// there was nothing to do.
    ///
    /// # Errors
    /// The stack cannot be walked.
    pub(crate) fn visit_frozen<F: Frames>(
        &mut self,
        epoch: u64,
        budget: Budget,
        frames: impl FnOnce(Position) -> F,
    ) -> Result<u64, F::Error> {
        let stale = self.epoch != epoch && !left_out(LeftOut::Epoch);
        match self.unscanned {
            Some(unscanned) if !stale => self.advance(&mut frames(unscanned.at), budget),
            _ => Ok(0),
        }
    }

    /// The goroutine returns through `stub` in the slot at `depth`. Puts the return address back.
    /// Followed by [`StackScan::protect`] with the depth of the calling frame's stack pointer.
    ///
    /// # Errors
    /// [`UnknownHit`].
    #[inline]
    pub(crate) fn hit<S: Slots, T: Table>(
        &mut self,
        access: &mut StackAccess<'_, S, T>,
        depth: usize,
        stub: u32,
    ) -> Result<Settled, UnknownHit> {
        let (settled, barrier) =
            self.barriers.hit(&mut access.slots, &access.table, access.pool, depth, stub)?;
        self.youngest = barrier.frame;
        Ok(settled)
    }

    /// The stub of the barrier that the goroutine comes to next.
    #[inline]
    pub(crate) fn next_stub(&self) -> Option<u32> {
        self.barriers.lowest().map(|barrier| barrier.stub)
    }

    /// The goroutine has ended. Settles its barriers and resets the scan.
    pub(crate) fn end(&mut self, pool: &StubPool) -> Settled {
        let settled = self.barriers.end(pool);
        self.pending.clear();
        // Another goroutine may get this record in the same cycle. None of its frames is visited.
        (self.unscanned, self.frontier, self.rest) = (None, None, None);
        (self.oldest, self.youngest, self.epoch, self.reached) = (0, 0, 0, 0);
        settled
    }

    /// The goroutine, whose youngest frame is at `depth`, is about to change the word at depth
    /// `word` without the write barrier. Visits the frames down to the one with that word, and
    /// removes the barriers there: these frames count as touched.
    ///
    /// # Errors
    /// The stack cannot be walked.
    pub(crate) fn thaw<F: Frames, S: Slots, T: Table>(
        &mut self,
        access: &mut StackAccess<'_, S, T>,
        depth: usize,
        word: usize,
        mut frames: impl FnMut(Position) -> F,
    ) -> Result<ScanCounts, F::Error> {
        let mut visited = 0;
        while let Some(unscanned) = self.unscanned.filter(|unscanned| unscanned.at.depth >= word) {
            visited += self.advance(&mut frames(unscanned.at), Budget { frames: 1, bytes: 0 })?;
        }
        let removed =
            self.barriers.remove_younger(&mut access.slots, &access.table, access.pool, word);
        self.pending.drop_younger(word);
        // Frames beyond a foreign call at less depth have not changed.
        self.reached = self.reached.min(word);
        let mut counts = self.protect(access, depth, Budget { frames: 1, bytes: 0 }, frames)?;
        counts.frames += visited;
        counts.removed = removed.into();
        Ok(counts)
    }

    /// Whether a rescan can stop behind the callback frame that returns to a foreign call at
    /// `depth`: no frame there has run since its visit.
    pub(crate) fn is_frozen(&self, depth: usize) -> bool {
        self.is_complete() && depth < self.reached
    }

    /// Checks invariants 1, 2 and 7 where the youngest frame is at `depth`. For debugging.
    ///
    /// # Panics
    /// If one of them does not hold.
    pub(crate) fn check(&self, slots: &impl Slots, table: &impl Table, depth: usize) {
        for barrier in self.barriers.unhit().iter().filter(|b| b.depth <= depth) {
            assert_eq!(
                slots.read(barrier.depth, barrier.signed),
                table.hijacked_word(barrier.stub),
                "the slot of {barrier:?}"
            );
        }
        if let Some(unscanned) = self.unscanned {
            assert!(self.is_blocked(&unscanned, depth), "nothing blocks the way to {unscanned:?}");
        }
    }

    /// Places the pending barriers, youngest first, and the frontier. Drops those younger than
    /// `depth`, whose frames are gone.
    fn place_pending<S: Slots, T: Table>(
        &mut self,
        access: &mut StackAccess<'_, S, T>,
        depth: usize,
    ) -> Placed {
        if left_out(LeftOut::Frontier) {
            self.pending.clear();
            self.frontier = None;
        }
        let mut placed = Placed::default();
        self.pending.drop_younger(depth + 1);
        while let Some(mark) = self.pending.youngest() {
            // The lowest barrier is needed now. Those beyond it can wait until it is hit.
            let lowest = self.barriers.lowest().is_none_or(|b| b.depth < mark.depth);
            match self.barriers.take(access.pool, !lowest) {
                Some(stub) => {
                    self.barriers.place(&mut access.slots, &access.table, mark.barrier(stub));
                    placed.barriers += 1;
                }
                // Without a younger barrier that blocks, this one cannot wait: it is dropped.
                None if lowest => placed.short = true,
                // Neither is there a stub for an older one.
                None => break,
            }
            self.pending.pop_youngest();
        }
        if let Some(mark) = self.frontier {
            if self.unscanned.is_none() || mark.depth > depth {
                self.frontier = None;
            } else if let Some(stub) = self.barriers.take(access.pool, false) {
                self.barriers.place(&mut access.slots, &access.table, mark.barrier(stub));
                self.frontier = None;
                placed.barriers += 1;
            } else {
                placed.short = true;
            }
        }
        placed
    }

    /// Visits frames to the end, or until the budget is spent and a barrier or a foreign call can
    /// block the way. Returns how many.
    fn advance<F: Frames>(&mut self, frames: &mut F, budget: Budget) -> Result<u64, F::Error> {
        let Some(mut scan) = self.unscanned else { return Ok(0) };
        let (first, top) = (scan.frames, scan.at.depth);
        loop {
            let stop = scan.next_stop(top, budget);
            // The frame that spends the budget is not among them.
            let most = budget.frames.saturating_sub(scan.frames - first + 1);
            scan.frames += frames.visit_plain(stop, most);
            let Some(slot) = frames.visit()? else { break };
            scan.frames += 1;
            if scan.until.is_some_and(|b| b.depth == slot) {
                break;
            }
            if scan.reached != 0 && frames.may_rest() && frames.position().depth < scan.reached {
                scan.until = None;
                self.complete(scan);
                return Ok(scan.frames - first);
            }
            let spent =
                scan.frames - first >= budget.frames || top.saturating_sub(slot) >= budget.bytes;
            let due = scan.is_due(slot);
            if slot == 0 || !(spent || due) {
                continue;
            }
            let legal = frames.refusal().is_none();
            let (frame, signed) = (scan.frames as i64, frames.is_signed());
            if legal && due {
                // A refusal does not use up the distance: the next older frame is tried.
                self.pending.add_oldest(Placement { depth: slot, frame, signed });
                scan.use_up(slot);
            }
            if spent && (legal || frames.may_rest()) {
                scan.at = frames.position();
                if legal {
                    self.frontier = (!due).then_some(Placement { depth: slot, frame, signed });
                } else {
                    self.frontier = None;
                    self.rest = Some(scan.at.depth);
                }
                self.unscanned = Some(scan);
                return Ok(scan.frames - first);
            }
        }
        // It ends at no foreign call: the frames are counted exactly.
        scan.reached = 0;
        self.complete(scan);
        Ok(scan.frames - first)
    }

    fn complete(&mut self, scan: Unscanned) {
        (self.unscanned, self.frontier, self.rest) = (None, None, None);
        match scan.until {
            None if scan.reached != 0 => self.oldest = self.oldest.max(scan.frames as i64),
            None => self.oldest = scan.frames as i64,
            // Older frames keep the numbers that an earlier scan has given them.
            Some(until) => self.renumber_younger(until.depth, until.frame - scan.frames as i64),
        }
    }
}

#[cfg(all(test, stackmark_loom))]
mod models;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
