//! What the growth of the heap sets off: cycles and assists.

use std::sync::Weak;

use super::state::CollectorState;
use crate::generation::Generation;
use crate::heap::Heap;
use crate::heap_owner::GrowthListener;

/// Hears of the heap's growth. Weak, since the collector refers to the heap.
pub(super) struct CollectOnGrowth<H: Heap>(pub(super) Weak<CollectorState<H>>);

impl<H: Heap> GrowthListener for CollectOnGrowth<H> {
    fn reached_trigger(&self) {
        if let Some(collector) = self.0.upgrade() {
            collector.requests.add(Generation::Young, None);
        }
    }

    fn handed_out(&self, bytes: usize) {
        if let Some(collector) = self.0.upgrade() {
            collector.assists.assist(&collector.marking, collector.runtime.observed(), bytes);
        }
    }
}
