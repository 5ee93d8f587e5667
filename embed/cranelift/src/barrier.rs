//! The write barrier, as managed code uses it.

use stackmark::write_barrier::{Kind, WriteBarrier};

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

    /// The address of the byte that is not 0 while stores must be reported.
    pub(crate) fn flag(&self) -> usize {
        self.flag
    }

    /// Whether what a store overwrites must be reported, too.
    pub fn reports_overwritten(&self) -> bool {
        self.overwritten
    }
}
