//! The scan of one stack, a little at a time: where it has come to, the frontier that keeps the
//! goroutine out of what nobody has visited, and the mark barriers that bound the next look at what
//! it has left behind.
//!
//! Plain Rust without raw memory, over [`Frames`], [`Slots`] and [`Table`], so that models run this
//! very code. All of it happens under the goroutine's `scan_lock`. The *owner* is the goroutine
//! itself, at a poll or a hit or on its way out of frames, or who holds it while it stands still. A
//! *worker* is anybody else.
//!
//! Invariants, besides those of [`barrier`](crate::barrier):
//!
//! 6. *Frozen*: frames at and beyond `unscanned.at` have not run since the scan began, and are as
//!    they were then but for stores that went through the write barrier.
//! 7. *Blocking*: while something is unscanned and the goroutine runs managed code, then either an
//!    unhit barrier lies in a frame that this scan has visited (the youngest such is the frontier),
//!    or all running frames are younger than a foreign call at `rest`, whose return comes by
//!    [`StackScan::protect`].
//! 8. *Reading*: a worker only visits frozen frames. What it would place it leaves in `pending`, in
//!    frames that are visited and still frozen, since an unhit barrier or `rest` blocks the way to
//!    them, too; the owner places it before it comes there.
//! 9. *Bounded*: what lies younger than the lowest unhit barrier, or than `rest`, is what has
//!    changed since its visit. Mark barriers lie at doublings of the distance from the stack
//!    pointer that the scan began at, so that this is at most twice what was touched since; where
//!    scans began again, since the one that began at the largest depth after the last whole one, as
//!    barriers beyond what they visit stay where that has put them.
//! 10. *Epochs*: a scan belongs to one cycle. A worker that comes with another cycle's number does
//!     nothing. The barriers of a complete scan outlive its cycle, and with them what invariant 6
//!     says of the frames beyond: a later scan may begin where they leave off
//!     ([`StackScan::begin_again`]), or, of a goroutine that has not run, not at all
//!     ([`StackScan::keep`]).
//! 11. *Leaving*: before the owner runs an older frame than the one it was in, in whatever way,
//!     everything younger is settled and invariant 7 holds again: [`StackScan::hit`] and
//!     [`StackScan::leave`], each followed by [`StackScan::protect`].
//!
//! After "Incremental stack scanning with return barriers" as in Cheng, Harper and Lee,
//! "Generational stack collection and profile-driven pretenuring" (PLDI 1998), and Yuasa, Nakagawa
//! et al., "Return barrier" (2002).

use crate::barrier::{Barrier, BarrierList, Settled, Slots, StubPool, Table, UnknownHit};
use crate::stats::Refusal;
use crate::sync::{LeftOut, left_out};

/// A place in a stack from which a walk can go on, also after the stack has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The pc of the frame that stands there.
    pub pc: usize,
    /// Depth of its stack pointer.
    pub depth: usize,
    /// The frame pointer there.
    pub fp: FramePointer,
}

/// What a frame pointer register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramePointer {
    /// The address of the stack at this depth.
    Depth(usize),
    /// Something else.
    Word(usize),
}

/// The frames of one stack, from some place on, youngest first.
pub trait Frames {
    /// Why they cannot be walked.
    type Error;
    /// Visits the roots of the next older frame. `None` behind the oldest; else the depth of the
    /// frame's return slot, or 0 if it has none.
    ///
    /// # Errors
    /// The stack cannot be walked.
    fn visit(&mut self) -> Result<Option<usize>, Self::Error>;
    /// Why no barrier may lie in the return slot of the frame visited last.
    fn refusal(&self) -> Option<Refusal>;
    /// Whether the next frame is a foreign call that the goroutine can only come back to through
    /// [`StackScan::protect`]: the one visited last is that of a callback.
    fn may_rest(&self) -> bool;
    /// Where the next frame stands.
    fn position(&self) -> Position;
}

/// How much is visited in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Frames.
    pub frames: u64,
    /// Bytes of stack.
    pub bytes: usize,
}

