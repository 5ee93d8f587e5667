//! What only assembly can do for Stackmark: switching between a goroutine's stack and the system
//! stack, calls out of managed code and callbacks into it, and the stubs of return barriers.
//!
//! The crate knows nothing of goroutines beyond the two `#[repr(C)]` headers in [`layout`]. Each
//! architecture is one folder. The stack pictures on top of its `mod.rs` are the documentation of
//! every frame.
//!
//! ```
//! use stackmark_asm::{self as asm, layout::*};
//! use std::sync::atomic::Ordering::Relaxed;
//!
//! // "Managed" code that calls out once and returns. A real embedder generates it.
//! unsafe extern "C-unwind" fn managed(_g: *mut GoroutineHeader, arg: usize) -> usize {
//!     unsafe { asm::call_system(native, core::ptr::null_mut(), arg) }
//! }
//! unsafe extern "C-unwind" fn native(_a: *mut std::ffi::c_void, b: usize) -> usize {
//!     b + 1
//! }
//! unsafe extern "C-unwind" fn on_exit(_g: *mut std::ffi::c_void, result: usize) -> usize {
//!     unsafe { asm::leave(asm::current(), result) }
//! }
//!
//! let mut stack = vec![0u128; 4096];
//! let mut machine = MachineHeader::new();
//! let mut goroutine = GoroutineHeader::new();
//! let hi = stack.as_mut_ptr_range().end as usize;
//! goroutine.stack_hi.store(hi, Relaxed);
//! goroutine.entry.store(managed as *const () as usize, Relaxed);
//! goroutine.start_arg.store(41, Relaxed);
//! goroutine.on_exit.store(on_exit as *const () as usize, Relaxed);
//! // SAFETY: the headers and the stack outlive the run, and only this thread uses them.
//! let result = unsafe {
//!     asm::prepare(&goroutine);
//!     asm::set_current(&mut machine);
//!     let result = asm::run(&mut machine, &mut goroutine);
//!     asm::set_current(core::ptr::null_mut());
//!     result
//! };
//! assert_eq!(result, 42);
//! ```

mod arch;
#[cfg(stackmark_asan)]
mod asan;
pub mod barrier;
pub mod layout;
mod machine;
mod native;
mod pcs;
mod personality;
mod switch;
pub mod unwinding;

pub use arch::{
    CALL_BYTES, CALL_SYSTEM_BYTES, CALLBACK_FRAME_BYTES, CXX_HEADER_BYTES, Continuation,
    ENTRY_RECORD_AT, PREPARED_BYTES, authenticate_return, jump_target, sign_return, stack_moved,
};
pub use barrier::{BARRIER_PAGES, STUBS_PER_PAGE};
pub use layout::{CaughtFn, ContinueFn, ManagedFn};
pub use machine::{current, set_current, stack_pointer, stackmark_stack_top};
pub use native::{
    call_native, call_native_address, call_native_all, call_native_all_address, enter_managed,
};
pub use pcs::{
    call_native_range, callback_range, enter_range, entry_pc, entry_range, native_return_pc,
    resume_pc, system_call_range,
};
pub use switch::{
    call_system, call_system_address, callback, catch, continue_at, leave, leave_callback_by,
    prepare, run, switch_out_address,
};
