//! Alternate signal stacks (contract C7): a signal frame is larger than a small goroutine stack.

use super::stack_memory::StackError;
use crate::os::{self, AlternateStack, Mapping};
use std::ops::Range;

/// Room for a handler's own frames beyond the kernel's signal frame.
const HANDLER_BYTES: usize = 32 << 10;

/// Memory for a thread's alternate stack.
#[derive(Debug)]
pub(crate) struct SignalStack {
    at: usize,
    bytes: usize,
    /// The alternate stack that the thread had before.
    before: Option<AlternateStack>,
}

/// Why a thread gets no alternate stack.
#[derive(Clone, Debug)]
pub(crate) enum NoSignalStack {
    /// The thread is in a signal handler, which runs on its alternate stack.
    InHandler,
    /// There is no memory, or the system refuses it as an alternate stack.
    Memory(StackError),
}

/// Bytes that an alternate stack must have.
fn wanted() -> usize {
    (AlternateStack::signal_frame_bytes() + HANDLER_BYTES).next_multiple_of(os::page_size())
}

impl SignalStack {
    /// One for a thread that attaches later, if the system has such stacks.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`].
    pub(crate) fn in_advance() -> Result<Option<SignalStack>, StackError> {
        AlternateStack::ARE_USED.then(SignalStack::new).transpose()
    }

    /// # Errors
    /// [`StackError::OutOfMemory`].
    fn new() -> Result<SignalStack, StackError> {
        let bytes = wanted();
        let at = os::map(bytes, Mapping::Memory)
            .map_err(|error| StackError::out_of_memory(bytes, &error))?;
        Ok(SignalStack { at, bytes, before: None })
    }

    /// Gives the calling thread its earlier alternate stack back, if it still has this one.
    pub(crate) fn give_up(&mut self) {
        if AlternateStack::current().at == self.at
            && let Some(before) = self.before.take()
        {
            // SAFETY: the earlier stack is the thread's, which has not freed it meanwhile. The call
            // fails if the thread runs on ours.
            let _ = unsafe { before.install() };
        }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no thread has it as its alternate stack any more. A
        // mapping that cannot be unmapped is leaked, which does no harm.
        let _ = unsafe { os::unmap(self.at, self.bytes) };
    }
}

/// Whether this thread is in a signal handler that runs on the alternate stack. Signal-safe.
pub(crate) fn in_signal_handler() -> bool {
    AlternateStack::current().is_in_use()
}

/// Gives this thread an alternate signal stack that is large enough: its own, or the one in `ours`,
/// which is made if it is missing. Returns the stack's addresses: none where the system's handlers
/// run on no stack of their own.
///
/// # Errors
/// [`NoSignalStack`].
pub(crate) fn ensure_signal_stack(
    ours: &mut Option<SignalStack>,
) -> Result<Range<usize>, NoSignalStack> {
    if !AlternateStack::ARE_USED {
        return Ok(0..0);
    }
    let now = AlternateStack::current();
    if now.is_in_use() {
        return Err(NoSignalStack::InHandler);
    }
    if now.is_enabled() && now.bytes >= wanted() {
        return Ok(now.at..now.at + now.bytes);
    }
    let ours = match ours {
        Some(ours) => ours,
        None => ours.insert(SignalStack::new().map_err(NoSignalStack::Memory)?),
    };
    ours.before = Some(now);
    let (at, bytes) = (ours.at, ours.bytes);
    // SAFETY: the memory is ours and stays mapped until the thread has given it up.
    let installed = unsafe { AlternateStack::new(at, bytes).install() };
    match installed {
        Ok(()) => Ok(at..at + bytes),
        Err(error) => Err(NoSignalStack::Memory(StackError::out_of_memory(bytes, &error))),
    }
}

// Handlers of exceptions of Windows run on the stack that is in use.
#[cfg(all(test, not(stackmark_loom), not(windows)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_a_large_enough_alternate_stack_and_gives_it_up() {
        std::thread::spawn(|| {
            // The alternate stack that the standard library gives a thread is too small.
            let before = AlternateStack::current();
            let mut ours = None;
            let range = ensure_signal_stack(&mut ours).expect("not in a handler");
            let now = AlternateStack::current();
            assert!(now.is_enabled());
            assert_eq!(range, now.at..now.at + now.bytes);
            assert!(now.bytes >= AlternateStack::signal_frame_bytes() + HANDLER_BYTES);
            assert_eq!(ensure_signal_stack(&mut None).expect("not in a handler"), range, "has one");
            ours.expect("it was made").give_up();
            let after = AlternateStack::current();
            assert_eq!((after.at, after.bytes), (before.at, before.bytes));
        })
        .join()
        .expect("no panic");
    }
}
