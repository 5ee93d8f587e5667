//! The personalities of the frames of the assembly, by the exception-handling ABI of 32-bit Arm
//! (EHABI). The folder of the architecture says what they are for.

use crate::arch::unwinding::{FP, LR, PC, SP, context_pc, get, set};
use crate::arch::{
    CALL_SYSTEM_FP, CALLBACK_FRAME_BYTES, stackmark_call_native_all_returned,
    stackmark_call_native_returned, stackmark_enter_returned,
};
use crate::layout::{BarrierFn, EntryRecord, GoroutineHeader, MachineHeader, WatchFn};
use crate::{barrier, machine};
use core::ffi::{c_int, c_void};
use core::sync::atomic::Ordering::Relaxed;

/// What a personality is to do: one of these, and flags.
type State = c_int;

/// Phase 1 of an exception, or a walk.
const US_VIRTUAL_UNWIND_FRAME: State = 0;
/// Phase 2.
const US_UNWIND_FRAME_STARTING: State = 1;
/// The bits of these two, and of 2: `_Unwind_Resume` has been called by the frame's landing pad.
const US_ACTION_MASK: State = 3;
/// The unwinding is forced; or, in phase 1, it is a walk.
const US_FORCE_UNWIND: State = 8;

const URC_OK: c_int = 0;
const URC_END_OF_STACK: c_int = 5;
const URC_HANDLER_FOUND: c_int = 6;
const URC_INSTALL_CONTEXT: c_int = 7;
const URC_CONTINUE_UNWIND: c_int = 8;
const URC_FAILURE: c_int = 9;

unsafe extern "C" {
    /// Unwinds the frame by what `.save`, `.vsave` and `.pad` say.
    fn __gnu_unwind_frame(exception: *mut ControlBlock, context: *mut c_void) -> c_int;
}

unsafe extern "C-unwind" {
    fn stackmark_call_native_landing();
    fn stackmark_call_native_all_landing();
    fn stackmark_entry_landing();
    fn stackmark_catch_landing();
}

/// The beginning of `_Unwind_Control_Block`, an exception.
#[repr(C, align(8))]
struct ControlBlock {
    class: [u8; 8],
    cleanup: usize,
    unwinder: [usize; 5],
    /// The stack pointer of the frame that has said in phase 1 that it handles the exception.
    handler_sp: usize,
}

/// Goes on to the caller by what `.save`, `.vsave` and `.pad` say.
///
/// # Safety
/// As for a personality.
unsafe fn go_on(exception: *mut ControlBlock, context: *mut c_void) -> c_int {
    // SAFETY: our contract. The function changes d8 to d15 where the frame has saved them, in phase
    // 2 for good; nothing here has floating-point numbers there.
    match unsafe { __gnu_unwind_frame(exception, context) } {
        URC_OK => URC_CONTINUE_UNWIND,
        _ => URC_FAILURE,
    }
}

/// Enters a landing pad with the exception.
///
/// # Safety
/// As for a personality in phase 2.
unsafe fn land(
    exception: *mut ControlBlock,
    context: *mut c_void,
    pad: unsafe extern "C-unwind" fn(),
) -> c_int {
    // SAFETY: our contract.
    unsafe {
        set(context, 0, exception as usize);
        set(context, PC, pad as *const () as usize);
    }
    URC_INSTALL_CONTEXT
}

/// The goroutine of this thread.
///
/// # Safety
/// The thread's machine runs one.
unsafe fn goroutine() -> &'static GoroutineHeader {
    // SAFETY: our contract.
    unsafe { &*((*machine::current()).goroutine.load(Relaxed) as *const GoroutineHeader) }
}

/// That of parts on the system stack that keep goroutine and depth in their first words: goes on
/// from the part on the goroutine's stack, wherever it lies now.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_depth_personality(
    _state: State,
    exception: *mut ControlBlock,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the unwinder's context, and the two words of the frame.
    unsafe {
        let part = get(context, SP) as *const usize;
        let (goroutine, depth) = (part.read() as *const GoroutineHeader, part.add(1).read());
        set(context, SP, (*goroutine).stack_hi.load(Relaxed) - depth);
        go_on(exception, context)
    }
}

