//! The functions that barrier stubs call: on a return, and on an exception that passes.

use crate::machine::Caller;
use crate::scan::{hit, leapfrog};
use stackmark_asm::{barrier, layout::MachineHeader};

/// The goroutine returns through a barrier. This is no safepoint: the function's
/// result is only in registers.
///
/// # Safety
/// Called by the stubs alone.
pub(crate) unsafe extern "C" fn on_hit(
    _machine: *mut MachineHeader,
    slot: *mut usize,
    stub: usize,
    fp: usize,
) {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    hit(caller.runtime(), caller.goroutine(), slot as usize, stub, fp);
}

/// An exception has passed a barrier.
///
/// # Safety
/// Called by the landing pad of the stubs alone.
pub(crate) unsafe extern "C" fn on_leapfrog(
    _machine: *mut MachineHeader,
    slot: *mut usize,
    stub: usize,
) {
    debug_assert!(barrier::is_stub(stub));
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    let (runtime, goroutine) = (&**caller.runtime(), caller.goroutine());
    leapfrog(runtime, goroutine, goroutine.bounds().end - slot as usize);
}
