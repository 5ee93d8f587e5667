//! What the system's unwinder is told of barriers, and asked: nothing.

use stackmark_asm::barrier::BarrierRecord;
use stackmark_unwind::Registers;
use std::ops::Range;

/// Looks for room for the records of barriers in a thread's own stack, at these addresses.
pub(crate) fn prepare_barriers(_stack: &Range<usize>) {}

/// Whether the system's unwinder can be told of barriers in the stack at these addresses, if it has
/// to be.
#[inline(always)]
pub(crate) fn has_barrier_records(_stack: &Range<usize>) -> bool {
    true
}

/// The record of a stub for a barrier in the stack at these addresses: there is none.
#[inline(always)]
pub(crate) fn barrier_record(_stack: &Range<usize>, _stub: usize) -> Option<*mut BarrierRecord> {
    None
}

/// The words of further registers that functions keep, by the numbers that
/// [`Continuation`](stackmark_asm::Continuation) takes: none.
pub(crate) fn further_registers(_from: Registers, _target: usize) -> impl Fn(u16) -> Option<usize> {
    |_| None
}
