//! Visiting the roots of one stack.
//!
//! The caller has the goroutine's `scan_lock`. A caller that begins a scan or protects holds the
//! goroutine, or runs on its thread at a poll or on its way out of frames. A caller that visits
//! frozen frames needs only the lock.

use super::live::{self, LiveFrames, LiveSlots, ScanError, youngest};
use super::roots::{Root, RootBuffer, To};
use crate::goroutine::Goroutine;
use crate::protocol::{Budget, Frames, Position, ScanCounts, StackScan, Status};
use crate::runtime::{ImageTable, Runtime, count, count_gone};
use stackmark_unwind::WalkError;
use std::cell::{OnceCell, RefCell};
use std::sync::atomic::Ordering;

/// How much of a stack a visit covers that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Up to and including the frame that owns the lowest unhit barrier.
    Rescan,
    /// The whole stack.
    Verify,
}

/// What a scan visited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visited {
    /// Frames visited.
    pub frames: u64,
    /// Frames that need not be visited. Frames beyond a foreign call that has not returned since
    /// their visit are not counted.
    pub skipped: u64,
}

/// Begins the scan of a stack, and visits at least the frames that the goroutine runs next. If the
/// last scan belongs to the same cycle, or to the cycle that this one continues, scans only what
/// has changed since. The roots go to `to`. Returns the frames visited.
///
/// # Errors
/// [`ScanError`]: the stack cannot be walked; roots may be missing.
///
/// # Safety
/// `scan` is the goroutine's own, under its `scan_lock`; the goroutine is held, or
/// at a poll on this thread.
pub(crate) unsafe fn begin<R: Root>(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    cycle: u64,
    to: To<'_, R>,
) -> Result<u64, ScanError> {
    let bounds = goroutine.bounds();
    let at = youngest(goroutine, &bounds);
    let foreign = goroutine.status() == Status::Foreign;
    let spacing = runtime.config.barriers.spacing();
    // SAFETY: by our contract no other thread writes slots.
    let mut access = unsafe { live::access(bounds) };
    let short = is_kept(runtime, scan);
    if scan.epoch() == cycle && !scan.is_complete() {
        // What has changed is visited now. The workers end the scan.
        // SAFETY: as ours.
        return unsafe { catch_up(runtime, goroutine, scan, to) };
    }
    let settled = if scan.epoch() == cycle || short {
        let again = scan.begin_again(&mut access, cycle, at, spacing, foreign);
        runtime.statistics.counters.placed.fetch_add(again.placed, Ordering::Relaxed);
        if short {
            runtime.statistics.counters.kept.fetch_add(again.beyond, Ordering::Relaxed);
        }
        again.settled
    } else {
        scan.begin(&mut access, cycle, at, spacing, foreign)
    };
    runtime.statistics.counters.settle(settled);
    let roots = RefCell::new(RootBuffer::new(to));
    R::of_goroutine(goroutine, runtime.config.language(), &mut roots.borrow_mut());
    // SAFETY: as ours.
    unsafe { protect_with(runtime, goroutine, scan, at.depth, &roots) }
}

/// Visits the young part of a stack: see [`StackScan::catch_up`]. The roots go to `to`. Returns the
/// frames visited.
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// As for [`begin`]. The last scan belongs to the present cycle.
pub(crate) unsafe fn catch_up<R: Root>(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    to: To<'_, R>,
) -> Result<u64, ScanError> {
    let bounds = goroutine.bounds();
    let at = youngest(goroutine, &bounds);
    let foreign = goroutine.status() == Status::Foreign;
    let spacing = runtime.config.barriers.spacing();
    let (snapshot, roots) = (runtime.code.snapshot(), RefCell::new(RootBuffer::new(to)));
    R::of_goroutine(goroutine, runtime.config.language(), &mut roots.borrow_mut());
    // SAFETY: by our contract no other thread writes slots, and the frames stand still.
    let (mut access, mut frames) = unsafe {
        (live::access(bounds.clone()), LiveFrames::new(runtime, &snapshot, goroutine, at, &roots))
    };
    let caught = scan
        .catch_up(&mut access, at, spacing, foreign, &mut frames)
        .map_err(|error| ScanError { goroutine: goroutine.id(), error })?;
    goroutine.watch(scan);
    runtime.statistics.counters.settle(caught.settled);
    runtime.statistics.counters.placed.fetch_add(caught.placed, Ordering::Relaxed);
    Ok(caught.frames)
}

