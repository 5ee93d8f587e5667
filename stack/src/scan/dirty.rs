//! Goroutines that have run since their scan, and the scans that a goroutine or its holder begins
//! in a cycle.

use super::live::ScanError;
use super::roots::{Root, To};
use super::{moving, visit, young};
use crate::goroutine::Goroutine;
use crate::memory::StackMemory;
use crate::protocol::StackScan;
use crate::runtime::{Activity, OwnScan, Runtime};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Marks a goroutine that has become Running: from now on it may change what was scanned. Called on
/// the thread that runs it.
#[inline]
pub(crate) fn mark_dirty(runtime: &Runtime, goroutine: &Arc<Goroutine>) {
    if runtime.cycle.begins_to_run(goroutine) {
        young::bound(runtime, goroutine, &goroutine.scan_lock());
        runtime.cycle.help_rescan(goroutine, |goroutine, scan| {
            let _span = runtime.observed().span(Activity::Scan, goroutine.id());
            // SAFETY: the goroutine is held.
            let caught = unsafe { catch_up(runtime, goroutine, scan) };
            caught.unwrap_or_else(|error| runtime.fatal(&error));
        });
    }
}

/// Whether [`mark_dirty`] has nothing to do.
#[inline]
pub(crate) fn is_dirty(runtime: &Runtime, goroutine: &Goroutine) -> bool {
    runtime.cycle.is_dirty(goroutine)
}

/// Visits what has changed of a stack: of one that the present cycle has scanned, the young part;
/// otherwise begins the scan. Returns whether it has begun a scan.
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// As for [`visit::begin`].
unsafe fn catch_up(
    runtime: &Runtime,
    goroutine: &Arc<Goroutine>,
    scan: &mut StackScan,
) -> Result<bool, ScanError> {
    let begins = scan.epoch() != runtime.cycle.scanning();
    // SAFETY: our contract.
    unsafe {
        if begins {
            begin_scan(runtime, goroutine, scan, MayMove::No, &|words: &[usize]| {
                runtime.roots(words)
            })?;
        } else {
            young::catch_up(runtime, goroutine, scan)?;
        }
    }
    Ok(begins)
}

/// The goroutine of this thread has come to the bound of its young part: visits it.
///
/// # Safety
/// The goroutine is at a poll on this thread.
#[cold]
pub(crate) unsafe fn catch_up_at_poll(runtime: &Runtime, goroutine: &Arc<Goroutine>) {
    if !runtime.cycle.bounds_young() {
        // Left over from an earlier cycle.
        goroutine.set_bound(None);
        return;
    }
    let _span = runtime.observed().span(Activity::Scan, goroutine.id());
    let begun = OwnScan::begin();
    let mut scan = goroutine.scan_lock();
    // SAFETY: at a poll on this thread, with the lock.
    let begins = unsafe { catch_up(runtime, goroutine, &mut scan) };
    let begins = begins.unwrap_or_else(|error| runtime.fatal(&error));
    drop(scan);
    runtime.statistics.record_own_scan(begun);
    if begins {
        // A scan that begins makes the goroutine clean.
        mark_dirty(runtime, goroutine);
    }
}

/// Keeps the last scan of a held goroutine if it has not run since and this cycle continues that
/// scan. Returns whether it is kept: then this cycle has scanned the goroutine.
/// The roots go to `to`.
pub(crate) fn keep_scan<R: Root>(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    to: To<'_, R>,
) -> bool {
    let kept = !goroutine.dirty.is_dirty()
        && visit::keep(runtime, goroutine, scan, runtime.cycle.scanning(), to);
    if kept {
        runtime.cycle.scanned(goroutine);
    }
    kept
}

/// Whether a scan may move or shrink the stack.
pub(crate) enum MayMove<'m> {
    /// The stack stays as it is.
    No,
    /// The stack may shrink, by a move into this memory: see [`moving::with_memory_to_shrink`].
    Into(&'m mut Option<StackMemory>),
}

/// Begins a scan: shrinks the stack where that is allowed, visits the youngest frames and blocks
/// the way to the others. The roots go to `to`.
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// As for [`visit::begin`]; with [`MayMove::Into`] also as for [`moving::shrink`].
pub(crate) unsafe fn begin_scan<R: Root>(
    runtime: &Runtime,
    goroutine: &Arc<Goroutine>,
    scan: &mut StackScan,
    may_move: MayMove<'_>,
    to: To<'_, R>,
) -> Result<(), ScanError> {
    let used = goroutine.bounds().end - goroutine.header.sched.sp.load(Ordering::Relaxed);
    if scan.epoch() != runtime.cycle.scanning() {
        runtime.statistics.record_scan(used);
    }
    if let MayMove::Into(memory) = may_move {
        // SAFETY: by our contract.
        unsafe { moving::shrink(runtime, goroutine, scan, memory)? };
    }
    // SAFETY: by our contract.
    let visited = unsafe { visit::begin(runtime, goroutine, scan, runtime.cycle.scanning(), to)? };
    runtime.statistics.counters.scanned_stopped.fetch_add(visited, Ordering::Relaxed);
    if !scan.is_complete() {
        runtime.cycle.push_unscanned(goroutine.clone());
    }
    runtime.statistics.record_frames(visited);
    young::bound(runtime, goroutine, scan);
    // A goroutine that scans itself marks itself again at once: see `scan_own_stack`.
    goroutine.dirty.clear();
    runtime.cycle.scanned(goroutine);
    Ok(())
}

/// Begins the scan of the stack of this thread's goroutine, which was asked for it.
///
/// # Safety
/// The goroutine is at a poll on this thread.
pub(crate) unsafe fn scan_own_stack(runtime: &Runtime, goroutine: &Arc<Goroutine>) {
    if !runtime.cycle.is_scanning() {
        return;
    }
    let _span = runtime.observed().span(Activity::Scan, goroutine.id());
    let begun = OwnScan::begin();
    moving::with_memory_to_shrink(runtime, goroutine, |memory| {
        let mut scan = goroutine.scan_lock();
        if !runtime.cycle.has_scanned(goroutine) {
            let to = |words: &[usize]| runtime.roots(words);
            let may_move = MayMove::Into(memory);
            // SAFETY: at a poll on this thread, with the lock.
            let result = unsafe { begin_scan(runtime, goroutine, &mut scan, may_move, &to) };
            if let Err(error) = result {
                runtime.fatal(&error);
            }
        }
    });
    runtime.statistics.record_own_scan(begun);
    runtime.cycle.notify_scanned();
    mark_dirty(runtime, goroutine);
}
