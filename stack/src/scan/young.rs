//! The young part of each stack, kept within its bound: invariant 12 in
//! `protocol/frontier/young.rs`.

use super::live::ScanError;
use super::visit;
use crate::goroutine::Goroutine;
use crate::protocol::StackScan;
use crate::runtime::Runtime;
use std::sync::atomic::Ordering;

fn depth(goroutine: &Goroutine) -> usize {
    goroutine.bounds().end - goroutine.header.sched.sp.load(Ordering::Relaxed)
}

/// Whether the goroutine, at a poll, has come to the bound of its young part.
#[inline]
pub(crate) fn is_at_bound(goroutine: &Goroutine) -> bool {
    goroutine.bound().is_some_and(|bound| depth(goroutine) >= bound)
}

/// Visits the young part of a stack that the present cycle has scanned.
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// As for [`visit::begin`].
pub(super) unsafe fn catch_up(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
) -> Result<(), ScanError> {
    // SAFETY: our contract.
    let visited = unsafe {
        visit::catch_up(runtime, goroutine, scan, &|words: &[usize]| runtime.roots(words))?
    };
    runtime.statistics.counters.scanned_stopped.fetch_add(visited, Ordering::Relaxed);
    bound(runtime, goroutine, scan);
    Ok(())
}

/// Sets the bound of a goroutine at the place that it has stopped or called out at, if the cycle
/// bounds young parts. The goroutine itself or its holder calls it.
pub(crate) fn bound(runtime: &Runtime, goroutine: &Goroutine, scan: &StackScan) {
    if runtime.cycle.bounds_young() {
        let bound = scan.polls_at(depth(goroutine), runtime.config.young_bound());
        goroutine.set_bound(Some(bound));
    }
}

/// The same for the goroutine of this thread, which is about to run an older frame, whose stack
/// pointer is at `depth`. Until it has visited its young part it may not push further.
pub(super) fn lower_bound(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &StackScan,
    depth: usize,
) {
    let bound = scan.polls_at(depth, runtime.config.young_bound());
    goroutine.set_bound(Some(goroutine.bound().map_or(bound, |before| bound.min(before))));
}