/// `callback`'s: goes on in the native caller. In phase 2 the goroutine is put back to its call
/// out, and the machine's system stack to where it began before, as `stackmark_leave_callback`
/// does.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_callback_personality(
    state: State,
    exception: *mut ControlBlock,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the unwinder's context, and the words of both parts of the frame.
    unsafe {
        let part = get(context, SP) as *const usize;
        let [system, goroutine, _, pc] = part.cast::<[usize; 4]>().read();
        if state & US_ACTION_MASK == US_UNWIND_FRAME_STARTING {
            let goroutine = &*(goroutine as *const GoroutineHeader);
            let sp = part as usize + CALLBACK_FRAME_BYTES;
            goroutine.sched.pc.store(pc, Relaxed);
            goroutine.sched.sp.store(sp, Relaxed);
            let fp = *((sp + CALL_SYSTEM_FP) as *const usize);
            goroutine.sched.fp.store(fp, Relaxed);
            let depth = goroutine.callback_depth.load(Relaxed);
            goroutine.callback_depth.store(depth - 1, Relaxed);
            (*machine::current()).system_sp.store(*(system as *const usize), Relaxed);
        }
        set(context, SP, system);
        go_on(exception, context)
    }
}

/// `enter_managed`'s: in phase 2 restores the anchor of before, as a return does. Only where
/// managed code has been called: elsewhere, as when a thread is cancelled asynchronously, the frame
/// is not what this takes it for.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_enter_personality(
    state: State,
    exception: *mut ControlBlock,
    context: *mut c_void,
) -> c_int {
    let returned = stackmark_enter_returned as *const () as usize;
    // SAFETY: the unwinder's context, and the record of the frame.
    unsafe {
        if state & US_ACTION_MASK == US_UNWIND_FRAME_STARTING && context_pc(context) == returned {
            let record = &*(get(context, SP) as *const EntryRecord);
            let goroutine = &*(record.goroutine as *const GoroutineHeader);
            goroutine.sched.pc.store(record.anchor.pc.load(Relaxed), Relaxed);
            goroutine.sched.fp.store(record.anchor.fp.load(Relaxed), Relaxed);
            goroutine.entered.store(record.previous, Relaxed);
            goroutine.sched.sp.store(record.anchor.sp.load(Relaxed), Relaxed);
        }
        go_on(exception, context)
    }
}

/// That of both forms of `call_native`: enters the landing pad, which clears the anchor and calls
/// `on_watched` where a return would. Only where native code has been called. (Not here: a forced
/// unwinding asks its stop function after the personality, and that function may have to end a
/// foreign call first.)
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_native_personality(
    state: State,
    exception: *mut ControlBlock,
    context: *mut c_void,
) -> c_int {
    type Label = unsafe extern "C-unwind" fn();
    let pads: [(Label, Label); 2] = [
        (stackmark_call_native_returned, stackmark_call_native_landing),
        (stackmark_call_native_all_returned, stackmark_call_native_all_landing),
    ];
    // SAFETY: the unwinder's context.
    unsafe {
        let pc = context_pc(context);
        let pad = pads.into_iter().find(|(returned, _)| *returned as *const () as usize == pc);
        match pad {
            Some((_, pad)) if state & US_ACTION_MASK == US_UNWIND_FRAME_STARTING => {
                land(exception, context, pad)
            }
            _ => go_on(exception, context),
        }
    }
}

/// The pool's: goes on at the saved return address. In phase 2 it tells the host.
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_barrier_personality(
    state: State,
    _exception: *mut ControlBlock,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the unwinder's context. Barriers are passed on the thread of the machine that runs
    // the goroutine.
    unsafe {
        let index = barrier::index_of(context_pc(context))
            .expect("the personality of the pool runs for its stubs");
        // Relaxed: as for `barrier::original`.
        let saved = barrier::saved(index).load(Relaxed);
        set(context, LR, saved);
        set(context, PC, saved);
        if state & US_ACTION_MASK == US_UNWIND_FRAME_STARTING {
            leapfrog(index, saved, get(context, SP), get(context, FP));
        }
    }
    URC_CONTINUE_UNWIND
}

