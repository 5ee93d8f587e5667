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
use super::error::{AttachError, CallInError};
use super::thread::{Attachment, ThreadRecord};
use crate::alarm;
use crate::memory::{NoSignalStack, StackKind, ensure_signal_stack, in_signal_handler};
use crate::protocol::Status;
use crate::runtime::{MachineEntry, Runtime};
use crate::word::Word;
use stackmark_asm as asm;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Runtime {
    /// Lets native code on any thread call managed code. Calls `f` with a [`Caller`] whose
    /// goroutine is InForeign, or Running on a native stack, so that [`Caller::callback`] may be
    /// called. It is the goroutine that has called out to this native code. On a thread that the
    /// runtime has never seen it is a goroutine made for the thread, which stays attached until it
    /// ends.
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
        caller.check_call_in()?;
        Ok(f(caller))
    }

    #[cold]
    fn attach_thread(self: &Arc<Self>) -> Result<(), CallInError> {
        // Checked before anything that a handler may not do, for example allocating.
        if in_signal_handler() {
            return Err(CallInError::SignalHandler);
        }
        alarm::check();
        let spare = self.registry.take_spare()?;
        let mut signal_stack = spare.take_signal_stack();
        let ready = match ensure_signal_stack(&mut signal_stack) {
            Ok(range) => {
                let memory = self.stacks.take(self.config.first_stack());
                memory.map(|memory| (range, memory)).map_err(CallInError::from)
            }
            Err(NoSignalStack::InHandler) => Err(CallInError::SignalHandler),
            Err(NoSignalStack::Memory(error)) => Err(error.into()),
        };
        let (handlers_run_in, memory) = match ready {
            Ok(both) => both,
            Err(error) => {
                self.registry.give_spare_back(spare, signal_stack);
                return Err(error);
            }
        };
        self.registry.thread_attached();
        let (entry, goroutine) = (spare.entry(), spare.goroutine());
        let with = Attachment { entry, handlers_run_in, signal_stack, spare: Some(spare) };
        // SAFETY: this thread is not attached; it is detached when it ends.
        let record = unsafe { ThreadRecord::attach(self, with) };
        goroutine.header.entry.store(0, Ordering::Relaxed);
        goroutine.set_argument(Word::Plain(0));
        self.bring_to_life(&goroutine, StackKind::Moving, memory, Status::Foreign);
        // SAFETY: attached just now.
        unsafe { record.as_ref() }.bind(goroutine);
        self.registry.replenish_spares();
        Ok(())
    }
}

/// Attaches the calling thread with a machine of its own, which runs no goroutine yet.
///
/// # Errors
/// [`AttachError`].
///
/// # Panics
/// In a signal handler, in the host, and if this thread has stopped the world.
pub(super) fn attach_with_new_machine(
    runtime: &Arc<Runtime>,
) -> Result<NonNull<ThreadRecord>, AttachError> {
    if !asm::current().is_null() {
        return Err(AttachError::AlreadyAttached);
    }
    alarm::check_fork();
    let mut signal_stack = None;
    let handlers_run_in = match ensure_signal_stack(&mut signal_stack) {
        Ok(range) => range,
        Err(NoSignalStack::Memory(error)) => return Err(AttachError::SignalStack(error)),
        Err(NoSignalStack::InHandler) => panic!("no thread is attached in a signal handler"),
    };
    let entry = Arc::new(MachineEntry::new());
    runtime.registry.add_machine(entry.clone());
    runtime.stacks.open_cache();
    let with = Attachment { entry, handlers_run_in, signal_stack, spare: None };
    // SAFETY: the thread is not attached. By its end it is detached.
    Ok(unsafe { ThreadRecord::attach(runtime, with) })
}
