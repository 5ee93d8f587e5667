//! Where the frames of a trace have saved registers, found when it is asked.
//!
//! A trace that asks for no register notes none. Once in a while it leaves a checkpoint: where it
//! stood, and which registers the frames from there on have saved. To find a register, the frames
//! behind the latest checkpoint of which any has saved it are walked again.

use std::cell::Cell;

use crate::arch::CALLEE_SAVED;
use crate::rule::{PackedRule, SavedBits};

/// The number of checkpoints for which there is room. Where it is full, two become one, and those
/// to come lie twice as far apart.
pub(crate) const CHECKPOINTS: usize = 128;
/// Bytes of stack from one checkpoint to the next, at first.
const INTERVAL: usize = 4096;
/// The place of a register whose frames are not found again, since memory has changed meanwhile. It
/// is no address of a word.
const LOST: usize = usize::MAX;

/// A frame of a trace, and which registers the frames from it on to the next checkpoint have saved;
/// those of the latest one, up to the frame where the trace stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checkpoint {
    /// The pc, or the byte before a return address.
    pub(crate) at: usize,
    pub(crate) sp: usize,
    pub(crate) fp: usize,
    pub(crate) any: SavedBits,
}

/// Where each callee-saved register was saved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slots([usize; CALLEE_SAVED.len()]);

impl Slots {
    /// Where register `index` was saved.
    pub(crate) fn get(&self, index: usize) -> Slot {
        match self.0[index] {
            0 => Slot::Kept,
            LOST => Slot::Lost,
            at => Slot::At(at),
        }
    }

    /// Notes that a frame has saved it there; 0 if its value is in the register.
    pub(crate) fn set(&mut self, index: usize, at: usize) {
        self.0[index] = at;
    }

    /// Notes what a frame with this rule and CFA has saved.
    #[inline]
    pub(crate) fn save(&mut self, rule: PackedRule, cfa: usize) {
        for (i, slot) in self.0.iter_mut().enumerate() {
            let below = rule.saved(i);
            *slot = if below == 0 { *slot } else { cfa.wrapping_sub(below) };
        }
    }
}

/// Where a register was saved.
pub(crate) enum Slot {
    /// Nowhere so far: its value is still in the register.
    Kept,
    At(usize),
    Lost,
}

/// What a trace knows of saved registers.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// Where each was saved before the first checkpoint.
    slots: Cell<Slots>,
    /// The checkpoints since, which lie in the cache.
    count: Cell<usize>,
    interval: usize,
    /// The stack pointer from which on the next one is due.
    mark: usize,
}

/// All registers of which any frame has saved a part.
const ALL: SavedBits = SavedBits::MAX;

impl Saved {
    /// What is known where nothing waits to be found.
    pub(crate) fn slots(&self) -> &Cell<Slots> {
        debug_assert!(self.count.get() == 0, "frames since a checkpoint");
        &self.slots
    }

    /// Forgets where registers were saved: their values are in the registers.
    pub(crate) fn clear(&mut self) {
        *self = Saved::default();
    }

    /// Begins to note frames, or goes on with it, at the frame of `here`. Yields the stack pointer
    /// at which [`leave`](Saved::leave) is due.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        points: &mut [Checkpoint; CHECKPOINTS],
        here: Checkpoint,
    ) -> usize {
        if self.count.get() == 0 {
            points[0] = here;
            self.count.set(1);
            self.interval = INTERVAL;
            self.mark = here.sp.saturating_add(INTERVAL);
        } else if here.sp >= self.mark {
            self.leave(points, 0, here);
        }
        self.mark
    }

    /// Notes which registers the frames since the latest checkpoint have saved.
    #[inline]
    pub(crate) fn note(&mut self, points: &mut [Checkpoint; CHECKPOINTS], any: SavedBits) {
        let latest = (self.count.get().wrapping_sub(1)) % CHECKPOINTS;
        points[latest].any |= any;
    }

    /// Leaves a checkpoint at the frame of `here`. Yields where the next one is due.
    #[cold]
    #[inline(never)]
    pub(crate) fn leave(
        &mut self,
        points: &mut [Checkpoint; CHECKPOINTS],
        any: SavedBits,
        here: Checkpoint,
    ) -> usize {
        self.note(points, any);
        let mut count = self.count.get();
        if count == CHECKPOINTS {
            for i in 0..CHECKPOINTS / 2 {
                let any = points[2 * i].any | points[2 * i + 1].any;
                points[i] = Checkpoint { any, ..points[2 * i] };
            }
            count /= 2;
            self.interval = self.interval.saturating_mul(2);
        }
        points[count] = here;
        self.count.set(count + 1);
        self.mark = here.sp.saturating_add(self.interval);
        self.mark
    }

    /// Finds where the frames up to the one with the stack pointer `end` have saved registers.
    /// `again` walks from a checkpoint to a stack pointer, and notes what frames save; false if it
    /// does not come there.
    #[inline]
    pub(crate) fn settle(
        &self,
        points: &[Checkpoint; CHECKPOINTS],
        end: usize,
        again: impl FnMut(&Checkpoint, usize, &mut Slots) -> bool,
    ) {
        if self.count.get() != 0 {
            self.settle_all(points, end, again);
        }
    }

    #[cold]
    fn settle_all(
        &self,
        points: &[Checkpoint; CHECKPOINTS],
        mut end: usize,
        mut again: impl FnMut(&Checkpoint, usize, &mut Slots) -> bool,
    ) {
        let points = &points[..self.count.take()];
        let mut slots = self.slots.get();
        let mut missing = ALL;
        for point in points.iter().rev() {
            let wanted = point.any & missing;
            if wanted != 0 {
                let mut found = Slots::default();
                let comes = again(point, end, &mut found);
                for (i, slot) in slots.0.iter_mut().enumerate() {
                    let register = PackedRule::register_bits(i);
                    // The frame behind the last one may be all that saves it.
                    if wanted & register != 0 && (found.0[i] != 0 || !comes) {
                        missing &= !register;
                        *slot = if comes { found.0[i] } else { LOST };
                    }
                }
            }
            end = point.sp;
        }
        self.slots.set(slots);
    }
}
