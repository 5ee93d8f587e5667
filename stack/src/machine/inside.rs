//! Threads that count as running. While a thread does, no handshake ends and the world does not
//! stop, until the thread has gone outside or passed a safepoint.

use super::caller::Caller;
use super::run::Machine;
use super::thread::ThreadRecord;
use crate::runtime::Runtime;
use std::marker::PhantomData;

/// A proof that the calling thread counts as running: it is *inside*. A collector frees nothing
/// that was allocated inside until the thread goes outside or passes a safepoint.
#[derive(Clone, Copy, Debug)]
pub struct Inside<'m> {
    record: &'m ThreadRecord,
    /// How often the thread had gone outside when the value was made.
    times_away: u64,
    _on_its_thread: PhantomData<*mut ()>,
}

impl<'m> Inside<'m> {
    fn new(record: &'m ThreadRecord) -> Option<Inside<'m>> {
        record.is_inside().then(|| Inside {
            record,
            times_away: record.times_away(),
            _on_its_thread: PhantomData,
        })
    }

    /// Whether the thread has been inside ever since the value was made.
    #[inline]
    pub fn is_unbroken(&self) -> bool {
        self.record.is_inside() && self.record.times_away() == self.times_away
    }

    /// The runtime that the thread runs in.
    #[inline]
    pub fn runtime(&self) -> &'m Runtime {
        &self.record.runtime
    }
}

impl<'m> Caller<'m> {
    /// A proof that the thread counts as running. `None` within
    /// [`Caller::foreign`], where it does not.
    #[inline]
    pub fn inside(&self) -> Option<Inside<'m>> {
        Inside::new(self.record)
    }
}

/// That a [`Machine`]'s thread counts as running, until the value is dropped.
#[must_use = "dropping the value takes the thread outside"]
#[derive(Debug)]
pub struct Entered<'m>(Inside<'m>);

impl<'m> Entered<'m> {
    /// A proof that the thread counts as running.
    pub fn inside(&self) -> Inside<'m> {
        self.0
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.record.leave_world();
    }
}

impl Machine {
    /// Calls `f` on this thread, which runs no goroutine, as native code that counts as running.
    /// The world does not stop meanwhile, so `f` is short and waits for nothing.
    ///
    /// # Panics
    /// If this thread counts as running already, or runs a goroutine.
    pub fn inside<R>(&self, f: impl FnOnce(Inside<'_>) -> R) -> R {
        let entered = self.enter();
        f(entered.inside())
    }

    /// As [`Machine::inside`], until the value is dropped: for native code that cannot give a
    /// closure.
    ///
    /// # Panics
    /// As [`Machine::inside`].
    pub fn enter(&self) -> Entered<'_> {
        let record = self.record();
        assert!(
            record.goroutine().is_none() && !record.is_inside(),
            "this thread counts as running already, or runs a goroutine"
        );
        record.runtime.enter_world(&record.entry.gate);
        Entered(Inside::new(record).expect("entered just now"))
    }
}

impl Runtime {
    /// Whether the calling thread counts as running in this runtime.
    pub fn is_inside(&self) -> bool {
        // SAFETY: used within this function alone.
        let record = unsafe { ThreadRecord::current() };
        record.is_some_and(|record| std::ptr::eq(&*record.runtime, self) && record.is_inside())
    }

    /// Panics on a thread that `what`, which waits for all machines, would wait for.
    ///
    /// # Panics
    /// If the calling thread counts as running in this runtime.
    pub fn assert_outside(&self, what: &str) {
        assert!(
            !self.is_inside(),
            "{what} waits for all goroutines, and this thread counts as running: call it from \
             within Caller::foreign, or outside of native functions"
        );
    }
}
