//! What the system's unwinder is told of barriers, and asked: nothing.

use stackmark_asm::barrier::BarrierRecord;
use stackmark_unwind::Registers;
use std::io;
use std::ops::Range;

/// Sees to it that barriers may lie in a thread's own stack, at these addresses.
///
/// # Errors
/// None here.
pub(crate) fn prepare_barriers(_stack: &Range<usize>) -> io::Result<()> {
    Ok(())
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
