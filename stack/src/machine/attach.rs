//! Threads that the runtime has never seen: they are attached when they first call in, and detached
//! when they end.
//!
//! Such a thread takes a *spare machine*, made in advance. It has a machine's entry in the
//! registry, a goroutine's record and an alternate signal stack. The thread that takes the last
//! spare machine makes another one. The thread's goroutine stands in a call out that no code has
//! made, right above `goroutine_entry`. A call in is a callback from there. So the system stack
//! pointer is set before managed code runs, a panic has a stack to run on (Go's issue 8588), and
//! every walk ends at `goroutine_entry`. The thread keeps machine and goroutine until it ends.
//!
//! The destructor of a pthread key detaches the thread. It also runs after `pthread_exit` and
//! `pthread_cancel` in a call out. A destructor of a thread-local would run too early: code that
//! runs after it may call in.

use super::caller::Caller;
use super::error::CallInError;
use super::thread::{Attachment, ThreadRecord};
use crate::alarm;
use crate::memory::{MIN_STACK, NoSignalStack, StackKind, ensure_signal_stack, in_signal_handler};
use crate::protocol::Status;
use crate::runtime::Runtime;
use stackmark_asm as asm;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Runtime {
    /// Lets native code on any thread call managed code. Calls `f` with a [`Caller`] whose
    /// goroutine is InForeign, so that [`Caller::callback`] may be called. It is the goroutine that
    /// has called out to this native code. On a thread that the runtime has never seen it is a
    /// goroutine made for the thread, which stays attached until it ends.
    ///
    /// # Errors
    /// [`CallInError`]; `f` is not called then.
    #[inline]
    pub fn call_in<R>(self: &Arc<Self>, f: impl FnOnce(Caller<'_>) -> R) -> Result<R, CallInError> {
        // SAFETY: used within this function, which the goroutine does not leave.
        let caller = match unsafe { Caller::try_current() } {
            Some(caller) if Arc::ptr_eq(caller.runtime(), self) => caller,
            _ if !asm::current().is_null() => return Err(CallInError::Attached),
            _ => {
                self.attach_thread()?;
                // SAFETY: as above.
                unsafe { Caller::current() }
            }
        };
        caller.check_foreign()?;
        Ok(f(caller))
    }

    #[cold]
    fn attach_thread(self: &Arc<Self>) -> Result<(), CallInError> {
        // Checked before anything that a handler may not do, for example allocating.
        if in_signal_handler() {
            return Err(CallInError::SignalHandler);
        }
        alarm::check();
        let word = self.host.machine_attached();
        let refused = |error| {
            self.host.machine_detached(word);
            error
        };
        if !asm::current().is_null() {
            // The host has attached the thread in that very call.
            return Err(refused(CallInError::Attached));
        }
        let spare = self.registry.take_spare().map_err(|error| refused(error.into()))?;
        let mut signal_stack = spare.take_signal_stack();
        let ready = match ensure_signal_stack(&mut signal_stack) {
            Ok(range) => {
                self.stacks.take(MIN_STACK).map(|memory| (range, memory)).map_err(CallInError::from)
            }
            Err(NoSignalStack::InHandler) => Err(CallInError::SignalHandler),
            Err(NoSignalStack::Memory(error)) => Err(error.into()),
        };
        let (handlers_run_in, memory) = match ready {
            Ok(both) => both,
            Err(error) => {
                self.registry.give_spare_back(spare, signal_stack);
                return Err(refused(error));
            }
        };
        self.registry.thread_attached();
        let (entry, goroutine) = (spare.entry(), spare.goroutine());
        let with = Attachment { entry, word, handlers_run_in, signal_stack, spare: Some(spare) };
        // SAFETY: this thread is not attached; it is detached when it ends.
        let record = unsafe { ThreadRecord::attach(self, with) };
        goroutine.header.entry.store(0, Ordering::Relaxed);
        goroutine.header.start_arg.store(0, Ordering::Relaxed);
        self.bring_to_life(&goroutine, StackKind::Moving, memory, Status::Foreign);
        // SAFETY: attached just now.
        unsafe { record.as_ref() }.bind(goroutine);
        self.registry.replenish_spares();
        Ok(())
    }
}
