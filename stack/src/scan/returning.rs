//! What becomes of barriers and scans when a goroutine leaves frames: by a return through a
//! barrier, without a return, or by a return to a foreign call.

use super::live;
use super::visit;
use crate::goroutine::Goroutine;
use crate::protocol::StackScan;
use crate::runtime::{Activity, Runtime, stubs};
use std::sync::atomic::Ordering;

/// The goroutine of this thread returns through the stub in `slot`.
pub(crate) fn hit(runtime: &Runtime, goroutine: &Goroutine, slot: usize, stub: usize) {
    let _span = runtime.statistics.observed.span(Activity::BarrierHit, goroutine.id());
    let bounds = goroutine.bounds();
    let depth = bounds.end - slot;
    let mut scan = goroutine.scan_lock();
    // SAFETY: the goroutine is Running on this thread: it writes its own slots.
    let mut access = unsafe { live::access(bounds) };
    let settled =
        scan.hit(&mut access, depth, stub as u32).unwrap_or_else(|error| runtime.fatal(&error));
    runtime.statistics.counters.hit.fetch_add(settled.hit.into(), Ordering::Relaxed);
    runtime
        .statistics
        .counters
        .leapfrogged
        .fetch_add(settled.leapfrogged.into(), Ordering::Relaxed);
    protect(runtime, goroutine, &mut scan, depth - size_of::<usize>());
}

/// The goroutine of this thread has left all frames younger than the one whose stack pointer is at
/// `depth`, without returning from them. It is about to run that frame.
pub(crate) fn leave_frames(runtime: &Runtime, goroutine: &Goroutine, depth: usize) {
    let mut scan = goroutine.scan_lock();
    let settled = scan.leave(stubs(), depth);
    runtime
        .statistics
        .counters
        .leapfrogged
        .fetch_add(settled.leapfrogged.into(), Ordering::Relaxed);
    protect(runtime, goroutine, &mut scan, depth);
}

/// The goroutine of this thread comes back to the frame of its foreign call, whose
/// stack pointer is at `depth`.
pub(crate) fn come_back(runtime: &Runtime, goroutine: &Goroutine, depth: usize) {
    protect(runtime, goroutine, &mut goroutine.scan_lock(), depth);
}

fn protect(runtime: &Runtime, goroutine: &Goroutine, scan: &mut StackScan, depth: usize) {
    // SAFETY: the goroutine is on its way out of frames, on this thread.
    let visited = unsafe { visit::protect(runtime, goroutine, scan, depth) };
    let visited = visited.unwrap_or_else(|error| runtime.fatal(&error));
    runtime.statistics.counters.scanned_returning.fetch_add(visited, Ordering::Relaxed);
}
