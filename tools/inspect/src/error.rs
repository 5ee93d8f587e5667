//! What can be wrong with a core file.

/// Why a core file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be parsed.
    #[error("the core file is malformed or cut off: {0}")]
    Malformed(#[from] object::Error),
    /// It is an ELF file of another kind.
    #[error("it is no core file, but an ELF file of type {0}")]
    NoCore(u16),
    /// It is a core file of another architecture.
    #[error("it is a core file for machine {0}, which is not supported")]
    Machine(u16),
    /// A note is too short.
    #[error("the core file is malformed or cut off: its note {0} is too short")]
    Note(&'static str),
    /// The process has no description of its goroutines.
    #[error("no runtime of Stackmark's is in the process, or its data is not in the core file")]
    NoRuntime,
    /// The description is of another version of the library.
    #[error("the process has version {found} of stackmark_debug_info; this program knows {known}")]
    Version {
        /// The process's.
        found: u32,
        /// This program's.
        known: u32,
    },
    /// The description lacks words, as that of an older library does.
    #[error("stackmark_debug_info of the process has {found} bytes; this program needs {known}")]
    Short {
        /// The process's.
        found: u32,
        /// This program's.
        known: usize,
    },
    /// Memory that is needed is not in the core file.
    #[error("the memory of {what} at {address:#x} is not in the core file")]
    Unreadable {
        /// What is there.
        what: &'static str,
        /// Its address.
        address: usize,
    },
    /// A list leads back to itself.
    #[error("the list of {0} has no end")]
    Endless(&'static str),
}
