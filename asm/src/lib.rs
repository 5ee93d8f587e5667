//! What only assembly can do for Stackmark: switching between a goroutine's stack and the system
//! stack, calls out of managed code and callbacks into it, and the stubs of return barriers.
//!
//! The crate knows nothing of goroutines beyond the two `#[repr(C)]` headers in [`layout`]. Each
//! architecture is one file; the stack pictures at its top are the documentation of every frame.
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
//! // SAFETY: the headers and the stack outlive the run, and nobody else uses them.
//! let result = unsafe {
//!     asm::prepare(&goroutine);
//!     asm::set_current(&mut machine);
//!     let result = asm::run(&mut machine, &mut goroutine);
//!     asm::set_current(core::ptr::null_mut());
//!     result
//! };
//! assert_eq!(result, 42);
//! ```

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64")))]
compile_error!("stackmark supports these targets: x86_64-unknown-linux-gnu");

#[cfg(stackmark_asan)]
mod asan;
pub mod barrier;
pub mod layout;
mod personality;
mod x86_64;

pub use barrier::{BARRIER_PAGES, STUBS_PER_PAGE};

use core::ffi::c_void;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use layout::{Continuation, GoroutineHeader, MachineHeader, NativeFn};
use x86_64 as arch;

unsafe extern "C-unwind" {
    fn stackmark_leave(machine: *mut MachineHeader, value: usize) -> !;
    fn stackmark_switch_out();
    fn stackmark_call_system(f: NativeFn, a: *mut c_void, b: usize) -> usize;
    fn stackmark_callback(goroutine: *mut GoroutineHeader, f: ManagedFn, argument: usize) -> usize;
    fn stackmark_leave_callback_by(f: ContinueFn, argument: *mut c_void, frame: usize) -> !;
    fn stackmark_continue(at: *const Continuation) -> !;
    fn stackmark_catch(f: CaughtFn, argument: *mut c_void) -> *mut c_void;
    #[cfg(stackmark_tsan)]
    fn stackmark_rewound(f: *const (), a: usize, b: usize, c: usize) -> usize;
    fn stackmark_goroutine_entry();
    fn stackmark_system_call_resume();
    fn stackmark_system_call_returned();
    fn stackmark_set_current(machine: *mut MachineHeader);
    static stackmark_system_call_begin: u8;
    static stackmark_system_call_end: u8;
    static stackmark_callback_begin: u8;
    static stackmark_callback_end: u8;
    static stackmark_entry_begin: u8;
    static stackmark_entry_end: u8;
}

/// Managed code as [`callback`] calls it: one word in, one word out.
pub type ManagedFn = unsafe extern "C-unwind" fn(usize) -> usize;

/// What [`leave_callback_by`] goes on with.
pub type ContinueFn = unsafe extern "C-unwind" fn(*mut c_void) -> !;

/// What [`catch`] calls.
pub type CaughtFn = unsafe extern "C-unwind" fn(*mut c_void);

/// Bytes of `callback`'s frame on the goroutine's stack, from its stack pointer to its CFA. Its
/// return slot, which holds `g.sched.pc`, is the word below that CFA.
pub const CALLBACK_FRAME_BYTES: usize = arch::CALLBACK_BYTES;

/// Bytes of stack that managed code must leave free below its stack pointer whenever it calls: the
/// parts of `call_system`, of `callback` and of the barrier stubs that lie on the goroutine's
/// stack, with their return addresses.
pub const CALL_BYTES: usize = 128;

/// Bytes of a stack that a goroutine which has not run yet occupies.
pub const PREPARED_BYTES: usize = arch::PREPARED_BYTES;

/// Builds the frames of a goroutine that has not run yet at `stack_hi` and sets `sched` to them.
///
/// # Safety
/// `stack_hi` is 16-aligned and the [`PREPARED_BYTES`] below it are writable and used by nobody
/// else.
pub unsafe fn prepare(goroutine: &GoroutineHeader) {
    let hi = goroutine.stack_hi.load(Relaxed);
    let sp = hi - PREPARED_BYTES;
    // SAFETY: the caller owns the bytes from sp to hi.
    unsafe {
        core::ptr::write_bytes(sp as *mut u8, 0, PREPARED_BYTES);
        *((sp + arch::PARKED_R12) as *mut usize) = core::ptr::from_ref(goroutine) as usize;
        *((sp + arch::PARKED_RETURN) as *mut usize) =
            stackmark_goroutine_entry as *const () as usize;
    }
    goroutine.sched.pc.store(resume_pc(), Relaxed);
    goroutine.sched.sp.store(sp, Relaxed);
    goroutine.sched.fp.store(0, Relaxed);
}

/// Runs a goroutine from where its `sched` stands until it [`leave`]s or [switches
/// out](switch_out_address); returns the value given there.
///
/// Inlined, and best called from the scheduler's loop itself: then the processor predicts every
/// return (the idea is corosensei's).
///
/// # Safety
/// `machine` is the calling thread's [`current`] machine, and runs no goroutine. `sched` describes
/// a parked or [`prepare`]d goroutine whose stack lies at `stack_hi`, and no other machine runs it.
#[inline(always)]
pub unsafe fn run(machine: *mut MachineHeader, goroutine: *mut GoroutineHeader) -> usize {
    // SAFETY: the caller's contract is that of the assembly.
    #[cfg(not(stackmark_tsan))]
    unsafe {
        arch::run(machine, goroutine)
    }
    // SAFETY: as above, with one argument that is not looked at.
    #[cfg(stackmark_tsan)]
    unsafe {
        stackmark_rewound(
            arch::run_out_of_line as *const (),
            machine as usize,
            goroutine as usize,
            0,
        )
    }
}

