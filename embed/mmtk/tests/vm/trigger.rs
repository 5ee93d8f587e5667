//! When ConcurrentImmix collects. MMTk's `stress_factor` would make each collection one pause.

use super::binding::TestVm;
use mmtk::plan::Plan;
use mmtk::util::heap::{GCTriggerPolicy, SpaceStats};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const PAGE: usize = 4096;
/// What the heap may have.
const HEAP: usize = (48 << 20) / PAGE;

/// The fewest bytes from one collection to the next: MMTk asks at each new block of 32 KB, of which
/// each of two threads may have got one.
const FEWEST: usize = 64 << 10;

/// Bytes from one collection to the next, about.
pub(crate) static EVERY: AtomicUsize = AtomicUsize::new(0);

/// Begins to mark after each [`EVERY`] bytes.
pub(crate) struct Often;

impl GCTriggerPolicy<TestVm> for Often {
    fn is_gc_required(
        &self,
        space_full: bool,
        space: Option<SpaceStats<TestVm>>,
        plan: &dyn Plan<VM = TestVm>,
    ) -> bool {
        plan.collection_required(space_full, space)
    }

    fn is_heap_full(&self, plan: &dyn Plan<VM = TestVm>) -> bool {
        plan.get_reserved_pages() > HEAP
    }

    /// The plan begins to mark each time that half of it has been allocated.
    fn get_current_heap_size_in_pages(&self) -> usize {
        2 * EVERY.load(Relaxed).max(FEWEST) / PAGE
    }

    fn get_max_heap_size_in_pages(&self) -> usize {
        HEAP
    }

    fn can_heap_size_grow(&self) -> bool {
        false
    }
}
