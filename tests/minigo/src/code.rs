//! A compiled program, as the runtime sees it.

use serde::{Deserialize, Serialize};
use stackmark_cranelift::{FuncId, Program};
use std::collections::HashMap;

/// What a function is to tracebacks and to `recover`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Role {
    /// The program's own.
    #[default]
    Plain,
    /// Stands between a caller and what it calls: not seen by either.
    Wrapper,
    /// Runs deferred functions for a panic.
    Panic,
    /// Runs deferred functions for `runtime.Goexit`.
    Goexit,
    /// The function with which a goroutine starts.
    Start,
    /// Not shown either.
    Runtime,
}

/// A compiled program.
pub(crate) struct Code {
    /// The function object that the first goroutine runs.
    pub(crate) start: usize,
    /// The managed function with which a goroutine starts.
    pub(crate) entry: usize,
    /// The managed function that native code calls back to panic.
    pub(crate) raise: usize,
    /// The source, an absolute path.
    pub(crate) file: String,
    /// The managed functions that C may call, by number.
    pub(crate) exports: Vec<usize>,
    /// Whether there is C code.
    pub(crate) calls_c: bool,
    pub(crate) own_methods: OwnMethods,
    pub(crate) program: Program,
    /// Those that are not plain.
    pub(crate) roles: HashMap<FuncId, Role>,
    /// Package-level variables that may hold references: addresses and lengths in bytes.
    pub(crate) globals: Vec<(usize, usize)>,
}

/// What the runtime needs to make errors and to call them.
#[derive(Clone, Copy, Default)]
pub(crate) struct OwnMethods {
    /// Method `Error` of the runtime's errors: the word with its code, and the number of its type,
    /// `func() string`.
    pub(crate) error: (usize, u32),
    /// Method `RuntimeError`, likewise.
    pub(crate) runtime_error: (usize, u32),
    /// The managed function that calls a method of type `func() string`.
    pub(crate) text: usize,
}
