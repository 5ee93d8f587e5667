//! The errors of attaching a thread and of calling managed code.

use crate::memory::StackError;
use crate::protocol::Status;

/// Why a thread cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The thread is attached already.
    #[error("this thread is attached to a runtime already")]
    AlreadyAttached,
    /// There is no memory for the thread's alternate signal stack.
    #[error("signal handlers: {0}")]
    SignalStack(#[source] StackError),
    /// The thread's own stack is too small for managed code, or the system does not say where it
    /// lies.
    #[error("managed code needs a stack of {least} bytes, and this thread's has {bytes}")]
    SmallStack {
        /// Its bytes; 0 if they are not known.
        bytes: usize,
        /// The bytes that it must have at least.
        least: usize,
    },
}

/// Why a thread's native stack stays attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DetachError {
    /// The thread has no native stack of this runtime.
    #[error("this thread has attached no native stack to this runtime")]
    NotAttached,
    /// Managed frames are on the thread's stack.
    #[error("managed code of goroutine {goroutine} is on this thread's stack")]
    ManagedCode {
        /// The goroutine's number.
        goroutine: u64,
    },
    /// The thread runs on its alternate signal stack. The signal may have interrupted the runtime
    /// itself.
    #[error("no thread is detached in a signal handler")]
    SignalHandler,
}

/// Why managed code cannot be called from here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallInError {
    /// The thread runs on its alternate signal stack. The signal may have
    /// interrupted the runtime itself.
    #[error("managed code cannot be called from a signal handler")]
    SignalHandler,
    /// Managed code has called the native code on a native stack, but not by `call_native`: no walk
    /// would find the managed frames.
    #[error(
        "goroutine {goroutine}: managed code has called this native code without call_native, so \
         managed code cannot be called from there"
    )]
    NoAnchor {
        /// The goroutine's number.
        goroutine: u64,
    },
    /// The goroutine has called out to code that is atomic to the collector.
    #[error(
        "goroutine {goroutine} is {status:?}: managed code is called back from foreign calls only"
    )]
    NotForeign {
        /// The goroutine's number.
        goroutine: u64,
        /// The goroutine's status.
        status: Status,
    },
    /// The thread belongs to a runtime, but runs no goroutine of this one.
    #[error("this thread is attached to a runtime and runs no goroutine of this one")]
    Attached,
    /// There is no memory for a stack.
    #[error(transparent)]
    Stack(#[from] StackError),
}
