//! Leaving frames without returning from them: what a host's `recover` is made of.
//!
//! [`Caller::unwind_to`] goes on in an older managed frame. Managed frames in between are dropped:
//! contract C1 keeps nothing in them that must be released. Callbacks in between are left one by
//! one, the youngest first: goroutine and machine become what a return from the callback would have
//! left, and the native frames that called back are unwound by `_Unwind_ForcedUnwind`, so that
//! destructors run and the guards of [`Caller::foreign`] and [`Caller::callback`] keep the status
//! right. One rule holds at each step: whatever is younger than the new stack pointer is settled
//! before anything older runs.

use crate::machine::Caller;
use crate::poll;
use crate::scan::{self, ScanError, Stubs};
use crate::status::Status;
use gimli::{Register, X86_64};
use stackmark_asm::{self as asm, Continuation};
use stackmark_unwind::{FrameKind, LiveMemory, RegisterSet, RuleCache, Unwinder};
use std::ffi::{c_int, c_void};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

/// One frame of a goroutine's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameAt {
    /// What it is.
    pub kind: FrameKind,
    /// Where it stands: a return address, so that the function is looked up at the byte before it.
    pub pc: usize,
    /// How far its stack pointer lies below the top of the stack, in bytes: what
    /// [`Caller::unwind_to`] takes. It stays the same when the stack moves.
    pub depth: usize,
    /// The same of its CFA, its caller's stack pointer: it names the frame from its prologue to its
    /// return.
    pub cfa_depth: usize,
}

/// Why [`Caller::unwind_to`] went nowhere.
#[derive(Debug, thiserror::Error)]
pub enum UnwindToError {
    /// No managed frame of the goroutine has its stack pointer there.
    #[error(
        "goroutine {goroutine} has no managed frame with its stack pointer at depth {depth:#x}"
    )]
    NoFrame {
        /// The goroutine's number.
        goroutine: u64,
        /// What was asked for.
        depth: usize,
    },
    /// The stack cannot be walked.
    #[error(transparent)]
    Walk(#[from] ScanError),
}

/// What stands between a goroutine's stack pointer and the frame that it is to go on in.
enum Way {
    /// Nothing but managed frames: these are the registers of the frame.
    Open(Continuation),
    /// A callback, whose part on the goroutine's stack lies at this address.
    Callback(usize),
}

/// An unwinding on its way through native frames. Boxed: it outlives the frames that it began in.
#[repr(C)]
struct Forced {
    /// First: its address is the whole's.
    exception: Exception,
    depth: usize,
    pc: usize,
    values: [usize; 2],
}

/// `_Unwind_Exception` of the Itanium C++ ABI.
#[repr(C, align(16))]
struct Exception {
    class: u64,
    cleanup: Option<unsafe extern "C-unwind" fn(c_int, *mut Exception)>,
    private: [usize; 2],
}

/// "STACKMRK": no language's, so that nobody takes it for an exception of its own.
const CLASS: u64 = u64::from_be_bytes(*b"STACKMRK");
const URC_NO_REASON: c_int = 0;
const UA_END_OF_STACK: c_int = 16;

type Stop = unsafe extern "C-unwind" fn(
    c_int,
    c_int,
    u64,
    *mut Exception,
    *mut c_void,
    *mut c_void,
) -> c_int;

