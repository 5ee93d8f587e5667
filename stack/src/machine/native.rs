//! Threads that run managed code on their own stacks, native frames between: a *native stack*.
//!
//! Such a thread has one goroutine for life. Its record, status, handshakes and barriers are those
//! of any other. It differs in three places: a callback is
//! [`enter_managed`](stackmark_asm::enter_managed), the stack belongs to the system, and the
//! goroutine never leaves its thread. Outside of managed code it is InForeign.
//!
//! When native code calls managed code, the anchor says where the managed frames below stand. The
//! oldest anchor names a frame that every walk ends at, as that of `goroutine_entry`.

use super::attach::attach_with_new_machine;
use super::error::{AttachError, DetachError};
use super::leaving_on_thread::oldest_frame;
use super::thread::ThreadRecord;
use crate::memory::{NATIVE_GUARD, in_signal_handler};
use crate::os;
use crate::runtime::Runtime;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A smaller stack is refused. Half of it is for native code alone.
const LEAST_STACK: usize = 2 * NATIVE_GUARD;

impl Runtime {
    /// Attaches the calling thread, and makes a goroutine of it that runs managed code on the
    /// thread's own stack. From then on [`Runtime::call_in`] gives a [`Caller`](crate::Caller) of
    /// this goroutine, whose [`callback`](crate::Caller::callback) calls managed code on this
    /// stack. Nothing is switched, and nothing moves. The goroutine parks on its thread. The thread
    /// stays attached until [`Runtime::detach_native_stack`], or until it ends. Managed frames may
    /// be on its stack then: the goroutine ends with it.
    ///
    /// The crate's documentation has the [rules](crate#native-stacks) for managed and native code.
    ///
    /// Managed code leaves 64 KiB of the stack free for native code. A poll beyond that is
    /// [`Host::stack_overflow`](crate::Host::stack_overflow).
    ///
    /// The idea of managed frames on the thread's stack, with anchors between them and native ones,
    /// is that of the Java virtual machines.
    ///
    /// # Errors
    /// [`AttachError`].
    ///
    /// # Panics
    /// In a signal handler.
    ///
    /// # Safety
    /// All managed code that is called on this thread is made for native stacks.
    pub unsafe fn attach_native_stack(self: &Arc<Self>) -> Result<(), AttachError> {
        let stack = os::thread_stack();
        let bytes = stack.end - stack.start;
        if bytes < LEAST_STACK {
            return Err(AttachError::SmallStack { bytes, least: LEAST_STACK });
        }
        os::prepare_barriers(&stack);
        let record = attach_with_new_machine(self)?;
        let goroutine = self.registry.record();
        let asked = self.config.ambiguous_native_roots;
        let oldest_frame = if asked { oldest_frame() } else { None };
        self.bring_to_life_on_thread(&goroutine, stack, oldest_frame);
        // SAFETY: attached just now; the thread's end detaches it.
        unsafe { record.as_ref() }.bind(goroutine);
        Ok(())
    }
    /// Undoes [`Runtime::attach_native_stack`] on the calling thread, whose goroutine ends.
    ///
    /// # Errors
    /// [`DetachError`]; the thread stays attached.
    ///
    /// # Safety
    /// No [`Caller`](crate::Caller) of this thread, and nothing made with one, is used again.
    pub unsafe fn detach_native_stack(self: &Arc<Self>) -> Result<(), DetachError> {
        // SAFETY: used here alone.
        let Some(record) = (unsafe { ThreadRecord::current() }) else {
            return Err(DetachError::NotAttached);
        };
        let goroutine = match record.goroutine() {
            Some(goroutine) if goroutine.is_on_thread() && Arc::ptr_eq(&record.runtime, self) => {
                goroutine
            }
            _ => return Err(DetachError::NotAttached),
        };
        if goroutine.header.entered.load(Ordering::Relaxed) != 0 {
            return Err(DetachError::ManagedCode { goroutine: goroutine.id() });
        }
        if in_signal_handler() {
            return Err(DetachError::SignalHandler);
        }
        // SAFETY: this thread's record, and no managed code is on its stack. The rest is our
        // contract.
        unsafe { ThreadRecord::detach(NonNull::from(record)) };
        Ok(())
    }
}
