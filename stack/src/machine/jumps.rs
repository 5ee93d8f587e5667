//! Frames that native code leaves by `longjmp`, which tells no frame: the jump is announced before.

use super::caller::Caller;
use crate::ending;
use crate::goroutine::registers;
use crate::os;
use crate::protocol::Status;
use crate::scan;
use stackmark_asm::{self as asm, layout::EntryRecord};
use stackmark_unwind::Registers;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::Ordering;

/// Why native code may not jump, from [`Caller::leave_to`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaveToError {
    /// The address is not in a native frame of this thread's stack that is on it now.
    #[error("goroutine {goroutine} has no native frame at {sp:#x} to jump to")]
    NoNativeFrame {
        /// The goroutine's number.
        goroutine: u64,
        /// The address that was given.
        sp: usize,
    },
    /// The native code there was called by managed code, but not by `call_native`.
    #[error(
        "the native code at {sp:#x} was called by managed code of goroutine {goroutine} without an \
         anchor"
    )]
    NoAnchor {
        /// The goroutine's number.
        goroutine: u64,
        /// The address that was given.
        sp: usize,
    },
    /// The goroutine has a stack of its own, and the jump would leave a callback.
    #[error("goroutine {goroutine} has a stack of its own: no callback is left by a jump")]
    Callback {
        /// The goroutine's number.
        goroutine: u64,
    },
}

/// What a jump leaves: the youngest entry that stays, and the anchor of its managed code.
struct Left {
    entered: usize,
    anchor: Registers,
}

impl Caller<'_> {
    /// Announces that native code leaves frames without unwinding them, as `longjmp` does, and goes
    /// on in an older native frame of this thread. `sp` is the stack pointer there, or another
    /// address in that frame. Called right before the jump.
    ///
    /// On a native stack, managed frames may be among those that are left. Their barriers count as
    /// leapfrogged. The goroutine becomes what it was in that native frame: InForeign if the frame
    /// has called managed code from a [foreign call](Caller::foreign) that is still under way, or
    /// from no managed code; else Running. A call begun by [`Caller::enter_foreign`] stays under
    /// way until the native code leaves that managed code has called. On a goroutine's own stack no
    /// managed frame can be left, and nothing needs to be announced.
    ///
    /// Without the announcement the stack cannot be walked from then on, until older managed code
    /// goes on. [`interpose_longjmp`](crate::interpose_longjmp) makes every `longjmp` announce
    /// itself. Spans of an [`Observer`](crate::Observer) that the frames have begun do not end.
    ///
    /// # Errors
    /// [`LeaveToError`]; nothing has changed then.
    ///
    /// # Safety
    /// The jump comes next, on this thread. The frames that are left own nothing that must be
    /// released. Neither this value nor any other of theirs is used again.
    pub unsafe fn leave_to(self, sp: usize) -> Result<(), LeaveToError> {
        let (record, goroutine) = (self.record, self.goroutine());
        let id = goroutine.id();
        if !goroutine.is_on_thread() {
            return if sp <= record.system_sp() {
                Ok(())
            } else {
                Err(LeaveToError::Callback { goroutine: id })
            };
        }
        let entered = goroutine.header.entered.load(Ordering::Relaxed);
        let left = self.left_by_jump(sp);
        if left.anchor.sp == 0 {
            if left.entered == entered {
                // A leaf function of managed code jumps within itself.
                return Ok(());
            }
            return Err(LeaveToError::NoAnchor { goroutine: id, sp });
        }
        let (bounds, here) = (goroutine.bounds(), asm::stack_pointer());
        if !bounds.contains(&sp) || sp >= left.anchor.sp || bounds.contains(&here) && sp < here {
            return Err(LeaveToError::NoNativeFrame { goroutine: id, sp });
        }
        if goroutine.status.is_foreign() {
            // Others read what is changed here while they hold the goroutine.
            record.back_inside(goroutine, Status::Foreign);
        }
        record.foreign_calls.leave_to(sp);
        self.come_back_to(sp);
        if left.entered != entered {
            let header = &goroutine.header;
            header.sched.pc.store(left.anchor.pc, Ordering::Relaxed);
            header.sched.fp.store(left.anchor.fp, Ordering::Relaxed);
            header.sched.sp.store(left.anchor.sp, Ordering::Relaxed);
            header.entered.store(left.entered, Ordering::Relaxed);
            scan::leave_entry(self.runtime(), goroutine);
        }
        let outermost = left.entered == 0;
        if outermost || record.foreign_calls.youngest().is_some_and(|place| place < left.anchor.sp)
        {
            goroutine.has_called_back();
            record.go_outside(goroutine);
        } else {
            record.end_lib_call();
        }
        Ok(())
    }

    /// What stays when everything younger than `sp` is left.
    fn left_by_jump(&self, sp: usize) -> Left {
        let header = &self.goroutine().header;
        let mut left = Left {
            entered: header.entered.load(Ordering::Relaxed),
            anchor: registers(&header.sched),
        };
        while left.entered != 0 && left.entered < sp {
            // SAFETY: `enter_managed` has written the record, and is on the stack still.
            let EntryRecord { anchor, previous, .. } =
                unsafe { &*(left.entered as *const EntryRecord) };
            left = Left { entered: *previous, anchor: registers(anchor) };
        }
        left
    }
}

