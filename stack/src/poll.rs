//! What happens at a poll and at a barrier hit: the native functions that managed code and the
//! stubs call.

use crate::frontier::StackScan;
use crate::goroutine::Goroutine;
use crate::machine::Caller;
use crate::memory::StackError;
use crate::moving::{self, GrowError};
use crate::observe::Activity;
use crate::request::Request;
use crate::runtime::{Runtime, stubs};
use crate::scan;
use crate::{STACK_GUARD, cycle};
use stackmark_asm::{barrier, layout::MachineHeader};
use std::ffi::c_void;
use std::sync::atomic::Ordering;

/// What managed code calls, through `call_system(poll, needed, 0)`, when its stack pointer is below
/// the poll word, or when the word asks for a safepoint. `needed` is 0, or the bytes of a frame
/// larger than [`MAX_FRAME`](crate::MAX_FRAME) that is about to be made. When it returns, the stack
/// has room for a frame and everything that was asked is done.
///
/// # Safety
/// Called by managed code through `call_system`, at a safepoint.
pub unsafe extern "C-unwind" fn poll(needed: *mut c_void, _b: usize) -> usize {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    let (runtime, goroutine) = (&**caller.runtime(), caller.goroutine());
    goroutine.room.store(needed as usize, Ordering::Relaxed);
    let requests = goroutine.take_requests();
    let sp = goroutine.header.sched.sp.load(Ordering::Relaxed);
    if sp < goroutine.bounds().start + STACK_GUARD + needed as usize {
        let _span = runtime.observed.span(Activity::Growth, goroutine.id());
        // SAFETY: the goroutine is at a poll on this thread.
        let grown = unsafe { moving::grow(runtime, goroutine, needed as usize) };
        grown.unwrap_or_else(|error| fail(runtime, goroutine, error));
    }
    if requests.has(Request::SCAN) {
        // SAFETY: the goroutine is at a poll on this thread.
        unsafe { cycle::scan_own_stack(runtime, &caller.handle()) };
    }
    caller.safepoint();
    if runtime.config.move_every_poll {
        // SAFETY: the goroutine is at a poll on this thread.
        let moved = unsafe { moving::move_elsewhere(runtime, goroutine) };
        moved.unwrap_or_else(|error| fail(runtime, goroutine, error));
        let scan = goroutine.scan_lock();
        // SAFETY: as above; the lock is ours.
        unsafe { scan::check(goroutine, &scan) };
    }
    if goroutine.every_poll.load(Ordering::Relaxed) {
        runtime.host.at_poll(caller);
    }
    if requests.has(Request::YIELD) {
        // SAFETY: nothing here owns anything any more.
        unsafe { caller.yield_now(0) };
    }
    0
}

fn fail(runtime: &Runtime, goroutine: &Goroutine, error: GrowError) -> ! {
    match error {
        GrowError::Stack(StackError::Overflow { limit }) => {
            runtime.host.stack_overflow(goroutine, limit)
        }
        other => runtime.host.fatal(&other),
    }
}

/// A return through a barrier. Not a safepoint: the result lives in registers only.
///
/// # Safety
/// Called by the stubs alone.
pub(crate) unsafe extern "C" fn on_hit(
    _machine: *mut MachineHeader,
    slot: *mut usize,
    stub: usize,
) {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    hit(caller.runtime(), caller.goroutine(), slot as usize, stub);
}

/// The goroutine, on whose thread this is, returns through the stub in `slot`.
pub(crate) fn hit(runtime: &Runtime, goroutine: &Goroutine, slot: usize, stub: usize) {
    let _span = runtime.observed.span(Activity::BarrierHit, goroutine.id());
    let bounds = goroutine.bounds();
    let depth = bounds.end - slot;
    let mut scan = goroutine.scan_lock();
    // SAFETY: the goroutine is Running on this thread: it writes its own slots.
    let mut means = unsafe { scan::means(bounds) };
    let settled =
        scan.hit(&mut means, depth, stub as u32).unwrap_or_else(|error| runtime.host.fatal(&error));
    runtime.counters.hit.fetch_add(settled.hit.into(), Ordering::Relaxed);
    runtime.counters.leapfrogged.fetch_add(settled.leapfrogged.into(), Ordering::Relaxed);
    protect(runtime, goroutine, &mut scan, depth - size_of::<usize>());
}

/// The goroutine, on whose thread this is, goes on with the frame whose stack pointer is at
/// `depth`, and has left all younger ones, without returning from them.
pub(crate) fn leave_frames(runtime: &Runtime, goroutine: &Goroutine, depth: usize) {
    let mut scan = goroutine.scan_lock();
    let settled = scan.leave(stubs(), depth);
    runtime.counters.leapfrogged.fetch_add(settled.leapfrogged.into(), Ordering::Relaxed);
    protect(runtime, goroutine, &mut scan, depth);
}

/// The goroutine, on whose thread this is, comes back to the frame of its foreign call, whose stack
/// pointer is at `depth`.
pub(crate) fn come_back(runtime: &Runtime, goroutine: &Goroutine, depth: usize) {
    protect(runtime, goroutine, &mut goroutine.scan_lock(), depth);
}

fn protect(runtime: &Runtime, goroutine: &Goroutine, scan: &mut StackScan, depth: usize) {
    // SAFETY: the goroutine is on its way out of frames, on this thread.
    let visited = unsafe { scan::protect(runtime, goroutine, scan, depth) };
    let visited = visited.unwrap_or_else(|error| runtime.host.fatal(&error));
    runtime.counters.scanned_returning.fetch_add(visited, Ordering::Relaxed);
}

/// An exception has passed a barrier.
///
/// # Safety
/// Called by the landing pad of the stubs alone.
pub(crate) unsafe extern "C" fn on_leapfrog(
    _machine: *mut MachineHeader,
    slot: *mut usize,
    stub: usize,
) {
    debug_assert!(barrier::is_stub(stub));
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    let (runtime, goroutine) = (&**caller.runtime(), caller.goroutine());
    let depth = goroutine.bounds().end - slot as usize;
    // The barrier in the slot itself too: the landing pad has made the slot whole.
    leave_frames(runtime, goroutine, depth - size_of::<usize>());
}
