//! The sizes of the frames on a goroutine's stack, as the pictures show them.

use super::records::SystemRecord;
use crate::layout::{EntryRecord, GoroutineHeader, MachineHeader};
use core::mem::offset_of;
use core::sync::atomic::Ordering::Relaxed;

/// Bytes of `call_system`'s part with its return address, which lies at its top.
pub const CALL_SYSTEM_BYTES: usize = 240;
/// Where that part keeps r12.
pub(super) const CALL_SYSTEM_R12: usize = CALL_SYSTEM_BYTES - 48;
/// Where that part keeps the return address.
pub(super) const CALL_SYSTEM_RETURN: usize = CALL_SYSTEM_BYTES - 8;
/// Bytes of `barrier_common`'s part with the slot.
const BARRIER_BYTES: usize = 80;
/// Bytes of `goroutine_entry` with its return address, which is 0.
const ENTRY_BYTES: usize = 48;

/// Bytes of stack that managed code must leave free below its stack pointer whenever it calls: the
/// parts of `call_system`, of `callback` and of the barrier stubs that lie on the goroutine's
/// stack, with their return addresses.
pub const CALL_BYTES: usize = 320;
const _: () = assert!(CALL_SYSTEM_BYTES + CALLBACK_FRAME_BYTES <= CALL_BYTES);
const _: () = assert!(BARRIER_BYTES <= CALL_BYTES);

/// Bytes of `callback`'s frame on the goroutine's stack, from its stack pointer to its CFA. Its
/// return slot, which holds `g.sched.pc`, is the word below that CFA.
pub const CALLBACK_FRAME_BYTES: usize = 80;

/// Bytes of a stack that a goroutine which has not run yet occupies.
pub const PREPARED_BYTES: usize = CALL_SYSTEM_BYTES + ENTRY_BYTES;

/// Bytes from the stack pointer of `enter_managed`'s frame to its record.
pub const ENTRY_RECORD_AT: usize = 32;

/// The stack of the goroutine that a machine runs has moved: tells the parts on the system stack of
/// the calls and hits that are under way, for unwinders.
///
/// # Safety
/// The machine runs the goroutine, which stands in native code. Its callbacks are on the machine's
/// system stack, which does not change meanwhile.
pub unsafe fn stack_moved(machine: &MachineHeader, goroutine: &GoroutineHeader) {
    let hi = goroutine.stack_hi.load(Relaxed);
    let mut system_sp = machine.system_sp.load(Relaxed);
    for _ in 0..=goroutine.callback_depth.load(Relaxed) {
        if system_sp == 0 {
            // The oldest callback is that of a thread that has called in by itself.
            return;
        }
        // SAFETY: a part on S begins with the record of its part on G. A callback's part on S,
        // where the next younger calls begin, has at its stack pointer where they began before.
        unsafe {
            let record = (system_sp as *mut SystemRecord).sub(1);
            (*record).sp = hi - (*record).depth;
            system_sp = *(system_sp as *const usize);
        }
    }
}

/// The record of `enter_managed` is as the assembly writes it.
const _: () = {
    assert!(offset_of!(EntryRecord, goroutine) == 0);
    assert!(offset_of!(EntryRecord, anchor.pc) == 8);
    assert!(offset_of!(EntryRecord, anchor.sp) == 16);
    assert!(offset_of!(EntryRecord, anchor.fp) == 24);
    assert!(offset_of!(EntryRecord, previous) == 32);
};
