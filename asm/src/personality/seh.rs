//! The handlers of frames for Windows' unwinder.
//!
//! An exception does not cross from one stack to the other: the unwinder wants each older frame at
//! a higher address, on the stack of the thread's environment block. So `call_system`, `callback`
//! and `goroutine_entry` catch what comes, as `catch` does, by landing pads in the assembly. libgcc
//! calls their personalities by the Itanium C++ ABI.
//!
//! The frames of native stacks and the stubs have handlers that are called in phase 2, and leave
//! goroutine and machine in the state that a return would have left. They need no landing pads.

use crate::arch::unwinding::Dispatcher;
use crate::arch::{
    self, LANDING_REGISTER, stackmark_call_native_all_returned, stackmark_call_native_returned,
    stackmark_enter_returned,
};
use crate::layout::{BarrierFn, EntryRecord, GoroutineHeader, MachineHeader, Sched, WatchFn};
use crate::{ENTRY_RECORD_AT, barrier, machine};
use core::ffi::{c_int, c_void};
use core::mem::transmute;
use core::sync::atomic::Ordering::Relaxed;

const URC_HANDLER_FOUND: c_int = 6;
const URC_INSTALL_CONTEXT: c_int = 7;
const URC_CONTINUE_UNWIND: c_int = 8;
const UA_SEARCH_PHASE: c_int = 1;
const UA_HANDLER_FRAME: c_int = 4;
const UA_FORCE_UNWIND: c_int = 8;

/// `EXCEPTION_UNWINDING`: phase 2.
const UNWINDING: u32 = 2;
/// `EXCEPTION_TARGET_UNWIND`: the frame is where phase 2 ends.
const TARGET_UNWIND: u32 = 0x20;
/// `ExceptionContinueSearch`.
const CONTINUE_SEARCH: c_int = 1;

/// The processor's numbers of rdx and rbp.
const RDX: usize = 2;
const RBP: usize = 5;

/// `EXCEPTION_RECORD`.
#[repr(C)]
struct Exception {
    code: u32,
    flags: u32,
    record: *const c_void,
    address: usize,
    parameters: u32,
    information: [usize; 15],
}

/// A personality of the Itanium C++ ABI.
type Personality = unsafe extern "C" fn(c_int, c_int, u64, *mut c_void, *mut c_void) -> c_int;

unsafe extern "C" {
    fn _Unwind_SetIP(context: *mut c_void, ip: usize);
    fn _Unwind_SetGR(context: *mut c_void, register: c_int, value: usize);
}

unsafe extern "C-unwind" {
    fn _Unwind_RaiseException(exception: *mut c_void) -> c_int;
    fn _GCC_specific_handler(
        exception: *mut Exception,
        frame: usize,
        registers: *mut c_void,
        dispatcher: *mut Dispatcher,
        personality: Personality,
    ) -> c_int;

    // Landing pads, entered with the exception in LANDING_REGISTER.
    fn stackmark_call_landing();
    fn stackmark_callback_landing();
    fn stackmark_entry_landing();
    fn stackmark_catch_landing();
}

/// Throws an exception that has been caught, on this stack.
///
/// # Safety
/// Called by the assembly with what a landing pad has got.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn stackmark_throw(exception: *mut c_void) -> ! {
    // SAFETY: our contract. It returns if nothing catches the exception.
    unsafe { _Unwind_RaiseException(exception) };
    std::process::abort()
}

/// Catches every exception but forced unwinding, which passes (frames that a recover leaves).
///
/// # Safety
/// Called by the unwinder.
unsafe fn catch(
    actions: c_int,
    exception: *mut c_void,
    context: *mut c_void,
    pad: unsafe extern "C-unwind" fn(),
) -> c_int {
    if actions & UA_FORCE_UNWIND != 0 {
        return URC_CONTINUE_UNWIND;
    }
    if actions & UA_SEARCH_PHASE != 0 {
        return URC_HANDLER_FOUND;
    }
    if actions & UA_HANDLER_FRAME == 0 {
        return URC_CONTINUE_UNWIND;
    }
    // SAFETY: the unwinder's context, in phase 2.
    unsafe {
        _Unwind_SetGR(context, LANDING_REGISTER, exception as usize);
        _Unwind_SetIP(context, pad as *const () as usize);
    }
    URC_INSTALL_CONTEXT
}

/// Defines the handler of a frame that catches, and its personality.
macro_rules! catching {
    ($($(#[$doc:meta])* $handler:ident, $pad:ident $(, if $condition:expr)?;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by the unwinder.
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $handler(
            exception: *mut Exception,
            frame: usize,
            registers: *mut c_void,
            dispatcher: *mut Dispatcher,
        ) -> c_int {
            unsafe extern "C" fn personality(
                _version: c_int,
                actions: c_int,
                _class: u64,
                exception: *mut c_void,
                context: *mut c_void,
            ) -> c_int {
                $(if !$condition(actions) {
                    return URC_CONTINUE_UNWIND;
                })?
                // SAFETY: called by the unwinder.
                unsafe { catch(actions, exception, context, $pad) }
            }
            // SAFETY: called by the unwinder with these.
            unsafe { _GCC_specific_handler(exception, frame, registers, dispatcher, personality) }
        }
    )*};
}

catching! {
    /// `call_system`'s part on the system stack.
    stackmark_call_handler, stackmark_call_landing;
    /// `callback`'s part on the goroutine's stack.
    stackmark_callback_handler, stackmark_callback_landing;
    /// `goroutine_entry`: exceptions that nothing else has caught.
    stackmark_entry_handler, stackmark_entry_landing, if is_wanted;
    /// `catch`.
    stackmark_catch_handler, stackmark_catch_landing;
}

/// Whether the goroutine of this thread has a hook for uncaught exceptions. If so, one crosses from
/// the search for a handler on.
fn is_wanted(actions: c_int) -> bool {
    let goroutine = running();
    let wanted = goroutine.on_uncaught.load(Relaxed) != 0;
    if wanted && actions & (UA_SEARCH_PHASE | UA_FORCE_UNWIND) == UA_SEARCH_PHASE {
        // Relaxed: read on this thread, and by holders of the goroutine, which it stops for.
        goroutine.exception_crosses.store(1, Relaxed);
    }
    wanted
}

/// The goroutine of this thread.
fn running() -> &'static GoroutineHeader {
    // SAFETY: handlers of the assembly run on threads whose machine runs a goroutine. Its header
    // stays while it runs.
    unsafe { &*((*machine::current()).goroutine.load(Relaxed) as *const GoroutineHeader) }
}