/// The goroutine is about to run the frame at `at`, and has settled a barrier: see
/// [`StackScan::follow`].
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// The goroutine is on its way out of frames, on this thread.
pub(crate) unsafe fn follow(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    at: Position,
) -> Result<(), ScanError> {
    let (bounds, snapshot) = (goroutine.bounds(), OnceCell::new());
    let roots = RefCell::new(RootBuffer::<usize>::new(&|_| {}));
    // SAFETY: by our contract no other thread writes slots.
    let mut access = unsafe { live::access(bounds.clone()) };
    let placed = scan.follow(&mut access, at, runtime.config.young_bound().step, || {
        let snapshot = snapshot.get_or_init(|| runtime.code.snapshot());
        // SAFETY: the frames stand still by our contract.
        unsafe { LiveFrames::new(runtime, snapshot, goroutine, at, &roots) }
    });
    let placed = placed.map_err(|error| ScanError { goroutine: goroutine.id(), error })?;
    goroutine.watch(scan);
    count(&runtime.statistics.counters.placed, placed);
    Ok(())
}

/// Whether the present cycle continues the goroutine's last scan.
fn is_kept(runtime: &Runtime, scan: &StackScan) -> bool {
    scan.is_kept(runtime.cycle.kept())
}

/// As [`begin`], for a goroutine that has not run since its last scan. Returns false and does
/// nothing if the cycle does not continue that scan.
pub(crate) fn keep<R: Root>(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    cycle: u64,
    to: To<'_, R>,
) -> bool {
    let kept = is_kept(runtime, scan);
    if kept {
        runtime.statistics.counters.kept.fetch_add(scan.keep(cycle), Ordering::Relaxed);
        R::of_goroutine(goroutine, runtime.config.language(), &mut RootBuffer::new(to));
    }
    kept
}

/// The goroutine is about to run the frame whose stack pointer is at `depth`: visits frames and
/// places barriers so that it may ([`StackScan::protect`]). The roots go to `to`. Returns the
/// frames visited.
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// As for [`begin`], or the goroutine is on its way out of frames, on this thread.
#[inline]
pub(crate) unsafe fn protect<R: Root>(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    depth: usize,
    to: To<'_, R>,
) -> Result<u64, ScanError> {
    // SAFETY: our contract is the same.
    unsafe { protect_with(runtime, goroutine, scan, depth, &RefCell::new(RootBuffer::new(to))) }
}

/// As [`protect`]. The roots go to `roots`.
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// As for [`protect`].
#[inline]
unsafe fn protect_with<R: Root>(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    depth: usize,
    roots: &RefCell<RootBuffer<'_, R>>,
) -> Result<u64, ScanError> {
    let (bounds, snapshot) = (goroutine.bounds(), OnceCell::new());
    // SAFETY: by our contract no other thread writes slots.
    let mut access = unsafe { live::access(bounds.clone()) };
    let counts = scan.protect(&mut access, depth, runtime.config.chunk(false), |at| {
        let snapshot = snapshot.get_or_init(|| runtime.code.snapshot());
        // SAFETY: the frames stand still by our contract.
        unsafe { LiveFrames::new(runtime, snapshot, goroutine, at, roots) }
    });
    goroutine.watch(scan);
    count_all(runtime, goroutine, counts)
}

#[inline]
fn count_all(
    runtime: &Runtime,
    goroutine: &Goroutine,
    counts: Result<ScanCounts, WalkError>,
) -> Result<u64, ScanError> {
    let counts = counts.map_err(|error| ScanError { goroutine: goroutine.id(), error })?;
    count(&runtime.statistics.counters.placed, counts.placed);
    count_gone(&runtime.statistics.counters.removed, counts.removed);
    count(&runtime.statistics.counters.finished_whole, counts.whole);
    Ok(counts.frames)
}

