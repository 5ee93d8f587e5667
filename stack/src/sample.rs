//! Traces of a thread from a signal handler that has interrupted it: what a profiler needs of
//! goroutines.
//!
//! All of it is signal-safe: it allocates nothing and takes no lock. The code's images must have
//! been read before, by [`Snapshot::read_images`](stackmark_unwind::Snapshot::read_images), and the
//! cache must be a [fixed](RuleCache::fixed) one that nobody else uses meanwhile.

use crate::machine::Caller;
use crate::scan::Stubs;
use stackmark_asm::{barrier, layout::GoroutineHeader};
use stackmark_unwind::{CallFrame, Code, LiveMemory, RegisterSet, RuleCache, Unwinder, WalkError};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

/// Calls `each` for every frame of the calling thread from where a signal has interrupted it, until
/// `each` breaks: native frames, then, where the thread runs a goroutine, that goroutine's, across
/// all switches of stacks. The last frame is the goroutine's oldest, in
/// [`entry_range`](stackmark_asm::entry_range), or the thread's own. Barriers do not show, except
/// that a thread may stand in a stub itself, in [`barrier::pool`].
///
/// `None` if the thread is not attached to a runtime, or is just exchanging its goroutine's stack.
///
/// # Safety
/// Called by the handler of a signal that has interrupted this thread, with what the system says
/// was interrupted.
pub unsafe fn trace_interrupted<B>(
    code: &Code,
    cache: &mut RuleCache,
    interrupted: &libc::ucontext_t,
    each: impl FnMut(CallFrame) -> ControlFlow<B>,
) -> Option<Result<Option<B>, WalkError>> {
    let machine = Caller::system_stack()?;
    let context = RegisterSet::interrupted(interrupted);
    let (header, stack) = match Caller::goroutine_header() {
        None => (0..0, 0..0),
        Some(goroutine) => {
            let at = std::ptr::from_ref(goroutine) as usize;
            // Relaxed: this thread's own goroutine, whose bounds only this thread changes: nobody
            // else moves the stack of one that runs, is InForeign, or is parked in a callback.
            let stack = goroutine.stack_lo.load(Ordering::Relaxed)
                ..goroutine.stack_hi.load(Ordering::Relaxed);
            if stack.is_empty() {
                return None;
            }
            (at..at + size_of::<GoroutineHeader>(), stack)
        }
    };
    // SAFETY: the thread's own stack; the stack and header of the goroutine that it runs, which
    // live until it has left it for good; statics. All are mapped, and by our contract the thread
    // does not go on meanwhile.
    let memory = |range: Range<usize>| unsafe { LiveMemory::new(range) };
    let memory = [stack, machine, header, barrier::pool(), barrier::table()].map(memory);
    let snapshot = code.snapshot();
    Some(Unwinder::new(&snapshot, cache, memory, Stubs, context).for_each(each))
}
