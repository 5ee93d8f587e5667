//! The goroutine, machine and runtime, as native code that managed code called out to sees them.

use super::error::CallInError;
use super::thread::{PARKED, ThreadRecord, YIELDED};
use crate::ending::without_unwinding;
use crate::goroutine::Goroutine;
use crate::protocol::Status;
use crate::runtime::{MachineEntry, Runtime};
use crate::scan::{self, FrameAt, ScanError};
use crate::word::Word;
use stackmark_asm as asm;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What runs while a goroutine is parked and has not left its machine.
const PUBLISH: &str = "the closure that publishes a parked goroutine";

/// The goroutine that called out to the running native function, with its machine and runtime.
///
/// A value is used within one native function, on the thread that it was made on.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'m> {
    pub(crate) record: &'m ThreadRecord,
    goroutine: &'m Goroutine,
}

impl<'m> Caller<'m> {
    /// The goroutine that called out to the running native function.
    ///
    /// # Panics
    /// If this thread runs no goroutine.
    ///
    /// # Safety
    /// The value is not used after the native function has returned, parked or yielded.
    #[inline]
    pub unsafe fn current() -> Caller<'m> {
        // SAFETY: our contract is the same.
        unsafe { Caller::try_current() }.expect("this thread runs a goroutine")
    }

    /// As [`Caller::current`]; `None` if this thread runs no goroutine.
    ///
    /// # Safety
    /// As for [`Caller::current`].
    #[inline]
    pub unsafe fn try_current() -> Option<Caller<'m>> {
        // SAFETY: the thread is not detached before the native function has ended.
        let record = unsafe { ThreadRecord::current() }?;
        Some(Caller { record, goroutine: record.goroutine()? })
    }

    /// The goroutine.
    pub fn goroutine(&self) -> &'m Goroutine {
        self.goroutine
    }

    /// An owned handle to the goroutine, for example for a queue of waiters.
    pub fn handle(&self) -> Arc<Goroutine> {
        self.record.handle()
    }

    /// The machine, as other threads see it.
    #[inline]
    pub(crate) fn machine(&self) -> &'m MachineEntry {
        &self.record.entry
    }

    /// The runtime.
    #[inline]
    pub fn runtime(&self) -> &'m Arc<Runtime> {
        &self.record.runtime
    }

    /// Parks the goroutine. `publish` makes it visible to its wakers, typically by putting it on a
    /// queue and releasing the queue's lock. It gets the thread's own handle, so that no count of
    /// handles changes. The goroutine is Parked when `publish` runs, so no waker comes too early.
    /// It may run on another machine already, so this thread has no goroutine any more, unless it
    /// is in a callback. A panic of `publish` ends the process with status 2.
    ///
    /// Inside a callback the goroutine keeps its thread: returns the value that the waker gave to
    /// [`Runtime::ready`]. Otherwise it does not return. The native function ends here, and its
    /// call returns that value to managed code, on any machine.
    ///
    /// # Panics
    /// In a foreign call; on a native stack, in native code that managed code has called without
    /// `call_native`; and where the goroutine does not go on: in
    /// [`Host::goroutine_exited`](crate::Host::goroutine_exited) and
    /// [`Host::uncaught`](crate::Host::uncaught).
    ///
    /// # Safety
    /// - No frame between managed code and here owns anything that must be released: their
    ///   destructors do not run.
    /// - Managed code may go on where it has called: not in
    ///   [`Host::stack_overflow`](crate::Host::stack_overflow) or
    ///   [`Host::fatal`](crate::Host::fatal).
    pub unsafe fn park(self, publish: impl FnOnce(Arc<Goroutine>)) -> usize {
        let goroutine = self.goroutine;
        self.assert_not_foreign();
        // The last one, which the goroutine has taken, is not a root any more.
        goroutine.set_resume_value(Word::Plain(0));
        if goroutine.in_callback() {
            assert!(
                self.has_anchor(),
                "native code that managed code has called without call_native does not park"
            );
            let handle = self.handle();
            goroutine.status.stop(Status::Parked);
            without_unwinding(PUBLISH, || publish(handle));
            return self.wait_on_this_thread();
        }
        self.assert_goes_on();
        self.record.unbind();
        let handle = self.record.running().take().expect("a goroutine runs");
        goroutine.status.stop(Status::Parked);
        // From here on another machine may run the goroutine, so nothing of it is touched any more.
        without_unwinding(PUBLISH, || publish(handle));
        // SAFETY: the machine runs a goroutine that called out to us. By our
        // contract the frames own nothing.
        unsafe { asm::leave(self.record.machine(), PARKED) }
    }

    fn wait_on_this_thread(&self) -> usize {
        self.record.leave_world();
        let mut woken = self.goroutine.woken.lock();
        while !*woken {
            woken = self.goroutine.wake.wait(woken);
        }
        *woken = false;
        drop(woken);
        self.record.back_inside(self.goroutine, Status::Runnable);
        self.goroutine.header.resume_value.load(Ordering::Relaxed)
    }

    /// Depth of the frame of `call_system` that called out to us.
    pub(crate) fn depth(&self) -> usize {
        self.goroutine.bounds().end - self.goroutine.header.sched.sp.load(Ordering::Relaxed)
    }

    /// Lets other goroutines run: the goroutine goes back to the scheduler as
    /// [`Left::Yielded`](crate::Left::Yielded). When it runs again, its call returns `value`,
    /// which is a root meanwhile. Inside a callback the goroutine keeps its thread, and this
    /// returns `value` at once.
    ///
    /// # Panics
    /// As for [`Caller::park`].
    ///
    /// # Safety
    /// As for [`Caller::park`].
    pub unsafe fn yield_now(self, value: impl Into<Word>) -> usize {
        let value = value.into();
        self.assert_not_foreign();
        if self.goroutine.in_callback() {
            return value.bits();
        }
        self.assert_goes_on();
        self.goroutine.set_resume_value(value);
        self.record.unbind();
        self.goroutine.status.stop(Status::Runnable);
        // SAFETY: as in park.
        unsafe { asm::leave(self.record.machine(), YIELDED) }
    }

    /// # Panics
    /// If the goroutine is InForeign.
    #[inline]
    pub(crate) fn assert_not_foreign(&self) {
        assert!(
            !self.goroutine.status.is_foreign(),
            "a foreign call is under way on this goroutine"
        );
    }

    /// # Panics
    /// If managed code does not go on behind this native call.
    #[inline]
    fn assert_goes_on(&self) {
        assert!(
            !self.goroutine.ends(),
            "goroutine {} has come to its end: it neither parks nor yields any more",
            self.goroutine.id()
        );
    }

    /// Checks that the goroutine may be called back: it is InForeign, or Running on a native stack.
    #[inline]
    pub(crate) fn check_call_in(&self) -> Result<(), CallInError> {
        if self.goroutine.status.is_foreign() {
            return Ok(());
        }
        self.check_call_in_inside()
    }

    #[cold]
    fn check_call_in_inside(&self) -> Result<(), CallInError> {
        let (goroutine, status) = (self.goroutine.id(), self.goroutine.status());
        if !self.goroutine.is_on_thread() || status != Status::Running {
            return Err(CallInError::NotForeign { goroutine, status });
        }
        if !self.has_anchor() {
            return Err(CallInError::NoAnchor { goroutine });
        }
        Ok(())
    }

    /// Whether managed code has called this native code by `call_native`, or by `call_system`.
    #[inline]
    pub(super) fn has_anchor(&self) -> bool {
        self.goroutine.header.sched.sp.load(Ordering::Relaxed) != 0
    }

    /// On a native stack: a place that belongs to the native call by the youngest managed frame,
    /// and to no younger frame.
    #[inline]
    pub(super) fn place_of_call(&self) -> usize {
        self.goroutine.header.sched.sp.load(Ordering::Relaxed) - size_of::<usize>()
    }

    /// Calls `visit` for each frame of the goroutine, youngest first, until it breaks. Native
    /// frames are not on the goroutine's stack: see [`full_backtrace`](crate::full_backtrace).
    ///
    /// # Errors
    /// [`ScanError`]: the walk ends early.
    pub fn frames(&self, visit: impl FnMut(FrameAt) -> ControlFlow<()>) -> Result<(), ScanError> {
        // SAFETY: the goroutine has called out to us, so it stands still. Only the goroutine itself
        // moves its stack.
        unsafe { scan::frames(self.runtime(), self.goroutine(), visit) }
    }

    /// Announces that the native function writes references to the goroutine's own stack without
    /// the write barrier. It may do so until its call returns, in the frame that the addresses
    /// `words` lie in. Addresses outside of the stack do not matter.
    ///
    /// # Errors
    /// [`ScanError`]: the stack cannot be walked.
    pub fn note_stack_write(&self, words: Range<usize>) -> Result<(), ScanError> {
        let (runtime, bounds) = (self.runtime(), self.goroutine.bounds());
        let words = words.start.max(bounds.start)..words.end.min(bounds.end);
        if words.is_empty() {
            return Ok(());
        }
        let mut scan = self.goroutine.scan_lock();
        // The word with the last byte, which is in the oldest frame.
        let depth = bounds.end - (words.end - 1) / size_of::<usize>() * size_of::<usize>();
        // SAFETY: the goroutine has called out to us, on this thread.
        unsafe { scan::thaw(runtime, self.goroutine, &mut scan, depth) }.map(drop)
    }

    /// Checks, where managed code has called the library itself, that its native calls have come
    /// back from outside.
    ///
    /// # Panics
    /// If not: managed code would run in a world that counts as stopped.
    pub(crate) fn assert_back_inside(&self) {
        assert!(
            self.record.is_inside(),
            "native code has returned to managed code without leaving the foreign call that it \
             had entered"
        );
    }

    /// Answers handshakes, and waits while the world is stopped. The goroutine is at a safepoint.
    pub(crate) fn safepoint(&self) {
        self.runtime().world.safepoint(&self.record.entry.gate);
    }

    /// Ends the goroutine, whose entry function has ended. Leaves its stack for good;
    /// `asm::run` returns `left`.
    ///
    /// # Safety
    /// Called by the entry point that `goroutine_entry` calls. The frames here own nothing.
    pub(crate) unsafe fn end(self, left: usize) -> ! {
        self.record.end(self.goroutine);
        // SAFETY: the machine runs this goroutine; by our contract the frames may be dropped.
        unsafe { asm::leave(self.record.machine(), left) }
    }
}
