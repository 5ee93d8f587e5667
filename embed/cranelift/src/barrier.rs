//! The write barrier, as managed code uses it.

use stackmark::write_barrier::{Kind, WriteBarrier};

/// The write barrier of a collector, as managed code uses it.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    /// The address of the byte that is not 0 while stores must be reported.
    pub flag: usize,
    /// Whether what a store overwrites must be reported, too.
    pub overwritten: bool,
}

impl Barrier {
    /// That of a collector. The collector outlives the code.
    pub fn of(barrier: &WriteBarrier) -> Barrier {
        Barrier { flag: barrier.flag_address(), overwritten: barrier.kind() == Kind::Hybrid }
    }
}
