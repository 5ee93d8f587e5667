//! The sizes of the frames on a goroutine's stack, as the pictures show them.

use crate::layout::EntryRecord;
use core::mem::offset_of;

/// Bytes of `call_system`'s part.
pub const CALL_SYSTEM_BYTES: usize = 104;
/// Where that part keeps r4.
pub(super) const CALL_SYSTEM_R4: usize = 4;
/// Where that part keeps the frame pointer.
pub(crate) const CALL_SYSTEM_FP: usize = CALL_SYSTEM_BYTES - 8;
/// Where that part keeps the return address.
pub(super) const CALL_SYSTEM_RETURN: usize = CALL_SYSTEM_BYTES - 4;
/// Bytes of `barrier_common`'s part.
const BARRIER_BYTES: usize = 24;
/// Bytes that libgcc writes below the stack pointer with which it enters a landing pad.
const LANDING_BYTES: usize = 4;

/// Bytes of stack that managed code must leave free below its stack pointer whenever it calls: the
/// parts of `call_system`, of `callback` and of the barrier stubs that lie on the goroutine's
/// stack, with their return addresses.
pub const CALL_BYTES: usize = 128;
const _: () = assert!(CALL_SYSTEM_BYTES + CALLBACK_FRAME_BYTES <= CALL_BYTES);
const _: () = assert!(BARRIER_BYTES <= CALL_BYTES && LANDING_BYTES <= CALL_BYTES);

/// Bytes of `callback`'s frame on the goroutine's stack, from its stack pointer to its CFA. Its
/// return slot, which holds `g.sched.pc`, is the word below that CFA.
pub const CALLBACK_FRAME_BYTES: usize = 16;

/// Bytes of a stack that a goroutine which has not run yet occupies.
pub const PREPARED_BYTES: usize = CALL_SYSTEM_BYTES + 16;

/// Bytes from the stack pointer of `enter_managed`'s frame to its record.
pub const ENTRY_RECORD_AT: usize = 0;

/// `enter_managed` stores the words of its record at once.
const _: () = {
    assert!(offset_of!(EntryRecord, goroutine) == 0);
    assert!(offset_of!(EntryRecord, anchor.pc) == 4);
    assert!(offset_of!(EntryRecord, anchor.sp) == 8);
    assert!(offset_of!(EntryRecord, anchor.fp) == 12);
    assert!(offset_of!(EntryRecord, previous) == 16);
};
