//! Which module or engine something belongs to.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The identity of a module or of an engine. No two of a process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity(u32);

impl Identity {
    /// One that nothing has yet.
    ///
    /// # Panics
    /// After 2^32 - 1 of them.
    pub(crate) fn new() -> Identity {
        static LAST: AtomicU32 = AtomicU32::new(0);
        // Relaxed: that no value is given twice is what any read-modify-write makes sure of, and
        // nothing else is read through it.
        let last = LAST.fetch_update(Relaxed, Relaxed, |last| last.checked_add(1));
        Identity(last.expect("fewer than 2^32 modules and engines"))
    }

    /// As a number.
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// A function that a [`Module`](crate::Module) has declared. Only this module, its functions and
/// its [`Program`](crate::Program) know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FuncId {
    pub(crate) module: Identity,
    pub(crate) id: cranelift_module::FuncId,
}
