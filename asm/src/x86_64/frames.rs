//! The sizes of the frames on a goroutine's stack, as the pictures show them.

use crate::layout::{EntryRecord, GoroutineHeader};
use core::mem::offset_of;
use core::sync::atomic::Ordering::Relaxed;

/// Bytes of `call_system`'s part with its return address, which lies at its top.
pub const CALL_SYSTEM_BYTES: usize = 56;
/// Where that part keeps r12.
pub(super) const CALL_SYSTEM_R12: usize = 24;
/// Where that part keeps the return address.
pub(super) const CALL_SYSTEM_RETURN: usize = CALL_SYSTEM_BYTES - 8;
/// Bytes of `barrier_common`'s part with the slot.
const BARRIER_BYTES: usize = 96;

/// Bytes of stack that managed code must leave free below its stack pointer whenever it calls: the
/// parts of `call_system`, of `callback` and of the barrier stubs that lie on the goroutine's
/// stack, with their return addresses.
pub const CALL_BYTES: usize = 128;
const _: () = assert!(CALL_SYSTEM_BYTES + CALLBACK_FRAME_BYTES <= CALL_BYTES);
const _: () = assert!(BARRIER_BYTES <= CALL_BYTES);

/// Bytes of `callback`'s frame on the goroutine's stack, from its stack pointer to its CFA. Its
/// return slot, which holds `g.sched.pc`, is the word below that CFA.
pub const CALLBACK_FRAME_BYTES: usize = 40;

/// Bytes of a stack that a goroutine which has not run yet occupies.
pub const PREPARED_BYTES: usize = CALL_SYSTEM_BYTES + 16;

/// Bytes from the stack pointer of `enter_managed`'s frame to its record.
pub const ENTRY_RECORD_AT: usize = 0;

/// The slot of the barrier that an exception has passed, of a goroutine that the stub has made call
/// out: `call_system` returns through it.
pub(crate) fn leapfrogged_slot(goroutine: &GoroutineHeader) -> *mut usize {
    let sp = goroutine.sched.sp.load(Relaxed);
    let is_native = goroutine.entered.load(Relaxed) != 0;
    // The anchor is the stack pointer that the frame returned to has behind its call.
    (if is_native { sp - size_of::<usize>() } else { sp + CALL_SYSTEM_RETURN }) as *mut usize
}

/// `enter_managed` pushes the words of its record, the last one first.
const _: () = {
    assert!(offset_of!(EntryRecord, goroutine) == 0);
    assert!(offset_of!(EntryRecord, anchor.pc) == 8);
    assert!(offset_of!(EntryRecord, anchor.sp) == 16);
    assert!(offset_of!(EntryRecord, anchor.fp) == 24);
    assert!(offset_of!(EntryRecord, previous) == 32);
};