/// An exception has passed the barrier of stub `index`. The frame returned to has these registers,
/// and counts as the one that has called out last.
///
/// # Safety
/// In phase 2, on the thread of the machine that runs the goroutine. All frames younger than the
/// one with the stack pointer `sp` are done with.
unsafe fn leapfrog(index: usize, saved: usize, sp: usize, fp: usize) {
    // SAFETY: our contract. The word below the stack pointer belongs to the frame that is gone. The
    // host has stored its hooks as functions of these types.
    unsafe {
        let (machine, goroutine) = (machine::current(), goroutine());
        let slot = (sp as *mut usize).sub(1);
        slot.write(saved);
        let pc = saved & !1;
        goroutine.sched.pc.store(pc, Relaxed);
        goroutine.sched.fp.store(fp, Relaxed);
        goroutine.sched.sp.store(sp, Relaxed);
        let hook = (*machine).on_leapfrog.load(Relaxed);
        if hook != 0 {
            let hook: BarrierFn = core::mem::transmute::<usize, BarrierFn>(hook);
            hook(machine, slot, index);
        }
        if goroutine.entered.load(Relaxed) != 0 {
            come_back(machine, goroutine, [sp, pc, fp]);
        }
    }
}

/// Does what the way back of `call_native` does: managed code with these registers has no anchor,
/// and what is watched and younger is told to the host.
///
/// # Safety
/// As for [`leapfrog`].
unsafe fn come_back(
    machine: *mut MachineHeader,
    goroutine: &GoroutineHeader,
    [sp, pc, fp]: [usize; 3],
) {
    goroutine.sched.sp.store(0, Relaxed);
    if goroutine.watch.load(Relaxed) < sp {
        // SAFETY: our contract. The host has stored its hook as a function of this type.
        unsafe {
            let hook = (*machine).on_watched.load(Relaxed);
            let hook: WatchFn = core::mem::transmute::<usize, WatchFn>(hook);
            hook(machine, sp, pc, fp);
        }
    }
}

/// `goroutine_entry`'s: catches uncaught exceptions. (Without a handler `panic!` dies of "failed to
/// initiate panic".)
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_entry_personality(
    state: State,
    exception: *mut ControlBlock,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the unwinder's exception and context. Exceptions reach goroutine_entry on the thread
    // of the machine that runs the goroutine; so do walks.
    unsafe {
        match state & US_ACTION_MASK {
            US_VIRTUAL_UNWIND_FRAME => {
                if state & US_FORCE_UNWIND != 0 || goroutine().on_uncaught.load(Relaxed) == 0 {
                    return URC_END_OF_STACK;
                }
                // Relaxed: read on this thread, and by holders of the goroutine, which it stops
                // for.
                goroutine().exception_crosses.store(1, Relaxed);
                (*exception).handler_sp = get(context, SP);
                URC_HANDLER_FOUND
            }
            _ if state & US_FORCE_UNWIND == 0 => land(exception, context, stackmark_entry_landing),
            _ => {
                // A thread that ends detaches its machine, and with it ends the goroutine. There is
                // no code at 0, and so the unwinder finds the end of the stack.
                set(context, PC, 0);
                URC_CONTINUE_UNWIND
            }
        }
    }
}

/// `catch`'s: catches every exception, but lets forced unwinding pass (a thread that ends, frames
/// that a recover leaves).
///
/// # Safety
/// Called by the unwinder.
#[unsafe(no_mangle)]
unsafe extern "C" fn stackmark_catch_personality(
    state: State,
    exception: *mut ControlBlock,
    context: *mut c_void,
) -> c_int {
    if state & US_FORCE_UNWIND != 0 {
        // SAFETY: as for this function.
        return unsafe { go_on(exception, context) };
    }
    // SAFETY: the unwinder's exception and context.
    unsafe {
        let sp = get(context, SP);
        match state & US_ACTION_MASK {
            US_VIRTUAL_UNWIND_FRAME => {
                (*exception).handler_sp = sp;
                URC_HANDLER_FOUND
            }
            US_UNWIND_FRAME_STARTING if (*exception).handler_sp == sp => {
                land(exception, context, stackmark_catch_landing)
            }
            _ => go_on(exception, context),
        }
    }
}
