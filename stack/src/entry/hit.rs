//! The functions that barrier stubs call: on a return, and on an exception that passes. And what
//! `call_native` calls on its way back, where a stub can not lie.

use crate::machine::Caller;
use crate::scan::{hit, leapfrog, watched};
use stackmark_asm::{barrier, layout::MachineHeader};
use stackmark_unwind::Registers;

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
    hit(caller.runtime(), caller.machine(), caller.goroutine(), (slot as usize, stub, fp));
}

/// An exception has passed a barrier.
///
/// # Safety
/// Called by the stubs alone.
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

/// A native call comes back to the managed frame with these registers, by a return or an exception,
/// and something that is watched is younger. As a hit, this is no safepoint.
///
/// # Safety
/// Called by `call_native` alone.
pub(crate) unsafe extern "C" fn on_watched(
    _machine: *mut MachineHeader,
    sp: usize,
    pc: usize,
    fp: usize,
) {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    caller.come_back_to(sp);
    watched(caller.runtime(), caller.goroutine(), Registers { pc, sp, fp });
}
