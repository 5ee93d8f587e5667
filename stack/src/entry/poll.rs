//! Polls: growth, requests, and the debugging modes that see every poll.

use crate::goroutine::Goroutine;
use crate::machine::Caller;
use crate::memory::StackError;
use crate::protocol::Request;
use crate::runtime::{Activity, Runtime};
use crate::scan::{self, GrowError};
use std::ffi::c_void;
use std::sync::atomic::Ordering;

/// The poll: managed code calls it by `call_system(poll, needed, 0)` when its stack pointer is
/// below the poll word. `needed` is 0, or the bytes of a frame larger than
/// [`Config::max_frame`](crate::Config::max_frame) that is about to be made. When the call returns,
/// the stack has room for the frame, and the requests of before the call are done.
///
/// # Safety
/// Called by managed code through `call_system`, at a safepoint.
// It has one address in a program, by which code that was compiled elsewhere may know it.
#[inline(never)]
pub unsafe extern "C-unwind" fn poll(needed: *mut c_void, _b: usize) -> usize {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    caller.assert_back_inside();
    let (runtime, goroutine) = (&**caller.runtime(), caller.goroutine());
    goroutine.room.store(needed as usize, Ordering::Relaxed);
    let requests = goroutine.take_requests();
    let sp = goroutine.header.sched.sp.load(Ordering::Relaxed);
    let least = (goroutine.bounds().start + goroutine.guard()).saturating_add(needed as usize);
    if sp < least {
        let _span = runtime.observed().span(Activity::Growth, goroutine.id());
        // SAFETY: the goroutine is at a poll on this thread.
        let grown =
            unsafe { scan::grow(runtime, goroutine, needed as usize, &mut || caller.safepoint()) };
        grown.unwrap_or_else(|error| fail(runtime, goroutine, error));
    }
    if requests.has(Request::SCAN) {
        // SAFETY: the goroutine is at a poll on this thread.
        unsafe { scan::scan_own_stack(runtime, &caller.handle()) };
    }
    if scan::is_at_bound(goroutine) {
        // SAFETY: as above.
        unsafe { scan::catch_up_at_poll(runtime, &caller.handle()) };
    }
    caller.safepoint();
    if runtime.config.move_every_poll {
        // SAFETY: the goroutine is at a poll on this thread.
        let moved = unsafe { scan::move_elsewhere(runtime, goroutine) };
        moved.unwrap_or_else(|error| fail(runtime, goroutine, error));
        let scan = goroutine.scan_lock();
        // SAFETY: as above; the lock is ours.
        unsafe { scan::check(goroutine, &scan) };
    }
    if goroutine.every_poll.load(Ordering::Relaxed) {
        runtime.host.at_poll(goroutine);
        if let Some(sink) = runtime.sink() {
            sink.at_poll(goroutine);
        }
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
        other => runtime.fatal(&other),
    }
}