/// `enter_managed`'s: restores the anchor of before. Only where managed code has been called.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn stackmark_enter_handler(
    exception: *mut Exception,
    frame: usize,
    _registers: *mut c_void,
    dispatcher: *mut Dispatcher,
) -> c_int {
    // SAFETY: called by the unwinder with these. At its call the frame has its record.
    unsafe {
        let called = stackmark_enter_returned as *const () as usize;
        if (*exception).flags & UNWINDING != 0 && (*dispatcher).pc == called {
            let record = &*((frame + ENTRY_RECORD_AT) as *const EntryRecord);
            let goroutine = &*(record.goroutine as *const GoroutineHeader);
            let Sched { pc, sp, fp } = &record.anchor;
            goroutine.sched.pc.store(pc.load(Relaxed), Relaxed);
            goroutine.sched.fp.store(fp.load(Relaxed), Relaxed);
            goroutine.entered.store(record.previous, Relaxed);
            goroutine.sched.sp.store(sp.load(Relaxed), Relaxed);
        }
    }
    CONTINUE_SEARCH
}

/// That of both forms of `call_native`: clears the anchor and calls `on_watched` where a return
/// would. Only where native code has been called.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn stackmark_native_handler(
    exception: *mut Exception,
    _frame: usize,
    _registers: *mut c_void,
    dispatcher: *mut Dispatcher,
) -> c_int {
    let calls = [
        stackmark_call_native_returned as *const () as usize,
        stackmark_call_native_all_returned as *const () as usize,
    ];
    // SAFETY: called by the unwinder with these.
    unsafe {
        if (*exception).flags & UNWINDING != 0 && calls.contains(&(*dispatcher).pc) {
            let goroutine = running();
            let Sched { pc, sp, fp } = &goroutine.sched;
            back_in_managed(goroutine, [pc, sp, fp].map(|word| word.load(Relaxed)));
        }
    }
    CONTINUE_SEARCH
}

/// The managed frame with this pc, stack pointer and frame pointer is about to go on behind a call
/// of native code, on a native stack.
///
/// # Safety
/// It is a frame of the goroutine that this thread runs.
unsafe fn back_in_managed(goroutine: &GoroutineHeader, [pc, sp, fp]: [usize; 3]) {
    goroutine.sched.sp.store(0, Relaxed);
    if goroutine.watch.load(Relaxed) < sp {
        let machine = machine::current();
        // SAFETY: the host has stored the hook as a WatchFn.
        unsafe {
            let hook = (*machine).on_watched.load(Relaxed);
            transmute::<usize, WatchFn>(hook)(machine, sp, pc, fp);
        }
    }
}

/// A stub's: the slot gets its return address back, and the host is told, as if the frame returned
/// to had called native code.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn stackmark_barrier_handler(
    exception: *mut Exception,
    sp: usize,
    _registers: *mut c_void,
    dispatcher: *mut Dispatcher,
) -> c_int {
    // SAFETY: called by the unwinder with these. The frame of a stub begins with the slot's end.
    unsafe {
        if (*exception).flags & UNWINDING == 0 {
            return CONTINUE_SEARCH;
        }
        let registers = &mut *(*dispatcher).registers;
        if (*exception).flags & TARGET_UNWIND != 0 {
            // The frame behind the barrier has the same stack pointer, and the unwinder takes the
            // stub for it. Then the stub does what libgcc's handler would.
            registers.general[RDX] = (*exception).information[3];
        }
        let index = barrier::index_of((*dispatcher).pc);
        let index = index.expect("the handler of the pool runs for its stubs");
        let goroutine = running();
        let saved = barrier::saved(index).load(Relaxed);
        let slot = (sp as *mut usize).sub(1);
        *slot = saved;
        if goroutine.entered.load(Relaxed) == 0 {
            arch::stackmark_call_system(leapfrogged, slot.cast(), index);
        } else {
            let fp = registers.general[RBP];
            goroutine.sched.pc.store(saved, Relaxed);
            goroutine.sched.fp.store(fp, Relaxed);
            goroutine.sched.sp.store(sp, Relaxed);
            leapfrogged(slot.cast(), index);
            back_in_managed(goroutine, [saved, sp, fp]);
        }
    }
    CONTINUE_SEARCH
}

/// Tells the host of a barrier that an exception has passed, on the stack of native code.
///
/// # Safety
/// The machine of this thread runs a goroutine, in whose stack the slot lies.
unsafe extern "C-unwind" fn leapfrogged(slot: *mut c_void, index: usize) -> usize {
    let machine: *mut MachineHeader = machine::current();
    // SAFETY: our contract. The host has stored the hook as a BarrierFn.
    unsafe {
        let hook = (*machine).on_leapfrog.load(Relaxed);
        if hook != 0 {
            transmute::<usize, BarrierFn>(hook)(machine, slot.cast(), index);
        }
    }
    0
}
