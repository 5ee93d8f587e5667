//! The door to the architecture: the one place that chooses its folder, and the list of what the
//! folder defines. `unwinding` is what the system's unwinder says of frames.

#[cfg(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64"))]
#[path = "x86_64/mod.rs"]
mod target;
#[cfg(all(target_arch = "x86_64", target_os = "windows"))]
#[path = "x86_64_windows/mod.rs"]
mod target;
#[cfg(all(target_arch = "aarch64", target_os = "linux", target_pointer_width = "64"))]
#[path = "aarch64/mod.rs"]
mod target;
#[cfg(all(target_arch = "x86", target_os = "linux"))]
#[path = "i686/mod.rs"]
mod target;
#[cfg(all(target_arch = "arm", target_os = "linux"))]
#[path = "armv7/mod.rs"]
mod target;
#[cfg(not(any(
    all(
        any(
            all(any(target_arch = "x86_64", target_arch = "aarch64"), target_pointer_width = "64"),
            target_arch = "x86",
            target_arch = "arm"
        ),
        target_os = "linux",
        target_endian = "little"
    ),
    all(target_arch = "x86_64", target_os = "windows", target_env = "gnu")
)))]
compile_error!(
    "stackmark supports these targets: x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu, \
     i686-unknown-linux-gnu, armv7-unknown-linux-gnueabihf, x86_64-pc-windows-gnu"
);

pub use target::{
    BARRIER_PAGES, CALL_BYTES, CALL_SYSTEM_BYTES, CALLBACK_FRAME_BYTES, CXX_HEADER_BYTES,
    Continuation, ENTRY_RECORD_AT, PREPARED_BYTES, STUBS_PER_PAGE, authenticate_return,
    jump_target, limit_vectors, sign_return,
};
pub(crate) use target::{
    HEADER_STUBS, HIJACKED_AT, STUB_BYTES, current, initialise, run, stack_pointer, unwinding,
    write_first_frames,
};
// What the personalities need, whose ABI has two forms.
#[cfg(target_arch = "arm")]
pub(crate) use target::CALL_SYSTEM_FP;
#[cfg(target_os = "windows")]
pub(crate) use target::LANDING_REGISTER;
#[cfg(not(any(target_arch = "arm", target_os = "windows")))]
pub(crate) use target::{LANDING_REGISTER, LANDS_AT, leapfrogged_slot};
// What unwinders read that know of nothing else.
#[cfg(target_os = "windows")]
pub use target::{BarrierRecord, describe_barrier, stack_moved};
#[cfg(not(target_os = "windows"))]
pub use told::{BarrierRecord, describe_barrier, stack_moved};

/// Unwinders that evaluate DWARF find all that they need in the table of saved return addresses and
/// in the goroutine's header.
#[cfg(not(target_os = "windows"))]
mod told {
    use crate::layout::{GoroutineHeader, MachineHeader};

    /// What the system's unwinder is told of a barrier: nothing here.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct BarrierRecord;

    /// Tells the system's unwinder where the barrier of a stub lies: nothing is to be told here.
    ///
    /// # Safety
    /// The caller owns the stub and the record.
    #[inline(always)]
    pub unsafe fn describe_barrier(
        index: usize,
        returns_to: usize,
        sp: usize,
        record: *mut BarrierRecord,
    ) {
        let _ = (index, returns_to, sp, record);
    }

    /// Tells the system's unwinder that the stack of the goroutine that a machine runs has moved:
    /// nothing is to be told here.
    ///
    /// # Safety
    /// The machine runs the goroutine, which stands in native code.
    #[inline(always)]
    pub unsafe fn stack_moved(machine: &MachineHeader, goroutine: &GoroutineHeader) {
        let _ = (machine, goroutine);
    }
}

use crate::layout::*;
use core::ffi::c_void;

// What its assembly defines.
unsafe extern "C-unwind" {
    pub(crate) fn stackmark_set_current(machine: *mut MachineHeader);
    pub(crate) fn stackmark_leave(machine: *mut MachineHeader, value: usize) -> !;
    pub(crate) fn stackmark_switch_out();
    pub(crate) fn stackmark_call_system(f: NativeFn, a: *mut c_void, b: usize) -> usize;
    pub(crate) fn stackmark_callback(
        goroutine: *mut GoroutineHeader,
        f: ManagedFn,
        argument: usize,
    ) -> usize;
    pub(crate) fn stackmark_enter_managed(
        goroutine: *mut GoroutineHeader,
        f: ManagedFn,
        argument: usize,
    ) -> usize;
    pub(crate) fn stackmark_call_native(f: NativeFn, a: *mut c_void, b: usize) -> usize;
    pub(crate) fn stackmark_call_native_all(f: NativeFn, a: *mut c_void, b: usize) -> usize;
    pub(crate) fn stackmark_leave_callback_by(
        f: ContinueFn,
        argument: *mut c_void,
        frame: usize,
    ) -> !;
    pub(crate) fn stackmark_continue(at: *const Continuation) -> !;
    pub(crate) fn stackmark_catch(f: CaughtFn, argument: *mut c_void) -> *mut c_void;
    #[cfg(stackmark_tsan)]
    pub(crate) fn stackmark_rewound(f: *const (), a: usize, b: usize, c: usize) -> usize;

    // The ranges of pcs that walks meet, and single ones.
    pub(crate) static stackmark_system_call_begin: u8;
    pub(crate) static stackmark_system_call_end: u8;
    pub(crate) fn stackmark_system_call_resume();
    pub(crate) fn stackmark_system_call_returned();
    pub(crate) static stackmark_callback_begin: u8;
    pub(crate) static stackmark_callback_end: u8;
    pub(crate) static stackmark_enter_begin: u8;
    pub(crate) static stackmark_enter_end: u8;
    pub(crate) static stackmark_call_native_begin: u8;
    pub(crate) static stackmark_call_native_end: u8;
    pub(crate) fn stackmark_enter_returned();
    pub(crate) fn stackmark_call_native_returned();
    pub(crate) fn stackmark_call_native_all_returned();
    pub(crate) fn stackmark_goroutine_entry();
    pub(crate) static stackmark_entry_begin: u8;
    pub(crate) static stackmark_entry_end: u8;
    pub(crate) static stackmark_barrier_pool: u8;
    pub(crate) static stackmark_barrier_pool_end: u8;
}