impl Budget {
    /// All that there is.
    pub const WHOLE: Budget = Budget { frames: u64::MAX, bytes: usize::MAX };
}

/// How far apart mark barriers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// At so many bytes from where the scan began, and at each doubling of that.
    Doubling(usize),
    /// In every frame that may have one.
    EveryFrame,
    /// None.
    Never,
}

/// A slot in which a barrier is to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    depth: usize,
    frames: u64,
}

/// A scan that has not come to its end.
#[derive(Clone, Copy, Debug)]
struct Unscanned {
    at: Position,
    /// Depth of the stack pointer that it began at.
    from: usize,
    spacing: Spacing,
    /// Frames visited so far.
    frames: u64,
    /// The frame that owns this return slot is the last one: beyond it an earlier scan's barriers
    /// still hold.
    until: Option<Barrier>,
    /// No foreign call at less depth has returned since an earlier scan visited it: there it ends,
    /// too.
    reached: usize,
}

impl Unscanned {
    fn is_due(&self, slot: usize) -> bool {
        match self.spacing {
            Spacing::Doubling(distance) => self.from.saturating_sub(slot) >= distance,
            Spacing::EveryFrame => true,
            Spacing::Never => false,
        }
    }

    /// One barrier per slot, also where one huge frame spans several doublings: the ones passed are
    /// used up.
    fn use_up(&mut self, slot: usize) {
        if let Spacing::Doubling(distance) = &mut self.spacing {
            while self.from.saturating_sub(slot) >= *distance {
                *distance *= 2;
            }
        }
    }
}

/// By what means barriers are placed.
#[derive(Debug)]
pub struct Means<'p, S, T> {
    /// The return slots of the stack.
    pub slots: S,
    /// Where return addresses are saved.
    pub table: T,
    /// Where stubs come from.
    pub pool: &'p StubPool,
}

/// What an operation did to the barriers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames visited.
    pub frames: u64,
    /// Barriers placed.
    pub placed: u64,
    /// Barriers removed from frames that are not frozen any more.
    pub removed: u64,
    /// Scans that were finished in one go because there was no stub for a frontier.
    pub whole: u64,
}

/// What a scan that begins again has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// What became of earlier barriers.
    pub settled: Settled,
    /// Barriers placed that were pending.
    pub placed: u64,
    /// Frames beyond the lowest unhit barrier: they are not visited.
    pub beyond: u64,
}

/// The state of one goroutine's scan, and its barriers.
#[derive(Debug, Default)]
pub struct StackScan {
    barriers: BarrierList,
    epoch: u64,
    unscanned: Option<Unscanned>,
    /// Mark barriers that a worker has found places for, youngest first.
    pending: Vec<Mark>,
    /// Where the frontier goes next.
    frontier: Option<Mark>,
    /// Depth of the foreign call that stands in for the frontier.
    rest: Option<usize>,
    /// Frames of the stack when the last whole scan was complete.
    frames: u64,
    /// The smallest depth that [`StackScan::protect`] or [`StackScan::calls_back`] was called with
    /// since the scan began: no foreign call beyond it has returned or calls back.
    reached: usize,
}

impl StackScan {
    /// The barriers that have not been hit.
    pub fn barriers(&self) -> &BarrierList {
        &self.barriers
    }

    /// The cycle that the last scan belongs to.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether every frame has been visited.
    pub fn is_complete(&self) -> bool {
        self.unscanned.is_none()
    }

    /// How far a rescan goes, if the scan is complete: the depth of the return slot of the last
    /// frame that may have changed since its visit, and how many frames lie beyond. `None`: to the
    /// end.
    pub fn limit(&self) -> Option<(usize, u64)> {
        let lowest = self.barriers.lowest().map(|b| (b.depth, b.frames));
        // What is pending is visited and blocked (invariant 8).
        let pending = self.pending.first().map(|mark| (mark.depth, mark.frames));
        lowest.max(pending).map(|(depth, frames)| (depth, self.frames.saturating_sub(frames)))
    }

