//! Foreign calls, library calls, and callbacks from them.

use super::caller::Caller;
use super::error::CallInError;
use super::lib_call::LibCall;
use crate::os;
use crate::protocol::Status;
use crate::runtime::{Activity, Span};
use crate::scan;
use stackmark_asm as asm;
use std::hint::cold_path;
use std::sync::atomic::Ordering;

/// A [foreign call](Caller::foreign) that [`Caller::enter_foreign`] has begun. Dropping the value
/// ends it: the goroutine waits while it is held or the world is stopped.
#[must_use = "dropping the value ends the foreign call"]
#[derive(Debug)]
pub struct ForeignCall<'m> {
    _back: BackInside<'m>,
    _span: Span,
}

/// Ends a foreign call where it is dropped.
#[derive(Debug)]
struct BackInside<'m>(Caller<'m>);

impl Drop for BackInside<'_> {
    #[inline]
    fn drop(&mut self) {
        // By value: the address of a local would keep that in memory on every way, and a store
        // takes more of a foreign call than anything else.
        end_foreign_out_of_line(self.0);
    }
}

#[inline(never)]
fn end_foreign_out_of_line(caller: Caller<'_>) {
    caller.end_foreign();
}

type Function = unsafe extern "C-unwind" fn(usize, usize, usize, usize, usize, usize) -> usize;

impl<'m> Caller<'m> {
    /// Calls `f`, native code that may wait, with the goroutine InForeign. Meanwhile the goroutine
    /// may be scanned, and its machine does not keep the world from stopping. When `f` returns or
    /// unwinds, the goroutine waits while it is held or the world is stopped.
    ///
    /// # Panics
    /// If the goroutine is InForeign: foreign calls do not nest but over a callback.
    #[inline]
    pub fn foreign<R>(self, f: impl FnOnce() -> R) -> R {
        // In this frame: those of `f` are younger.
        let place = asm::stack_pointer();
        self.prepare_foreign(|| place);
        let (observed, goroutine) = (self.runtime().observed(), self.goroutine());
        let _span = observed.span_within(Activity::ForeignCall, || goroutine.id());
        self.record.go_outside(goroutine);
        let back = BackInside(self);
        let result = f();
        // The guard is for unwinding alone. This is inlined.
        std::mem::forget(back);
        self.end_foreign();
        result
    }

