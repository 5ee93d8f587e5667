//! Where the frames of a trace have saved registers.

use crate::arch::CALLEE_SAVED;
use crate::rule::{PackedRule, SavedBits};
use crate::rule_cache::LATELY;

/// The latest frames of a walk, before the search for their saved registers. For each register only
/// the oldest frame that has saved it counts; a search from the oldest frame on soon finds that
/// one.
pub(crate) struct SavedLately<'t> {
    /// Where each register was saved, of all frames before.
    pub(crate) slots: &'t mut [usize; CALLEE_SAVED.len()],
    /// Rules and CFAs.
    pub(crate) frames: &'t mut [(PackedRule, usize); LATELY],
    pub(crate) count: usize,
    /// The registers that any of the frames has saved.
    pub(crate) any: SavedBits,
}

impl SavedLately<'_> {
    /// Notes a frame with this rule and CFA.
    #[inline]
    pub(crate) fn note(&mut self, rule: PackedRule, cfa: usize) {
        if self.count == LATELY {
            self.settle();
        }
        self.frames[self.count % LATELY] = (rule, cfa);
        self.count += 1;
        self.any |= rule.saved_bits();
    }

    /// Finds where the frames noted so far have saved registers.
    #[inline]
    pub(crate) fn settle(&mut self) {
        // By value, so that count and bits stay in machine registers from frame to frame.
        settle(self.slots, &self.frames[..self.count.min(LATELY)], self.any);
        (self.count, self.any) = (0, 0);
    }
}

/// Finds for each register in `any` where a frame saved it last.
#[inline(never)]
fn settle(slots: &mut [usize; CALLEE_SAVED.len()], frames: &[(PackedRule, usize)], any: SavedBits) {
    let mut missing = 0;
    for register in (0..CALLEE_SAVED.len()).map(PackedRule::register_bits) {
        missing |= if any & register != 0 { register } else { 0 };
    }
    for (rule, cfa) in frames.iter().rev() {
        if missing == 0 {
            break;
        }
        for (i, slot) in slots.iter_mut().enumerate() {
            let register = PackedRule::register_bits(i);
            if rule.saved_bits() & missing & register != 0 {
                *slot = cfa.wrapping_sub(rule.saved(i));
                missing &= !register;
            }
        }
    }
}
