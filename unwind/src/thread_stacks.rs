//! Where the stacks of a thread lie.

use std::io;
use std::ops::Range;

use crate::memory::LiveMemory;
use crate::os;

/// The stacks of a thread: its own, and that of its signal handlers if it has one. A profiler notes
/// them when a thread begins, and reads them in handlers.
///
/// ```
/// use stackmark_unwind::{Code, RegisterSet, RuleCache, ThreadStacks, Unwinder};
///
/// let stacks = ThreadStacks::current()?;
/// let code = Code::new();
/// code.refresh_images();
/// let (mut cache, context) = (RuleCache::new(), RegisterSet::capture());
/// // SAFETY: this thread's own stacks, from the frame on that is walked.
/// let memory = unsafe { stacks.memory(context.sp()) };
/// let snapshot = code.snapshot();
/// let mut trace = Unwinder::new(&snapshot, &mut cache, memory, (), context);
/// while let Ok(Some(frame)) = trace.next_frame() {
///     println!("{:#x}", frame.pc);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadStacks {
    stack: Range<usize>,
    /// All of the stack from here on is mapped. The main thread's stack grows down to its start.
    mapped: usize,
    signal_stack: Option<Range<usize>>,
}

impl ThreadStacks {
    /// The stacks of the calling thread. Not for signal handlers: the system may allocate, and
    /// reads a file for the main thread. A signal stack that is set later is not known.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn current() -> io::Result<ThreadStacks> {
        let here = 0_u8;
        let stack = os::thread_stack()?;
        // A coroutine runs on memory of its own.
        let here = &raw const here as usize;
        let mapped = if stack.contains(&here) { here } else { stack.end };
        Ok(ThreadStacks { stack, mapped, signal_stack: os::signal_stack() })
    }

    /// The thread's own stack, from its lowest address on. Of the main thread's only what was used
    /// is mapped.
    pub fn stack(&self) -> Range<usize> {
        self.stack.clone()
    }

    /// The stack of signal handlers with `SA_ONSTACK`, if there is one.
    pub fn signal_stack(&self) -> Option<Range<usize>> {
        self.signal_stack.clone()
    }

    /// The memory of both stacks for a walk from a frame with the stack pointer `sp`: of the stack
    /// that holds it from there on, of the other one as much as is known to be mapped. It may be
    /// called in signal handlers. Best is the stack pointer of what a signal has interrupted.
    ///
    /// # Safety
    ///
    /// As for [`LiveMemory::new`]: the thread lives, its stacks stay, and if `sp` lies in one of
    /// them, it is mapped from there on.
    pub unsafe fn memory(&self, sp: usize) -> [LiveMemory; 2] {
        let from = |range: &Range<usize>, mapped| {
            let start = if range.contains(&sp) { sp } else { mapped };
            start..range.end
        };
        let none = 0..0;
        let signal = self.signal_stack.as_ref().map_or(none, |stack| from(stack, stack.start));
        // SAFETY: as the caller promises for the stack that holds `sp`. A signal stack is mapped
        // whole, and the thread's own from `mapped` on: there it was in use.
        unsafe { [from(&self.stack, self.mapped), signal].map(|range| LiveMemory::new(range)) }
    }
}
