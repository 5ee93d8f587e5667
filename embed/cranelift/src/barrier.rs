//! The write barrier, as managed code uses it.

use stackmark::write_barrier::{Kind, WriteBarrier};
use std::sync::atomic::AtomicU8;

/// The write barrier of a collector, as managed code uses it.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    /// The address of the byte that is not 0 while stores must be reported.
    flag: usize,
    /// Whether what a store overwrites must be reported, too.
    overwritten: bool,
}

impl Barrier {
    /// That of a collector. The collector outlives the code.
    pub fn of(barrier: &WriteBarrier) -> Barrier {
        Barrier { flag: barrier.flag_address(), overwritten: barrier.kind() == Kind::Hybrid }
    }

    /// That of a heap of the embedder's own: stores must be reported while the byte is not 0, and
    /// what they overwrite as well if `overwritten` says so.
    pub fn by_flag(flag: &'static AtomicU8, overwritten: bool) -> Barrier {
        Barrier { flag: flag.as_ptr() as usize, overwritten }
    }

    /// The address of the byte that is not 0 while stores must be reported.
    pub fn flag(&self) -> usize {
        self.flag
    }

    /// Whether what a store overwrites must be reported, too.
    pub fn reports_overwritten(&self) -> bool {
        self.overwritten
    }
}
