//! Traces of a thread from a signal handler that has interrupted it: for profilers.
//!
//! All of it is signal-safe: it allocates nothing and takes no lock. The code's images must have
//! been read before, by [`Snapshot::read_images`](stackmark_unwind::Snapshot::read_images). The
//! cache must be a [fixed](RuleCache::fixed) one that no other thread uses meanwhile.

use super::thread::ThreadRecord;
use crate::os::InterruptedContext;
use crate::scan::Stubs;
use stackmark_asm::{self as asm, barrier, layout::GoroutineHeader};
use stackmark_unwind::{CallFrame, Code, LiveMemory, RegisterSet, RuleCache, Unwinder, WalkError};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

/// Calls `each` for every frame of the calling thread, from the one that a signal has interrupted,
/// until `each` breaks. The trace follows native frames and the frames of the thread's goroutine
/// across all switches of stacks. The last frame is the goroutine's oldest, in
/// [`entry_range`](stackmark_asm::entry_range), or the thread's own oldest. Where the goroutine
/// parks or yields just now, it is the oldest native frame of its call out. Barriers do not show,
/// but the interrupted pc may lie in a stub, in [`barrier::pool`].
///
/// `None` if the thread is not attached to a runtime, or was interrupted while it exchanged its
/// goroutine's stack.
///
/// # Safety
/// Called by the handler of a signal that has interrupted this thread, with the context that the
/// system gives the handler.
pub unsafe fn trace_interrupted<B>(
    code: &Code,
    cache: &mut RuleCache,
    interrupted: &InterruptedContext,
    each: impl FnMut(CallFrame) -> ControlFlow<B>,
) -> Option<Result<Option<B>, WalkError>> {
    let (goroutine, machine) = ThreadRecord::interrupted()?;
    let context = RegisterSet::interrupted(interrupted);
    let (header, stack) = match goroutine {
        None => (0..0, 0..0),
        Some(goroutine) => {
            let at = std::ptr::from_ref(goroutine) as usize;
            // Relaxed: only this thread changes the bounds of its own goroutine. No other thread
            // moves the stack of a goroutine that runs, is InForeign, or is parked in a callback.
            let stack = goroutine.stack_lo.load(Ordering::Relaxed)
                ..goroutine.stack_hi.load(Ordering::Relaxed);
            if stack.is_empty() {
                return None;
            }
            (at..at + size_of::<GoroutineHeader>(), stack)
        }
    };
    // SAFETY: all ranges are mapped: the thread's own stack, statics, and the stack and header of
    // the goroutine that the thread runs, which live until the thread has left it for good. By our
    // contract the thread stands still meanwhile.
    let memory = |range: Range<usize>| unsafe { LiveMemory::new(range) };
    let memory = [stack, machine, header, barrier::pool(), barrier::table()].map(memory);
    let snapshot = code.snapshot();
    let mut trace = Unwinder::new(&snapshot, cache, memory, Stubs, context);
    let walked = trace.for_each(each);
    // The thread is about to leave a goroutine that other threads may run already. What its frames
    // are is not to be known.
    let leaves = goroutine.is_none() && trace.pc() == asm::native_return_pc();
    Some(if leaves { walked.or(Ok(None)) } else { walked })
}
