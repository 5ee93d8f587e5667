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
}

/// Why managed code cannot be called from here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallInError {
    /// The thread runs on its alternate signal stack. The signal may have
    /// interrupted the runtime itself.
    #[error("managed code cannot be called from a signal handler")]
    SignalHandler,
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
