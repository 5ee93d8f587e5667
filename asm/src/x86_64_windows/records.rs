//! Records by which Windows' unwinders go from one stack to the other, and through stubs.
//!
//! An unwind code adds to the stack pointer or takes it from a register. One takes pc and stack
//! pointer from memory: that for the frame of an interrupt, `UWOP_PUSH_MACHFRAME`. So what has no
//! caller above it on its own stack has such a frame, of which unwinders read two words.

use crate::barrier::TABLE_WORDS;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::Release};

/// Pc and stack pointer where an unwinder goes on, at their places in the frame of an interrupt.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct BarrierRecord {
    pc: usize,
    unused: [usize; 2],
    sp: usize,
}

/// The same for a part on S, with what the assembly keeps between the two.
#[repr(C)]
pub(super) struct SystemRecord {
    pc: usize,
    goroutine: usize,
    pub(super) depth: usize,
    pub(super) sp: usize,
}

const _: () = {
    assert!(offset_of!(BarrierRecord, sp) == 0x18);
    assert!(offset_of!(SystemRecord, depth) == 0x10);
    assert!(offset_of!(SystemRecord, sp) == 0x18);
};

/// `UNWIND_INFO` of a stub: adds to the stack pointer, which is then at the barrier's record, and
/// goes on there.
#[repr(C, align(4))]
struct StubUnwind([AtomicU32; STUB_UNWIND_BYTES / 4]);

/// Bytes of a stub's information.
pub(super) const STUB_UNWIND_BYTES: usize = 20;

/// Those of all stubs. They are 0 until the stub is described: no unwinder comes there before.
#[unsafe(no_mangle)]
static stackmark_barrier_unwind: [StubUnwind; TABLE_WORDS] =
    [const { StubUnwind([const { AtomicU32::new(0) }; STUB_UNWIND_BYTES / 4]) }; TABLE_WORDS];

unsafe extern "C" {
    static __ImageBase: u8;
    fn stackmark_barrier_handler();
}

/// Where the barrier of a stub lies, for the system's unwinder: `sp` is the stack pointer with
/// which the frame returned to goes on, `returns_to` the saved return address. To be called before
/// a slot holds the stub, and when the stack has moved.
///
/// # Panics
/// If the record does not lie above `sp`, less than 4 GiB away.
///
/// # Safety
/// The caller owns the stub and the record, which stays where it is until no slot holds the stub.
pub unsafe fn describe_barrier(
    index: usize,
    returns_to: usize,
    sp: usize,
    record: *mut BarrierRecord,
) {
    const ALLOC_SMALL_8: u32 = 0x02;
    const ALLOC_LARGE_32: u32 = 0x11;
    const PUSH_MACHFRAME: u32 = 0x0a;
    /// Version 1, with a handler for unwinding; no prologue; five codes; no frame register. The
    /// first code is there so that the operand of the second one is aligned.
    const HEAD: u32 = 1 | 2 << 3 | 5 << 16;
    let distance = (record as usize).checked_sub(sp + 8).and_then(|d| u32::try_from(d).ok());
    let distance = distance.expect("the record of a barrier lies above it, within 4 GiB");
    // SAFETY: our contract; the image's own addresses.
    let handler = unsafe {
        record.write(BarrierRecord { pc: returns_to, unused: [0; 2], sp });
        stackmark_barrier_handler as *const () as usize - (&raw const __ImageBase) as usize
    };
    let StubUnwind(words) = &stackmark_barrier_unwind[index];
    words[0].store(HEAD, Relaxed);
    words[1].store(ALLOC_SMALL_8 << 8 | ALLOC_LARGE_32 << 24, Relaxed);
    words[3].store(PUSH_MACHFRAME << 8, Relaxed);
    words[4].store(handler as u32, Relaxed);
    // Release: the slot is written later; an unwinder of another thread reads it first.
    words[2].store(distance, Release);
}
