//! Threads that the runtime has never seen: attached when they first call in, detached when they
//! end.
//!
//! Such a thread takes a spare machine, which is an entry among the world's machines, a record of a
//! goroutine and memory for signal handlers, made in advance; whoever takes the last one makes
//! another. The goroutine stands in a call out, made by nobody, right above `goroutine_entry`: what
//! calls in is a callback from there. Hence the system stack pointer is set before managed code
//! runs, a panic has a stack to run on (Go's issue 8588), and a walk ends where it should. Machine
//! and goroutine stay the thread's until it ends.
//!
//! The end of a thread is seen by the destructor of a pthread key, which also covers `pthread_exit`
//! and `pthread_cancel` in the midst of a call out. Not by a thread-local's: those run before, and
//! code that runs after them may call in.

use crate::machine::{Caller, Shared};
use crate::memory::{StackError, StackKind};
use crate::runtime::{MachineEntry, Runtime};
use crate::signal_stack::{self, NoSignalStack, SignalStack};
use crate::spare::Node;
use crate::status::Status;
use crate::{Goroutine, MIN_STACK};
use stackmark_asm as asm;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// Why managed code cannot be called from here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallInError {
    /// The thread runs on its alternate signal stack: it was interrupted anywhere, in the runtime
    /// too.
    #[error("managed code cannot be called from a signal handler")]
    SignalHandler,
    /// The goroutine has called out to code that is atomic to the collector.
    #[error(
        "goroutine {goroutine} is {status:?}: managed code is called back from foreign calls only"
    )]
    NotForeign {
        /// The goroutine's number.
        goroutine: u64,
        /// What it is doing.
        status: Status,
    },
    /// The thread belongs to a runtime, but runs no goroutine of this one.
    #[error("this thread is attached to a runtime and runs no goroutine of this one")]
    Attached,
    /// There is no memory for a stack.
    #[error(transparent)]
    Stack(#[from] StackError),
}

/// What is made in advance.
pub(crate) struct Spare {
    entry: Arc<MachineEntry>,
    /// Dead while it is spare.
    goroutine: Arc<Goroutine>,
    signal_stack: Cell<Option<SignalStack>>,
}

/// A spare machine that a thread has taken.
#[derive(Debug)]
pub(crate) struct SpareMachine(NonNull<Node<Spare>>);

impl SpareMachine {
    /// Makes one. It is among the world's machines from now on.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`].
    fn make(runtime: &Runtime) -> Result<SpareMachine, StackError> {
        let signal_stack = SignalStack::new()?;
        let entry = Arc::new(MachineEntry::new());
        let goroutine = runtime.record();
        runtime.machines.lock().push(entry.clone());
        let signal_stack = Cell::new(Some(signal_stack));
        Ok(SpareMachine(runtime.spare.make(Spare { entry, goroutine, signal_stack })))
    }

    fn spare(&self) -> &Spare {
        // SAFETY: nodes live as long as the runtime, and this one is taken by us.
        unsafe { &(*self.0.as_ptr()).value }
    }

    /// The thread that took it has ended.
    pub(crate) fn give_back(self, runtime: &Runtime, signal_stack: Option<SignalStack>) {
        self.spare().signal_stack.set(signal_stack);
        // SAFETY: taken by us, and not used any more.
        unsafe { runtime.spare.give(self.0) };
    }
}

/// The key whose value is a thread's machine.
fn key() -> libc::pthread_key_t {
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    unsafe extern "C" fn thread_ends(shared: *mut c_void) {
        // SAFETY: the value is the machine of this thread, which is attached; it will not run
        // managed code again. If another key's destructor calls in, the thread is attached again,
        // and this is called again.
        unsafe { Shared::detach(NonNull::new_unchecked(shared.cast())) }
    }
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the destructor is called with non-null values alone.
        let made = unsafe { libc::pthread_key_create(&mut key, Some(thread_ends)) };
        assert_eq!(made, 0, "pthread_key_create: {}", std::io::Error::from_raw_os_error(made));
        key
    })
}

/// Notes this thread's machine for the thread's end.
pub(crate) fn set_key(shared: *const c_void) {
    // SAFETY: the key was made by key().
    let set = unsafe { libc::pthread_setspecific(key(), shared) };
    assert_eq!(set, 0, "pthread_setspecific: {}", std::io::Error::from_raw_os_error(set));
}

impl Runtime {
    /// For native code on any thread that wants to call managed code: gives `f` a caller whose
    /// goroutine is InForeign, so that [`Caller::callback`] may be called. That is the goroutine
    /// that has called out to this native code; on a thread that the runtime has never seen, one
    /// made for the thread, which stays attached until it ends.
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
        // Before anything that a handler may not do, as allocating.
        if signal_stack::in_handler() {
            return Err(CallInError::SignalHandler);
        }
        let spare = match self.spare.take() {
            Some(node) => SpareMachine(node),
            None => SpareMachine::make(self)?,
        };
        let mut signal_stack = spare.spare().signal_stack.take();
        let attached = signal_stack::ensure(&mut signal_stack);
        let memory = match attached {
            Ok(range) => {
                self.stacks.take(MIN_STACK).map(|memory| (range, memory)).map_err(CallInError::from)
            }
            Err(NoSignalStack::InHandler) => Err(CallInError::SignalHandler),
            Err(NoSignalStack::Memory(error)) => Err(error.into()),
        };
        let (handlers_run_in, memory) = match memory {
            Ok(both) => both,
            Err(error) => {
                spare.give_back(self, signal_stack);
                return Err(error);
            }
        };
        self.attached.fetch_add(1, Ordering::Relaxed);
        let (entry, goroutine) = (spare.spare().entry.clone(), spare.spare().goroutine.clone());
        // SAFETY: this thread is attached to nothing; it leaves the detaching to the key.
        let shared =
            unsafe { Shared::attach(self, entry, handlers_run_in, signal_stack, Some(spare)) };
        goroutine.header().entry.store(0, Ordering::Relaxed);
        goroutine.header().start_arg.store(0, Ordering::Relaxed);
        self.bring_to_life(&goroutine, StackKind::Moving, memory, Status::Foreign);
        // SAFETY: attached just now.
        unsafe { shared.as_ref() }.bind(goroutine);
        // If there is no memory for it now, the next thread makes its own.
        if self.spare.is_empty()
            && let Ok(SpareMachine(node)) = SpareMachine::make(self)
        {
            // SAFETY: made just now, and not used.
            unsafe { self.spare.give(node) };
        }
        Ok(())
    }
}