    /// Begins a [foreign call](Caller::foreign), for native code that cannot give a closure.
    ///
    /// # Panics
    /// As [`Caller::foreign`].
    ///
    /// # Safety
    /// The value is dropped on this thread before the native function that began the call returns
    /// or unwinds: the goroutine's managed code would run in a world that counts as stopped.
    #[inline]
    pub unsafe fn enter_foreign(self) -> ForeignCall<'m> {
        // A place in no younger native frame: the value may be anywhere.
        self.prepare_foreign(|| self.place_of_call());
        let span = self.runtime().observed().span(Activity::ForeignCall, self.goroutine().id());
        self.record.go_outside(self.goroutine());
        ForeignCall { _back: BackInside(self), _span: span }
    }

    /// The goroutine is about to become InForeign. On a native stack, what is younger than `place`
    /// belongs to the call.
    #[inline]
    fn prepare_foreign(&self, place: impl FnOnce() -> usize) {
        self.assert_not_foreign();
        if self.goroutine().is_on_thread() {
            cold_path();
            self.begin_foreign_on_thread(place);
        }
    }

    /// The goroutine comes back from its foreign call.
    #[inline(always)]
    fn end_foreign(self) {
        let (record, goroutine) = (self.record, self.goroutine());
        record.back_inside(goroutine, Status::Foreign);
        if goroutine.has_a_longer_way_back() {
            cold_path();
            if goroutine.is_on_thread() {
                record.foreign_calls.remove();
            }
            if goroutine.take_called_back() {
                self.end_foreign_with_callback();
            }
        }
    }

    /// The same where native code has called back. The scan may rest at this foreign call, where no
    /// barrier can lie.
    #[cold]
    fn end_foreign_with_callback(self) {
        scan::come_back(self.runtime(), self.goroutine(), self.depth());
    }

    /// # Panics
    /// If managed code has called the native code otherwise than by `call_native`.
    #[inline(always)]
    fn begin_foreign_on_thread(&self, place: impl FnOnce() -> usize) {
        assert!(
            self.has_anchor(),
            "native code that managed code has called without call_native goes into no foreign call"
        );
        self.record.foreign_calls.add(place());
    }

    /// Calls the C function at `function` with these integers or pointers, as a [foreign
    /// call](Caller::foreign). Returns result and errno, and leaves them in the machine's record.
    ///
    /// # Panics
    /// With more than six arguments.
    ///
    /// # Safety
    /// The function takes exactly these arguments, and returns an integer, a pointer or nothing.
    pub unsafe fn lib_call(self, function: usize, arguments: &[usize]) -> LibCall {
        let mut call = LibCall { function, ..LibCall::default() };
        call.arguments[..arguments.len()].copy_from_slice(arguments);
        let record = &self.record.lib_call;
        record.set(call);
        self.foreign(|| {
            let [a, b, c, d, e, f] = record.get().arguments;
            os::set_errno(0);
            // SAFETY: by our contract; argument registers that the function
            // does not read do no harm.
            let result = unsafe {
                std::mem::transmute::<usize, Function>(record.get().function)(a, b, c, d, e, f)
            };
            record.set(LibCall { result, error: os::errno(), ..record.get() });
        });
        let done = record.get();
        record.set(LibCall { function: 0, ..done });
        done
    }

    /// The library call under way on this machine, or the last one, with 0 as its function.
    pub fn last_lib_call(&self) -> LibCall {
        self.record.lib_call.get()
    }

    /// Calls managed code `f(argument)` on the goroutine's stack, from within [`Caller::foreign`]
    /// or [`Runtime::call_in`](crate::Runtime::call_in). On a native stack the goroutine may be
    /// Running, too, and is so afterwards. But managed code passes safepoints: what this native
    /// code keeps in plain words is no longer safe then, and an [`Inside`](crate::Inside) is
    /// broken. An exception that leaves `f` leaves this function, too. The machine's [`LibCall`] is
    /// the same before and after.
    ///
    /// # Errors
    /// [`CallInError::SignalHandler`]; [`CallInError::NotForeign`]; [`CallInError::NoAnchor`].
    ///
    /// # Panics
    /// If a barrier stub has got into `sched.pc`.
    ///
    /// # Safety
    /// `f` is managed code for this kind of stack. Native code keeps no address in the goroutine's
    /// stack across the call, unless the stack does not move.
    #[inline]
    pub unsafe fn callback(self, f: asm::ManagedFn, argument: usize) -> Result<usize, CallInError> {
        if self.record.handlers_run_in.contains(&asm::stack_pointer()) {
            return Err(CallInError::SignalHandler);
        }
        self.check_call_in()?;
        // SAFETY: our contract; the goroutine is InForeign.
        Ok(unsafe {
            if !self.goroutine().status.is_foreign() {
                self.call_managed_inside(f, argument)
            } else if self.record.is_in_lib_call() {
                self.call_managed_in_lib_call(f, argument)
            } else {
                self.call_managed(f, argument)
            }
        })
    }

    /// Calls managed code from native code that runs, on a native stack. A scan of the goroutine's
    /// stack may rest at this native call, whose return looks after it.
    ///
    /// # Safety
    /// As for [`Caller::callback`], which has made its checks.
    unsafe fn call_managed_inside(self, f: asm::ManagedFn, argument: usize) -> usize {
        let (record, goroutine) = (self.record, self.goroutine());
        let place = self.place_of_call();
        record.break_off();
        record.entries.add_once(place);
        goroutine.set_entered_inside(Some(place));
        if self.runtime().cycle.watched() != 0 {
            self.record_callback();
        }
        let header = (&raw const goroutine.header).cast_mut();
        // SAFETY: the goroutine is Running on this machine. Its youngest managed frame has called
        // native code on this stack.
        unsafe { asm::enter_managed(header, f, argument) }
    }

    /// The goroutine of this thread is about to run the frame with this stack pointer, on a native
    /// stack. Native calls that are younger have ended.
    pub(crate) fn come_back_to(&self, sp: usize) {
        self.record.entries.leave_to(sp);
        self.goroutine().set_entered_inside(self.record.entries.youngest());
    }

    /// # Safety
    /// As for [`Caller::callback`], which has made its checks.
    #[cold]
    unsafe fn call_managed_in_lib_call(self, f: asm::ManagedFn, argument: usize) -> usize {
        struct Restore<'m>(Caller<'m>, LibCall);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.record.lib_call.set(self.1);
            }
        }
        let _under_way = Restore(self, self.record.lib_call.get());
        self.record.lib_call.set(LibCall::default());
        // SAFETY: our contract.
        unsafe { self.call_managed(f, argument) }
    }

    /// # Safety
    /// As for [`Caller::callback`], which has made its checks.
    #[inline]
    unsafe fn call_managed(self, f: asm::ManagedFn, argument: usize) -> usize {
        struct GoOutside<'m>(Caller<'m>);
        impl Drop for GoOutside<'_> {
            #[inline]
            fn drop(&mut self) {
                let goroutine = self.0.goroutine();
                let pc = goroutine.header.sched.pc.load(Ordering::Relaxed);
                assert!(
                    pc == asm::resume_pc() || goroutine.is_on_thread(),
                    "a callback's return slot holds a place in call_system"
                );
                goroutine.has_called_back();
                self.0.record.go_outside(goroutine);
            }
        }
        let goroutine = self.goroutine();
        self.record.back_inside(goroutine, Status::Foreign);
        // Scans still count during a cycle, and until the next cycle if that may be short.
        if self.runtime().cycle.watched() != 0 {
            self.record_callback();
        }
        let _out = GoOutside(self);
        let header = (&raw const goroutine.header).cast_mut();
        if goroutine.is_on_thread() {
            // SAFETY: the goroutine is Running on this machine. Its managed frames, if there are
            // any, have called native code on this stack.
            unsafe { asm::enter_managed(header, f, argument) }
        } else {
            // SAFETY: the goroutine called out to us and is Running on this machine; the guard
            // leaves room for the frame.
            unsafe { asm::callback(header, f, argument) }
        }
    }

    #[cold]
    fn record_callback(&self) {
        self.goroutine().scan_lock().calls_back(self.depth());
    }
}
