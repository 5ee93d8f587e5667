//! The parameters, results and errno of a library or system call.
//!
//! They lie in the machine, not on the goroutine's stack: a callback may move the stack while the
//! library writes them (Go's issue 10406). A callback may make library calls of its own, so
//! [`Caller::callback`](crate::Caller::callback) saves and restores the one under way.

/// The most parameters of a library call.
pub(crate) const PARAMETERS: usize = 6;

/// A library call and its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LibCall {
    /// The function's address; 0 when no call is under way.
    pub function: usize,
    /// Its arguments.
    pub arguments: [usize; PARAMETERS],
    /// The result, after the function has returned.
    pub result: usize,
    /// `errno` after the call; on Windows, what GetLastError gives. It is set to 0 before the call.
    pub error: i32,
}