    /// Begins a scan of the whole stack from `at`, the youngest frame of a goroutine that stands
    /// still. Earlier barriers go. `foreign`: it is InForeign. Followed by [`StackScan::protect`].
    pub fn begin<S: Slots, T: Table>(
        &mut self,
        means: &mut Means<'_, S, T>,
        epoch: u64,
        at: Position,
        spacing: Spacing,
        foreign: bool,
    ) -> Settled {
        let settled =
            self.barriers.remove_all(&mut means.slots, &means.table, means.pool, at.depth, foreign);
        self.pending.clear();
        (self.frontier, self.rest, self.epoch, self.reached) = (None, None, epoch, usize::MAX);
        self.unscanned =
            Some(Unscanned { at, from: at.depth, spacing, frames: 0, until: None, reached: 0 });
        settled
    }

    /// Begins to visit again what has changed since the last scan, which is complete: the frames
    /// from `at` up to the owner of the lowest unhit barrier. Followed by [`StackScan::protect`].
    ///
    /// The last scan may be an earlier cycle's: a short scan. Then what it has visited is old, and
    /// stays where it is; and whatever was stored since into frames beyond the barrier has gone
    /// through the write barrier, or [`StackScan::thaw`] came first.
    pub fn begin_again<S: Slots, T: Table>(
        &mut self,
        means: &mut Means<'_, S, T>,
        epoch: u64,
        at: Position,
        spacing: Spacing,
        foreign: bool,
    ) -> Again {
        debug_assert!(self.is_complete(), "one scan at a time");
        let mut settled = self.barriers.leave(means.pool, at.depth);
        let placed = self.place_pending(means, at.depth);
        if spacing != Spacing::EveryFrame {
            settled.removed = self.barriers.thin_out(
                &mut means.slots,
                &means.table,
                means.pool,
                at.depth,
                foreign,
            );
        }
        let (until, reached) = (self.barriers.lowest(), self.reached);
        (self.rest, self.epoch, self.reached) = (None, epoch, usize::MAX);
        self.unscanned = Some(Unscanned { at, from: at.depth, spacing, frames: 0, until, reached });
        let beyond = until.map_or(0, |until| self.frames.saturating_sub(until.frames));
        Again { settled, placed, beyond }
    }

    /// Whether the last scan is that of cycle `kept`, not 0, which a later one may go on from.
    pub fn is_kept(&self, kept: u64) -> bool {
        kept != 0 && self.epoch == kept || left_out(LeftOut::Kept)
    }

    /// The goroutine has not run since its last scan, which is complete, and nothing has changed
    /// there without the write barrier: the scan is cycle `epoch`'s, too. Returns how many frames
    /// need not be visited.
    pub fn keep(&mut self, epoch: u64) -> u64 {
        debug_assert!(self.is_complete(), "what nobody has visited is no old cycle's");
        self.epoch = epoch;
        self.frames
    }

    /// The owner is about to run the frame whose stack pointer is at `depth`, and has settled what
    /// is younger: makes invariant 7 true, visiting frames where nobody has.
    ///
    /// # Errors
    /// The stack cannot be walked.
    pub fn protect<F: Frames, S: Slots, T: Table>(
        &mut self,
        means: &mut Means<'_, S, T>,
        depth: usize,
        budget: Budget,
        mut frames: impl FnMut(Position) -> F,
    ) -> Result<Tally, F::Error> {
        let mut tally = Tally::default();
        let mut walk: Option<F> = None;
        self.reached = self.reached.min(depth);
        loop {
            tally.placed += self.place_pending(means, depth);
            let Some(unscanned) = self.unscanned else { return Ok(tally) };
            if self.is_blocked(&unscanned, depth) {
                return Ok(tally);
            }
            if left_out(LeftOut::Frontier) && tally.frames > 0 {
                return Ok(tally);
            }
            // There was a place for a frontier and no stub.
            let short = self.frontier.is_some() || !self.pending.is_empty();
            tally.whole += u64::from(short);
            let walk = walk.get_or_insert_with(|| frames(unscanned.at));
            tally.frames += self.advance(walk, if short { Budget::WHOLE } else { budget })?;
        }
    }

