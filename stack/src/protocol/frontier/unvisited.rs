//! Which frames a scan has yet to visit, for pictures.

use crate::protocol::frontier::StackScan;

impl StackScan {
    /// Whether the present scan has yet to visit the frame whose stack pointer is at `depth` and
    /// whose return slot is at `slot`.
    pub(crate) fn is_unvisited(&self, depth: usize, slot: usize) -> bool {
        self.unscanned.is_some_and(|unscanned| {
            depth <= unscanned.at.depth
                && unscanned.until.is_none_or(|until| slot >= until.depth)
                && depth >= unscanned.reached
        })
    }
}