/// A `longjmp` by this name of the C library, announced before: see [`interpose_longjmp`].
///
/// # Safety
/// As for that function.
#[doc(hidden)]
pub unsafe fn announced_longjmp(name: &CStr, buffer: *mut c_void, value: c_int) -> ! {
    // SAFETY: used here alone.
    if let Some(caller) = unsafe { Caller::try_current() }
        && caller.goroutine().is_on_thread()
    {
        // SAFETY: our contract.
        unsafe { announce(caller, asm::jump_target(buffer)) };
    }
    // SAFETY: the next function of this name is the C library's.
    unsafe { os::next_longjmp(name)(buffer, value) }
}

/// # Safety
/// The thread jumps to `sp` next.
unsafe fn announce(caller: Caller<'_>, sp: usize) {
    let entered = caller.goroutine().header.entered.load(Ordering::Relaxed);
    if !caller.goroutine().bounds().contains(&sp) {
        // Nothing of this stack is left.
        return;
    }
    if caller.record.handlers_run_in.contains(&asm::stack_pointer()) {
        // What the signal has interrupted may have a lock.
        if entered != 0 && entered < sp {
            ending::end(format_args!("longjmp out of a signal handler over managed code"));
        }
        return;
    }
    // SAFETY: our contract.
    if let Err(error) = unsafe { caller.leave_to(sp) } {
        ending::end(format_args!("longjmp: {error}"));
    }
}

/// Defines `longjmp`, `_longjmp`, `siglongjmp` and `__longjmp_chk` in a program, so that each jump
/// over managed frames of a native stack is announced by
/// [`Caller::leave_to`](crate::Caller::leave_to) and then done by the C library. The program says
/// it once, outside of functions. All code that is linked dynamically to the C library jumps
/// through these functions then. Other threads and other jumps pay a look at a thread-local word.
///
/// A jump that cannot be announced ends the process with one line and status 2: one that an error
/// of `leave_to` stands for, or one out of a signal handler over managed frames.
///
/// It needs glibc, linked dynamically.
#[macro_export]
macro_rules! interpose_longjmp {
    () => {
        $crate::interpose_longjmp!(longjmp _longjmp siglongjmp __longjmp_chk);
    };
    ($($name:ident)+) => {
        const _: () = {
            $(
                /// # Safety
                /// As for the function of the C library that has this name.
                #[unsafe(no_mangle)]
                unsafe extern "C-unwind" fn $name(
                    buffer: *mut ::core::ffi::c_void,
                    value: ::core::ffi::c_int,
                ) -> ! {
                    const NAME: &::core::ffi::CStr =
                        match ::core::ffi::CStr::from_bytes_with_nul(
                            ::core::concat!(::core::stringify!($name), "\0").as_bytes(),
                        ) {
                            Ok(name) => name,
                            Err(_) => ::core::unreachable!(),
                        };
                    // SAFETY: the contract is the same.
                    unsafe { $crate::announced_longjmp(NAME, buffer, value) }
                }
            )+
        };
    };
}