unsafe extern "C-unwind" {
    fn _Unwind_ForcedUnwind(exception: *mut Exception, stop: Stop, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

impl Caller<'_> {
    /// Calls `visit` for each frame of the goroutine, youngest first, until it breaks. Native
    /// frames are not on this stack: see [`full_backtrace`](crate::full_backtrace).
    ///
    /// # Errors
    /// [`ScanError`]: the walk ends early.
    pub fn frames(&self, visit: impl FnMut(FrameAt) -> ControlFlow<()>) -> Result<(), ScanError> {
        // SAFETY: the goroutine has called out to us: it stands still, and only itself moves its
        // stack.
        unsafe { scan::frames(self.runtime(), self.goroutine(), visit) }
    }

    /// Leaves every frame younger than the managed one whose stack pointer is at `depth` (as
    /// [`Caller::frames`] says), and goes on in that one at `pc`, with its callee-saved registers
    /// and `values` in the two registers in which exceptions come (rax, rdx): a landing pad of
    /// Cranelift's `try_call` with the System V convention. Returns only on an error, and has
    /// changed nothing then.
    ///
    /// Barriers in the frames that are left count as leapfrogged, the goroutine is Running
    /// afterwards, and the machine's system stack begins where it did for that frame. Native frames
    /// older than a callback are left by forced unwinding: C++ and Rust destructors run; C frames,
    /// and code without unwind tables, are dropped as `longjmp` would. A native frame that catches
    /// everything ends the process: C++ `catch (...)` that does not rethrow, or Rust's
    /// `catch_unwind`. Use [`Caller::catch_native`], which lets it pass.
    ///
    /// # Safety
    /// `pc` is a place in the code of that frame's function at which it may go on with these
    /// registers, where the frame has the layout that it had at its call. Native frames younger
    /// than the youngest callback own nothing that must be released: they are dropped.
    pub unsafe fn unwind_to(self, depth: usize, pc: usize, values: [usize; 2]) -> UnwindToError {
        let way = match self.way_to(depth, pc, values) {
            Ok(way) => way,
            Err(error) => return error,
        };
        // SAFETY: our contract; the way was found just now.
        unsafe {
            self.go(way, |exception| {
                Box::into_raw(Box::new(Forced { exception, depth, pc, values }))
            })
        }
    }

    /// What lies between here and the frame.
    fn way_to(&self, depth: usize, pc: usize, values: [usize; 2]) -> Result<Way, UnwindToError> {
        let (runtime, goroutine) = (self.runtime(), self.goroutine());
        let bounds = goroutine.bounds();
        let no_frame = || UnwindToError::NoFrame { goroutine: goroutine.id(), depth };
        let target =
            bounds.end.checked_sub(depth).filter(|sp| bounds.contains(sp)).ok_or_else(no_frame)?;
        let sched = &goroutine.header.sched;
        let [start, sp, fp] =
            [&sched.pc, &sched.sp, &sched.fp].map(|word| word.load(Ordering::Relaxed));
        let (snapshot, mut cache) = (runtime.code.snapshot(), RuleCache::fixed(CACHED_PCS));
        // SAFETY: the stack is mapped and moves only when this thread runs managed code.
        let memory = unsafe { LiveMemory::new(bounds) };
        let mut trace =
            Unwinder::new(&snapshot, &mut cache, memory, Stubs, RegisterSet::new(start, sp, fp))
                .at_return_address();
        loop {
            let sp = trace.register(X86_64::RSP).ok_or_else(no_frame)?;
            let at = trace.register(X86_64::RA).ok_or_else(no_frame)?;
            if sp >= target {
                if sp > target || snapshot.kind(at - 1) != Some(FrameKind::Managed) {
                    return Err(no_frame());
                }
                break;
            }
            if asm::callback_range().contains(&(at - 1)) {
                // Where the images are known, a trace goes on to the native caller, on another
                // stack. What is older is no matter before the callback has been left, but that the
                // frame is there.
                let mut found = false;
                self.frames(|frame| {
                    found = frame.depth == depth && frame.kind == FrameKind::Managed;
                    if found || frame.depth < depth {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })?;
                return if found { Ok(Way::Callback(sp)) } else { Err(no_frame()) };
            }
            let frame = trace
                .next_frame()
                .map_err(|error| ScanError { goroutine: goroutine.id(), error })?;
            if frame.is_none() {
                return Err(no_frame());
            }
        }
        // Every walk begins in call_system's part, which has saved all of them.
        let register = |number| trace.register(Register(number));
        Continuation::new(pc, target, values, register).map(Way::Open).ok_or_else(no_frame)
    }

    /// Goes on along `way`. `forced` makes the unwinding of native frames, or finds the one that is
    /// under way.
    ///
    /// # Safety
    /// As for [`Caller::unwind_to`].
    unsafe fn go(self, way: Way, forced: impl FnOnce(Exception) -> *mut Forced) -> ! {
        let (runtime, goroutine) = (self.runtime(), self.goroutine());
        if goroutine.status.is_foreign() {
            self.back_inside(Status::Foreign);
        }
        let hi = goroutine.bounds().end;
        match way {
            Way::Open(continuation) => {
                poll::leave_frames(runtime, goroutine, hi - continuation.sp());
                // SAFETY: the frame is managed, with the registers that the walk found, and no
                // callback is younger.
                unsafe { asm::continue_at(&continuation) }
            }
            Way::Callback(frame) => {
                poll::leave_frames(runtime, goroutine, hi - (frame + asm::CALLBACK_FRAME_BYTES));
                let exception =
                    Exception { class: CLASS, cleanup: Some(was_swallowed), private: [0; 2] };
                // SAFETY: the youngest callback's frame, found by a walk; frames younger than it
                // own nothing.
                unsafe {
                    asm::leave_callback_by(unwind_native_frames, forced(exception).cast(), frame)
                }
            }
        }
    }
}

/// How many pcs a walk to a frame remembers: panics are rare, recursions are not.
const CACHED_PCS: usize = 64;

/// Unwinds the native frames from the caller of `callback`, in whose place it is called, to the
/// call out below them.
///
/// # Safety
/// Called by `leave_callback_by` with a [`Forced`].
unsafe extern "C-unwind" fn unwind_native_frames(forced: *mut c_void) -> ! {
    // SAFETY: the exception is the box's first field, and stays there.
    unsafe {
        _Unwind_ForcedUnwind(forced.cast(), stop, forced);
        go_on(forced.cast())
    }
}

/// Called for each frame, before what is to be done for it is done.
///
/// # Safety
/// Called by the unwinder.
unsafe extern "C-unwind" fn stop(
    _version: c_int,
    actions: c_int,
    _class: u64,
    _exception: *mut Exception,
    context: *mut c_void,
    forced: *mut c_void,
) -> c_int {
    // SAFETY: the unwinder's context.
    let pc = unsafe { _Unwind_GetIP(context) };
    if pc == asm::native_return_pc() || actions & UA_END_OF_STACK != 0 {
        // SAFETY: the native frames of this call out are done with, or have no unwind tables.
        unsafe { go_on(forced.cast()) }
    }
    URC_NO_REASON
}

/// The native frames that called back are left, and the goroutine stands in the call out that
/// called them.
///
/// # Safety
/// `forced` is the unwinding under way on this thread.
unsafe fn go_on(forced: *mut Forced) -> ! {
    // SAFETY: used within this function alone; it does not return.
    unsafe {
        let caller = Caller::current();
        let Forced { depth, pc, values, .. } = *forced;
        let way = caller
            .way_to(depth, pc, values)
            .unwrap_or_else(|error| caller.runtime().host.fatal(&error));
        if let Way::Open(_) = way {
            drop(Box::from_raw(forced));
        }
        caller.go(way, |exception| {
            (*forced).exception = exception;
            forced
        })
    }
}

/// Native code that has caught the unwinding and not thrown it again, which leaves nobody to go on
/// with.
#[derive(Debug, thiserror::Error)]
#[error("native code has caught frames being left for a managed one, and has not thrown on")]
struct Swallowed;

/// Called when somebody deletes the exception.
///
/// # Safety
/// Called by the unwinder.
unsafe extern "C-unwind" fn was_swallowed(_reason: c_int, _exception: *mut Exception) {
    // SAFETY: forced unwinding happens on threads that run a goroutine; not used afterwards.
    unsafe { Caller::current() }.runtime().host.fatal(&Swallowed)
}