/// Leaves the goroutine that called out and goes back to the scheduler: [`run`] returns `value`.
///
/// The native frames between the call out and here are dropped without running destructors.
///
/// # Safety
/// `machine` is the calling thread's [`current`] machine and runs a goroutine that called out. No
/// frame in between owns anything that must be released.
#[inline]
pub unsafe fn leave(machine: *mut MachineHeader, value: usize) -> ! {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { stackmark_leave(machine, value) }
}

/// Calls `f(a, b)` on the system stack, from managed code. Generated code calls
/// [`call_system_address`] itself.
///
/// # Safety
/// The caller runs on the stack of the goroutine that the current machine runs.
#[inline]
pub unsafe fn call_system(f: NativeFn, a: *mut c_void, b: usize) -> usize {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { stackmark_call_system(f, a, b) }
}

/// The address that managed code calls, with the platform's C convention, for `call_system(f, a, b)
/// -> word`.
pub fn call_system_address() -> usize {
    stackmark_call_system as *const () as usize
}

/// The address that managed code calls for `switch_out(value) -> word`: it leaves its goroutine
/// without calling a native function, [`run`] returns `value`, and the call returns what is in
/// `resume_value` when the goroutine goes on. The goroutine stands in a frame that counts as one of
/// `call_system` meanwhile. In a callback, whose native caller keeps its thread, the call returns
/// `value` at once.
///
/// Argument and result travel as by the platform's C convention, but the call keeps only the stack
/// pointer, rbp and r15: whatever else the caller needs, it spills. That is Cranelift's
/// `CallConv::Winch` (with or without a pinned register), or LLVM's `preserve_none` around a thunk
/// that moves the argument. The call is a safepoint.
pub fn switch_out_address() -> usize {
    stackmark_switch_out as *const () as usize
}

/// Calls managed code `f(argument)` from native code, on the goroutine's stack below the frame that
/// called out.
///
/// # Safety
/// The calling thread's machine runs `goroutine`, which has called out to the caller; its stack has
/// [`CALLBACK_FRAME_BYTES`] below `sched.sp`. `f` keeps contract C1.
#[inline]
pub unsafe fn callback(goroutine: *mut GoroutineHeader, f: ManagedFn, argument: usize) -> usize {
    // SAFETY: the caller's contract is that of the assembly.
    #[cfg(not(stackmark_tsan))]
    unsafe {
        stackmark_callback(goroutine, f, argument)
    }
    // SAFETY: as above.
    #[cfg(stackmark_tsan)]
    unsafe {
        stackmark_rewound(stackmark_callback as *const (), goroutine as usize, f as usize, argument)
    }
}

/// Leaves the callback whose part on the goroutine's stack lies at `frame`, as a return from it
/// would, and calls `f(argument)` on the system stack as if the callback's native caller had called
/// it. What is younger is dropped.
///
/// # Safety
/// The calling thread's machine runs a goroutine that has called out to the caller; `frame` is the
/// stack pointer of the youngest `callback` frame on its stack. No frame in between owns anything
/// that must be released.
pub unsafe fn leave_callback_by(f: ContinueFn, argument: *mut c_void, frame: usize) -> ! {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { stackmark_leave_callback_by(f, argument, frame) }
}

/// Goes on in a managed frame of the goroutine that this thread's machine runs; everything younger
/// is dropped.
///
/// # Safety
/// `at` is a place in the code of a managed frame, with the registers that the frame expects there.
/// No `callback` frame and nothing that must be released is younger.
pub unsafe fn continue_at(at: &Continuation) -> ! {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { stackmark_continue(at) }
}

/// Calls `f(argument)`; returns null, or the `_Unwind_Exception` that has left it. Forced unwinding
/// passes.
///
/// # Safety
/// `f` may be called with `argument`, and may be left by exceptions.
pub unsafe fn catch(f: CaughtFn, argument: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's contract is that of the assembly.
    unsafe { stackmark_catch(f, argument) }
}

/// The stack pointer. Not the address of a local: under a sanitizer that may lie anywhere.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let sp;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov {0}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags))
    };
    sp
}

/// The machine of this OS thread, or null.
#[inline]
pub fn current() -> *mut MachineHeader {
    let machine;
    // SAFETY: reads one word of thread-local storage, which stays the same while native code runs:
    // a goroutine changes its thread only on its way through call_system.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + stackmark_machine@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0}]",
            out(reg) machine,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    machine
}

/// Attaches `machine` to this OS thread; null detaches.
///
/// # Safety
/// The header stays valid and in place until the thread is detached. No managed frame is on this
/// thread.
pub unsafe fn set_current(machine: *mut MachineHeader) {
    barrier::initialise();
    // SAFETY: the assembly stores one word of thread-local storage.
    unsafe { stackmark_set_current(machine) }
}

/// One past the highest address of the current goroutine's stack, for C wrappers that write results
/// into it.
///
/// # Safety
/// The calling thread's machine runs a goroutine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stackmark_stack_top() -> usize {
    // SAFETY: the machine runs a goroutine, whose header is alive.
    unsafe {
        let goroutine = (*current()).goroutine.load(Relaxed) as *const GoroutineHeader;
        (*goroutine).stack_hi.load(Relaxed)
    }
}

/// The pc at which every goroutine that has called out goes on: what `sched.pc` holds unless the
/// goroutine has [switched out](switch_out_address).
#[inline]
pub fn resume_pc() -> usize {
    stackmark_system_call_resume as *const () as usize
}

/// The pc of `call_system`'s part on the system stack while native code runs: the oldest frame of a
/// call out there.
pub fn native_return_pc() -> usize {
    stackmark_system_call_returned as *const () as usize
}

fn range(begin: *const u8, end: *const u8) -> Range<usize> {
    begin as usize..end as usize
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
