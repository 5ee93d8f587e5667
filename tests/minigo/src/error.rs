//! What can go wrong before a program runs.

use std::fmt;

/// A message about a program that cannot be compiled, with the place it is about.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) struct CompileError {
    /// `FILE.go:LINE:COLUMN`, or only the file.
    pub(crate) place: String,
    /// What is wrong there.
    pub(crate) message: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The result of a step of the compiler.
pub(crate) type Compiled<T> = Result<T, CompileError>;