/// See [`StackScan::thaw`].
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// The goroutine has called out on this thread, and the caller has its `scan_lock`.
pub(crate) unsafe fn thaw(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    word: usize,
) -> Result<u64, ScanError> {
    let (bounds, snapshot) = (goroutine.bounds(), OnceCell::new());
    let to = |words: &[usize]| runtime.roots(words);
    let roots = RefCell::new(RootBuffer::new(&to));
    let depth = youngest(goroutine, &bounds).depth;
    // SAFETY: by our contract no other thread writes slots.
    let mut access = unsafe { live::access(bounds.clone()) };
    let counts = scan.thaw(&mut access, depth, word, |at| {
        let snapshot = snapshot.get_or_init(|| runtime.code.snapshot());
        // SAFETY: the goroutine stands still by our contract.
        unsafe { LiveFrames::new(runtime, snapshot, goroutine, at, &roots) }
    });
    goroutine.watch(scan);
    count_all(runtime, goroutine, counts)
}

/// Visits a chunk of frozen frames. The roots go to `to`. Returns the frames visited; 0 if this
/// cycle has nothing left to do.
///
/// # Errors
/// [`ScanError`].
pub(crate) fn visit_frozen<R: Root>(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    cycle: u64,
    budget: Budget,
    to: To<'_, R>,
) -> Result<u64, ScanError> {
    let (snapshot, roots) = (runtime.code.snapshot(), RefCell::new(RootBuffer::new(to)));
    // SAFETY: invariant 8: the frames are frozen, and the lock keeps the stack from moving.
    let frames = |at| unsafe { LiveFrames::new(runtime, &snapshot, goroutine, at, &roots) };
    scan.visit_frozen(cycle, budget, frames)
        .map_err(|error| ScanError { goroutine: goroutine.id(), error })
}

/// Visits the roots of a stack and changes nothing. The roots go to `to`.
///
/// # Errors
/// [`ScanError`]: the stack cannot be walked; roots may be missing.
///
/// # Safety
/// `scan` is the goroutine's own, under its `scan_lock`; the world is stopped.
pub(crate) unsafe fn visit<R: Root>(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &StackScan,
    extent: Extent,
    to: To<'_, R>,
) -> Result<Visited, ScanError> {
    let (snapshot, roots) = (runtime.code.snapshot(), RefCell::new(RootBuffer::new(to)));
    R::of_goroutine(goroutine, runtime.config.language(), &mut roots.borrow_mut());
    let bounds = goroutine.bounds();
    let from = youngest(goroutine, &bounds);
    // SAFETY: the goroutine stands still by our contract.
    let mut frames = unsafe { LiveFrames::new(runtime, &snapshot, goroutine, from, &roots) };
    let last = match extent {
        Extent::Rescan => scan.limit(),
        Extent::Verify => None,
    };
    let mut visited = Visited::default();
    let fail = |error| ScanError { goroutine: goroutine.id(), error };
    let stop = last.map_or(0, |(depth, _)| depth);
    loop {
        visited.frames += frames.visit_plain(stop, u64::MAX);
        let Some(slot) = frames.visit().map_err(fail)? else { break };
        visited.frames += 1;
        if let Some((_, beyond)) = last.filter(|(depth, _)| *depth == slot) {
            visited.skipped = beyond;
            break;
        }
        if extent == Extent::Rescan && frames.may_rest() && scan.is_frozen(frames.position().depth)
        {
            break;
        }
    }
    runtime.statistics.record_frames(visited.frames + visited.skipped);
    Ok(visited)
}

/// Checks every barrier of a stopped stack against the table, and that the way to unvisited frames
/// is blocked. For debugging.
///
/// # Panics
/// If one of the checks fails.
///
/// # Safety
/// As for [`begin`], or the world is stopped.
pub(crate) unsafe fn check(goroutine: &Goroutine, scan: &StackScan) {
    let bounds = goroutine.bounds();
    let depth = youngest(goroutine, &bounds).depth;
    // SAFETY: by our contract no thread writes slots.
    scan.check(&unsafe { LiveSlots::new(bounds) }, &ImageTable, depth);
}
