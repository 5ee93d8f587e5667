//! Leaving frames without returning from them. A host builds its `recover` on it.
//!
//! [`Caller::unwind_to`] continues in an older managed frame. It drops the managed frames in
//! between: they own nothing that must be released. It leaves the callbacks in between one by
//! one, the youngest first. Goroutine and machine become what a return from the callback would
//! have left. `_Unwind_ForcedUnwind` unwinds the native frames that called back, so
//! destructors run, and the guards of [`Caller::foreign`] and [`Caller::callback`] keep the
//! status right. One rule holds at each step: barriers younger than the new stack pointer are
//! settled before an older frame runs.
//!
//! On a native stack one forced unwinding leaves all frames: see `leaving_on_thread`.

use super::caller::Caller;
use crate::os;
use crate::protocol::Status;
use crate::runtime::throw;
use crate::scan::{self, FrameAt, ScanError, Stubs};
use crate::word::Word;
use gimli::Register;
use stackmark_asm::{self as asm, Continuation, unwinding};
use stackmark_unwind::{FrameKind, LiveMemory, RegisterSet, Registers, RuleCache, Unwinder};
use std::ffi::{c_int, c_void};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

/// Why [`Caller::unwind_to`] or [`Caller::unwind_to_landing_pad`] left no frame.
#[derive(Debug, thiserror::Error)]
pub enum UnwindToError {
    /// No managed frame of the goroutine has its stack pointer there.
    #[error(
        "goroutine {goroutine} has no managed frame with its stack pointer at depth {depth:#x}"
    )]
    NoFrame {
        /// The goroutine's number.
        goroutine: u64,
        /// The depth that was asked for.
        depth: usize,
    },
    /// No frame of the goroutine has a landing pad.
    #[error("goroutine {goroutine} has no frame with a landing pad")]
    NoLandingPad {
        /// The goroutine's number.
        goroutine: u64,
    },
    /// The goroutine runs on its thread's own stack, and there a native frame without unwind tables
    /// is younger than the frame. On Windows no frame of such a stack is left for.
    #[error(
        "the frame of goroutine {goroutine} at depth {depth:#x} lies beyond native frames that \
         have no unwind tables"
    )]
    NoUnwindTables {
        /// The goroutine's number.
        goroutine: u64,
        /// The depth of the frame's stack pointer.
        depth: usize,
    },
    /// The stack cannot be walked.
    #[error(transparent)]
    Walk(#[from] ScanError),
}

/// What lies between a goroutine's stack pointer and the frame to continue in.
// One value at a time, on the stack: a box would be no smaller.
#[allow(clippy::large_enum_variant)]
enum Way {
    /// Only managed frames. These are the registers of the frame to continue in, and the return
    /// address of the call at which it stands.
    Open { continuation: Continuation, call: usize },
    /// A callback, whose frame on the goroutine's stack lies at this address.
    Callback(usize),
    /// Frames of either kind, on the thread's own stack.
    OnThread,
}

/// How many words a landing pad gets.
const VALUES: usize = 2;

/// A forced unwinding of native frames. Boxed, because it outlives the frames that it began in.
#[repr(C)]
pub(super) struct Forced {
    /// The first field, so that its address is that of the whole.
    exception: Exception,
    /// The depth of the stack pointer of the frame to continue in.
    pub(super) depth: usize,
    /// Where the frame continues.
    pub(super) pc: usize,
    /// What it gets. They are roots until then.
    pub(super) values: [usize; VALUES],
    /// The registers that functions keep.
    pub(super) kept: unwinding::Kept,
}

/// `_Unwind_Exception` of the unwinder's ABI.
#[repr(C, align(16))]
pub(super) struct Exception {
    class: [u8; 8],
    cleanup: Option<unsafe extern "C-unwind" fn(c_int, *mut Exception)>,
    private: [usize; unwinding::PRIVATE_WORDS],
}

/// "STACKMRK": the class of no language, so that no handler takes the exception for its own.
const CLASS: u64 = u64::from_be_bytes(*b"STACKMRK");
pub(super) const URC_NO_REASON: c_int = 0;
pub(super) const UA_END_OF_STACK: c_int = 16;

pub(super) type Stop = unsafe extern "C-unwind" fn(
    c_int,
    c_int,
    unwinding::ClassArgument,
    *mut Exception,
    *mut c_void,
    *mut c_void,
) -> c_int;

