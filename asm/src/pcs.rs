//! Where the assembly's code lies: what walkers tell its frames by.

use crate::arch::*;
use core::ops::Range;

/// The pc at which every goroutine that has called out goes on: what `sched.pc` holds unless the
/// goroutine has [switched out](crate::switch_out_address).
#[inline]
pub fn resume_pc() -> usize {
    stackmark_system_call_resume as *const () as usize
}

/// The pc of `call_system`'s part on the system stack while native code runs: the oldest frame of a
/// call out there.
pub fn native_return_pc() -> usize {
    stackmark_system_call_returned as *const () as usize
}

/// The pcs of `call_system` that a walk of a goroutine's stack meets.
pub fn system_call_range() -> Range<usize> {
    range(&raw const stackmark_system_call_begin, &raw const stackmark_system_call_end)
}

/// The pcs of `callback` that a walk of a goroutine's stack meets.
pub fn callback_range() -> Range<usize> {
    range(&raw const stackmark_callback_begin, &raw const stackmark_callback_end)
}

/// The pcs of `goroutine_entry`, the oldest frame.
pub fn entry_range() -> Range<usize> {
    range(&raw const stackmark_entry_begin, &raw const stackmark_entry_end)
}

/// The pc of a goroutine that has not run yet, in `goroutine_entry`: behind its first instruction.
pub fn entry_pc() -> usize {
    stackmark_goroutine_entry as *const () as usize
}

/// The pcs of `enter_managed`. A walk of a native stack meets one, with an
/// [`EntryRecord`](crate::layout::EntryRecord) at the stack pointer.
pub fn enter_range() -> Range<usize> {
    range(&raw const stackmark_enter_begin, &raw const stackmark_enter_end)
}

/// The pcs of both forms of `call_native`.
pub fn call_native_range() -> Range<usize> {
    range(&raw const stackmark_call_native_begin, &raw const stackmark_call_native_end)
}

/// The addresses of all stubs.
#[inline]
pub(crate) fn pool() -> Range<usize> {
    range(&raw const stackmark_barrier_pool, &raw const stackmark_barrier_pool_end)
}

#[inline]
fn range(begin: *const u8, end: *const u8) -> Range<usize> {
    begin as usize..end as usize
}