    /// Invariant 7, for a goroutine whose youngest frame is at `depth`. Barriers lie in visited
    /// frames only, or beyond `until`.
    fn is_blocked(&self, unscanned: &Unscanned, depth: usize) -> bool {
        self.barriers.lowest().is_some_and(|b| b.depth > unscanned.at.depth)
            || self.rest.is_some_and(|rest| rest < depth)
    }

    /// Visits frozen frames on behalf of cycle `epoch`, as many as the budget allows. The frames
    /// visited; 0 if there was nothing to do.
    ///
    /// # Errors
    /// The stack cannot be walked.
    pub fn visit_frozen<F: Frames>(
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

    /// The goroutine returns through `stub` in the slot at `depth`: the slot gets its return
    /// address back. Followed by [`StackScan::protect`] with the depth of the caller's stack
    /// pointer.
    ///
    /// # Errors
    /// [`UnknownHit`].
    pub fn hit<S: Slots, T: Table>(
        &mut self,
        means: &mut Means<'_, S, T>,
        depth: usize,
        stub: u32,
    ) -> Result<Settled, UnknownHit> {
        self.barriers.hit(&mut means.slots, &means.table, means.pool, depth, stub)
    }

    /// The goroutine has left all frames with return slots deeper than `depth` without returning
    /// through them. Followed by [`StackScan::protect`] unless it has ended.
    pub fn leave(&mut self, pool: &StubPool, depth: usize) -> Settled {
        self.barriers.leave(pool, depth)
    }

    /// The goroutine has ended.
    pub fn end(&mut self, pool: &StubPool) -> Settled {
        let settled = self.barriers.leave(pool, 0);
        self.barriers.settle_limbo(pool);
        self.pending.clear();
        // Another goroutine may get this record, in the same cycle: nothing of it has been visited.
        (self.unscanned, self.frontier, self.rest, self.frames) = (None, None, None, 0);
        (self.epoch, self.reached) = (0, 0);
        settled
    }

    /// The goroutine, whose youngest frame is at `depth`, is about to change the word at depth
    /// `word` without the write barrier: the frame that it lies in has been visited when this
    /// returns, and counts as touched.
    ///
    /// # Errors
    /// The stack cannot be walked.
    pub fn thaw<F: Frames, S: Slots, T: Table>(
        &mut self,
        means: &mut Means<'_, S, T>,
        depth: usize,
        word: usize,
        mut frames: impl FnMut(Position) -> F,
    ) -> Result<Tally, F::Error> {
        let mut visited = 0;
        while let Some(unscanned) = self.unscanned.filter(|unscanned| unscanned.at.depth >= word) {
            visited += self.advance(&mut frames(unscanned.at), Budget { frames: 1, bytes: 0 })?;
        }
        let removed =
            self.barriers.remove_younger(&mut means.slots, &means.table, means.pool, word);
        self.pending.retain(|mark| mark.depth < word);
        self.reached = 0;
        let mut tally = self.protect(means, depth, Budget { frames: 1, bytes: 0 }, frames)?;
        tally.frames += visited;
        tally.removed = removed.into();
        Ok(tally)
    }

    /// The goroutine calls back into managed code from a foreign call at `depth`: frames there have
    /// run.
    pub fn calls_back(&mut self, depth: usize) {
        self.reached = self.reached.min(depth);
    }

    /// Whether a rescan can stop behind the callback frame that returns to a foreign call at
    /// `depth`: nothing there has run since its visit.
    pub fn is_frozen(&self, depth: usize) -> bool {
        self.is_complete() && depth < self.reached
    }

    /// Depth of the youngest frame that nobody has visited; `None` if the scan is complete.
    pub fn unscanned_depth(&self) -> Option<usize> {
        self.unscanned.map(|unscanned| unscanned.at.depth)
    }

    /// Checks invariants 1, 2 and 7 for a goroutine whose youngest frame is at `depth`: for
    /// debugging.
    ///
    /// # Panics
    /// If one of them does not hold.
    pub fn check(&self, slots: &impl Slots, table: &impl Table, depth: usize) {
        for barrier in self.barriers.unhit().iter().filter(|b| b.depth <= depth) {
            assert_eq!(
                slots.read(barrier.depth),
                table.hijacked_word(barrier.stub),
                "the slot of {barrier:?}"
            );
        }
        if let Some(unscanned) = self.unscanned {
            assert!(self.is_blocked(&unscanned, depth), "nothing blocks the way to {unscanned:?}");
        }
    }

    /// Places what a worker, or the owner itself, has found places for, younger ones first; all but
    /// what lies in frames younger than `depth`, which are gone. Returns how many.
    fn place_pending<S: Slots, T: Table>(
        &mut self,
        means: &mut Means<'_, S, T>,
        depth: usize,
    ) -> u64 {
        if left_out(LeftOut::Frontier) {
            self.pending.clear();
            self.frontier = None;
        }
        let mut placed = 0;
        let mut kept = 0;
        for i in 0..self.pending.len() {
            let mark = self.pending[i];
            if mark.depth > depth {
                continue;
            }
            // The lowest one is dear, those beyond it can wait until it is hit.
            let lowest = self.barriers.lowest().is_none_or(|b| b.depth < mark.depth);
            let stub = if lowest { means.pool.take() } else { means.pool.take_if_plenty() };
            match stub {
                Some(stub) => {
                    self.barriers.place(
                        &mut means.slots,
                        &means.table,
                        Barrier { depth: mark.depth, stub, frames: mark.frames },
                    );
                    placed += 1;
                }
                // Only what something younger blocks the way to can wait.
                None if lowest => {}
                None => {
                    self.pending[kept] = mark;
                    kept += 1;
                }
            }
        }
        self.pending.truncate(kept);
        if let Some(mark) = self.frontier {
            if self.unscanned.is_none() || mark.depth > depth {
                self.frontier = None;
            } else if let Some(stub) = means.pool.take() {
                self.barriers.place(
                    &mut means.slots,
                    &means.table,
                    Barrier { depth: mark.depth, stub, frames: mark.frames },
                );
                self.frontier = None;
                placed += 1;
            }
        }
        placed
    }

    /// Visits frames until the budget is used up and the scan can rest, or to the end. Returns how
    /// many.
    fn advance<F: Frames>(&mut self, frames: &mut F, budget: Budget) -> Result<u64, F::Error> {
        let Some(mut scan) = self.unscanned else { return Ok(0) };
        let (first, top) = (scan.frames, scan.at.depth);
        while let Some(slot) = frames.visit()? {
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
            if legal && due {
                // A refusal does not use up the distance: the next older frame is tried.
                self.pending.push(Mark { depth: slot, frames: scan.frames });
                scan.use_up(slot);
            }
            if spent && (legal || frames.may_rest()) {
                scan.at = frames.position();
                if legal {
                    self.frontier = (!due).then_some(Mark { depth: slot, frames: scan.frames });
                } else {
                    self.frontier = None;
                    self.rest = Some(scan.at.depth);
                }
                self.unscanned = Some(scan);
                return Ok(scan.frames - first);
            }
        }
        self.complete(scan);
        Ok(scan.frames - first)
    }

    fn complete(&mut self, scan: Unscanned) {
        (self.unscanned, self.frontier, self.rest) = (None, None, None);
        match scan.until {
            None if scan.reached != 0 => self.frames = self.frames.max(scan.frames),
            None => self.frames = scan.frames,
            // From now on everything is counted from where this scan began.
            Some(until) => {
                self.frames = (self.frames + scan.frames).saturating_sub(until.frames);
                self.barriers.count_from(until.depth, scan.frames.wrapping_sub(until.frames));
            }
        }
    }
}

#[cfg(all(test, stackmark_loom))]
mod models;