unsafe extern "C-unwind" {
    pub(super) fn _Unwind_ForcedUnwind(
        exception: *mut Exception,
        stop: Stop,
        argument: *mut c_void,
    ) -> c_int;
}

impl Caller<'_> {
    /// Leaves every frame younger than the managed one whose stack pointer is at `depth`, as
    /// [`Caller::frames`] gives it, and continues in that frame at `pc`. The frame has its
    /// callee-saved registers, and `values` in rax and rdx, the registers of exceptions: `pc` is a
    /// landing pad of Cranelift's `try_call` with the System V convention. Returns only on an
    /// error, and has changed nothing then.
    ///
    /// The goroutine is InForeign while the frame is looked for, however many frames lie between.
    /// `values` are roots meanwhile.
    ///
    /// Barriers in the frames that are left count as leapfrogged. The goroutine is Running
    /// afterwards, and the machine's system stack begins where it did for that frame. Forced
    /// unwinding leaves the native frames older than a callback: C++ and Rust destructors run. C
    /// frames and code without unwind tables are dropped as by `longjmp`. A native frame that
    /// catches the unwinding ends the process: C++ `catch (...)` without a rethrow, or Rust's
    /// `catch_unwind`. [`Caller::catch_native`] lets the unwinding pass.
    ///
    /// # Safety
    /// The frame's function may continue at `pc` with these registers and with the frame's layout
    /// at its call. Native frames younger than the youngest callback own nothing that must be
    /// released: they are dropped.
    pub unsafe fn unwind_to(self, depth: usize, pc: usize, values: [usize; 2]) -> UnwindToError {
        // SAFETY: our contract.
        unsafe { self.unwind_to_found(values, |_| Ok((depth, pc))) }
    }

    /// As [`Caller::unwind_to`], for the youngest frame of which `pad` knows where to continue. The
    /// frames are looked at, youngest first, while the goroutine is InForeign: `pad` touches
    /// nothing that the collector moves.
    ///
    /// # Safety
    /// As for [`Caller::unwind_to`], with what `pad` returns as the `pc`.
    pub unsafe fn unwind_to_landing_pad(
        self,
        values: [usize; 2],
        mut pad: impl FnMut(FrameAt) -> Option<usize>,
    ) -> UnwindToError {
        let find = |caller: &Self| {
            let mut found = None;
            caller.frames(|frame| {
                let depth = frame.depth;
                found = pad(frame).map(|pc| (depth, pc));
                if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            let goroutine = caller.goroutine().id();
            found.ok_or(UnwindToError::NoLandingPad { goroutine })
        };
        // SAFETY: our contract.
        unsafe { self.unwind_to_found(values, find) }
    }

    /// Leaves the frames younger than the one that `find` yields: its depth, and where to continue.
    ///
    /// # Safety
    /// As for [`Caller::unwind_to`].
    unsafe fn unwind_to_found(
        self,
        values: [usize; 2],
        find: impl FnOnce(&Self) -> Result<(usize, usize), UnwindToError>,
    ) -> UnwindToError {
        let found = self.outside(values, |caller| {
            let (depth, pc) = find(caller)?;
            Ok((depth, pc, caller.way_to(depth, pc, values)?))
        });
        let (depth, pc, way) = match found {
            Ok(found) => found,
            Err(error) => return error,
        };
        // SAFETY: our contract; the way was found just now.
        unsafe {
            self.go(way, |exception| {
                self.keep(values);
                Box::into_raw(Box::new(Forced {
                    exception,
                    depth,
                    pc,
                    values,
                    kept: unwinding::Kept::default(),
                }))
            })
        }
    }

    /// Makes `values` roots until [`Caller::let_go`]: they may be references that nothing else
    /// keeps alive. The goroutine is Running.
    fn keep(&self, values: [usize; VALUES]) {
        // A scan that comes later finds them with the goroutine. After one that has been, the
        // collector gets them now, while the world does not stop without this thread.
        if self.runtime().is_scanning() {
            self.runtime().roots(&values);
        }
        self.goroutine().with_transfer(|words| words.extend(values.map(Word::Ambiguous)));
    }

    /// Ends the last [`Caller::keep`].
    pub(super) fn let_go(&self) {
        self.goroutine().with_transfer(|words| words.truncate(words.len().saturating_sub(VALUES)));
    }

    /// Walks with the goroutine InForeign: that takes time in proportion to the frames, and neither
    /// the world nor a scan waits for it. `values` are roots meanwhile.
    fn outside<R>(&self, values: [usize; 2], walk: impl FnOnce(&Self) -> R) -> R {
        if self.goroutine().status.is_foreign() {
            return walk(self);
        }
        self.keep(values);
        let walked = self.foreign(|| walk(self));
        self.let_go();
        walked
    }

    /// Finds what lies between the goroutine's stack pointer and the frame.
    fn way_to(&self, depth: usize, pc: usize, values: [usize; 2]) -> Result<Way, UnwindToError> {
        let (runtime, goroutine) = (self.runtime(), self.goroutine());
        if goroutine.is_on_thread() {
            return self.check_way_on_thread(depth).map(|()| Way::OnThread);
        }
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
        let call = loop {
            let (sp, at) = (trace.sp(), trace.pc());
            if sp >= target {
                if sp > target || snapshot.kind(at - 1) != Some(FrameKind::Managed) {
                    return Err(no_frame());
                }
                break at;
            }
            if asm::callback_range().contains(&(at - 1)) {
                // Where the images are known, the trace would continue in native frames on the
                // system stack. Until the callback has been left, older frames do not matter, but
                // the frame must be there.
                return if self.has_managed_frame(depth)? {
                    Ok(Way::Callback(sp))
                } else {
                    Err(no_frame())
                };
            }
            let frame = trace
                .next_frame()
                .map_err(|error| ScanError { goroutine: goroutine.id(), error })?;
            if frame.is_none() {
                return Err(no_frame());
            }
        };
        // Every walk begins in the frame of `call_system`, which has saved all of these registers.
        let further = os::further_registers(Registers { pc: start, sp, fp }, target);
        let register = |number| trace.register(Register(number)).or_else(|| further(number));
        let continuation = Continuation::new(pc, target, values, register);
        continuation.map(|continuation| Way::Open { continuation, call }).ok_or_else(no_frame)
    }

    /// Whether the goroutine has a managed frame with its stack pointer at `depth`.
    pub(super) fn has_managed_frame(&self, depth: usize) -> Result<bool, ScanError> {
        let mut found = false;
        self.frames(|frame| {
            found = frame.depth == depth && frame.kind == FrameKind::Managed;
            if found || frame.depth < depth {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(found)
    }

    /// Leaves the frames on the `way`. `forced` makes the unwinding of native frames, or returns
    /// the one that is under way.
    ///
    /// # Safety
    /// As for [`Caller::unwind_to`].
    unsafe fn go(self, way: Way, forced: impl FnOnce(Exception) -> *mut Forced) -> ! {
        let (runtime, goroutine) = (self.runtime(), self.goroutine());
        let foreign = goroutine.status.is_foreign();
        if foreign {
            self.record.back_inside(goroutine, Status::Foreign);
        }
        // An exception that was crossing the frames that are left goes no further.
        goroutine.exception_is_gone();
        let hi = goroutine.bounds().end;
        match way {
            Way::Open { continuation, call } => {
                // As the frame stood at its call. A landing pad is no safepoint, so a scan that
                // goes on from there would miss the frame's slots, and what lies before the pad may
                // be an epilogue.
                let registers =
                    Registers { pc: call, sp: continuation.sp(), fp: continuation.fp() };
                scan::leave_frames(runtime, goroutine, registers);
                // SAFETY: the frame is managed, with the registers that the walk found, and no
                // callback is younger.
                unsafe { asm::continue_at(&continuation) }
            }
            Way::Callback(frame) => {
                let depth = hi - (frame + asm::CALLBACK_FRAME_BYTES);
                scan::leave_callback(runtime, goroutine, depth);
                let exception = Exception::new();
                // SAFETY: the youngest callback's frame, found by a walk; frames
                // younger than it own nothing.
                unsafe {
                    asm::leave_callback_by(unwind_native_frames, forced(exception).cast(), frame)
                }
            }
            Way::OnThread => {
                let forced = forced(Exception::new());
                if foreign {
                    // The native frames that are left end their foreign calls themselves.
                    self.record.go_outside(goroutine);
                }
                // SAFETY: our contract.
                unsafe { self.unwind_on_thread(forced) }
            }
        }
    }
}

impl Exception {
    fn new() -> Exception {
        Exception {
            class: unwinding::class_bytes(CLASS),
            cleanup: Some(was_swallowed),
            private: [0; unwinding::PRIVATE_WORDS],
        }
    }
}

/// Pcs whose rules a walk to a frame caches. A few are enough: panics are rare, and the frames of a
/// recursion share pcs.
const CACHED_PCS: usize = 64;

/// Unwinds the native frames from the one that called `callback` to the call out below them. It is
/// called as from the place where `callback` was called.
///
/// # Safety
/// Called by `leave_callback_by` with a [`Forced`].
unsafe extern "C-unwind" fn unwind_native_frames(forced: *mut c_void) -> ! {
    // SAFETY: the exception is the box's first field, and stays there.
    unsafe {
        if !unwinding::FORCES_ALL {
            // An exception that nothing catches before the call out: see `goes_on_by`.
            throw(forced)
        }
        _Unwind_ForcedUnwind(forced.cast(), stop, forced);
        go_on(forced.cast())
    }
}

/// Called for each frame before the frame is cleaned up.
///
/// # Safety
/// Called by the unwinder.
unsafe extern "C-unwind" fn stop(
    _version: c_int,
    actions: c_int,
    _class: unwinding::ClassArgument,
    _exception: *mut Exception,
    context: *mut c_void,
    forced: *mut c_void,
) -> c_int {
    // SAFETY: the unwinder's context.
    let pc = unsafe { unwinding::context_pc(context) };
    if pc == asm::native_return_pc() || actions & UA_END_OF_STACK != 0 {
        // SAFETY: the native frames of this call out are done with, or have no unwind tables.
        unsafe { go_on(forced.cast()) }
    }
    URC_NO_REASON
}

/// Continues when the native frames that called back are left: the goroutine stands in the call out
/// that called them.
///
/// # Safety
/// `forced` is the unwinding under way on this thread.
unsafe fn go_on(forced: *mut Forced) -> ! {
    // SAFETY: used within this function alone; it does not return.
    unsafe {
        let caller = Caller::current();
        let Forced { depth, pc, values, .. } = *forced;
        let way = caller
            .outside(values, |caller| caller.way_to(depth, pc, values))
            .unwrap_or_else(|error| caller.runtime().fatal(&error));
        if let Way::Open { .. } = way {
            if caller.goroutine().status.is_foreign() {
                caller.record.back_inside(caller.goroutine(), Status::Foreign);
            }
            caller.let_go();
            drop(Box::from_raw(forced));
        }
        caller.go(way, |exception| {
            (*forced).exception = exception;
            forced
        })
    }
}

/// Whether an exception is one of frames being left, where those are not left by force.
///
/// # Safety
/// An `_Unwind_Exception` lies there.
pub(super) unsafe fn is_of_leaving(exception: *mut c_void) -> bool {
    // SAFETY: our contract: it begins with its class.
    !unwinding::FORCES_ALL
        && unsafe { *exception.cast::<[u8; 8]>() } == unwinding::class_bytes(CLASS)
}

impl Caller<'_> {
    /// Goes on with frames that are being left, if that is what an exception is for. It has left
    /// the native frames of a call out.
    ///
    /// # Safety
    /// The exception is in flight and caught. Native code that managed code has called is done
    /// with: its frames own nothing.
    pub(crate) unsafe fn goes_on_by(self, exception: *mut c_void) {
        // SAFETY: our contract. An exception of the class is the first field of a `Forced`.
        unsafe {
            if is_of_leaving(exception) {
                go_on(exception.cast())
            }
        }
    }
}

/// Native code has caught the unwinding and not thrown it again: the process cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("native code has caught frames being left for a managed one, and has not thrown on")]
struct Swallowed;

/// Called when a handler deletes the exception.
///
/// # Safety
/// Called by the unwinder.
unsafe extern "C-unwind" fn was_swallowed(_reason: c_int, _exception: *mut Exception) {
    // SAFETY: forced unwinding happens on threads that run a goroutine; not used afterwards.
    unsafe { Caller::current() }.runtime().fatal(&Swallowed)
}
