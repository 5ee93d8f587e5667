//! The status of a goroutine: it decides which thread may run it and which may read its stack.
//!
//! One word has the status and the bit `HELD`, which is set while a holder *holds* the
//! goroutine. InForeign has two words of its own, because foreign calls are frequent and holds
//! are rare. A goroutine InForeign has the status word Running and the flag `foreign` set; its
//! holder sets the flag `held`.
//!
//! Invariants:
//!
//! 1. Only a thread that has the goroutine's `scan_lock` sets or clears `HELD` or `held`. It holds
//!    only a goroutine that is not Running. So there is at most one holder.
//! 2. A goroutine becomes Running by a compare-and-swap that fails while `HELD` is set. The thread
//!    that fails waits for the `scan_lock` and tries again.
//! 3. From InForeign a goroutine becomes Running by a Dekker handshake. The goroutine clears
//!    `foreign`, passes a light fence and reads `held`. The holder sets `held`, passes a heavy
//!    fence and reads `foreign`. So at least one of the two sees the other and takes its own store
//!    back; a goroutine that does then waits for the `scan_lock`.
//! 4. A parked goroutine may become Runnable while it is held; `HELD` stays set.
//!
//! A goroutine is Parked before its wakers can see it: the function that parks it sees to that. So
//! [`StatusWord::ready`] never meets Running.

use crate::protocol::sync::{
    AtomicU32, LeftOut, Mutex, MutexGuard, Ordering, heavy_fence, left_out, light_fence,
};
use std::hint::cold_path;
use std::mem::offset_of;

/// What a goroutine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Ready to run, in some queue.
    Runnable = 0,
    /// On its stack, or in native code that is atomic to the collector.
    Running = 1,
    /// In native code that may wait. Its stack may be scanned, not moved.
    Foreign = 2,
    /// Waiting to be made ready.
    Parked = 3,
    /// Ended; the record may be reused.
    Dead = 4,
}

const HELD: u32 = 1 << 31;

impl Status {
    fn of(word: u32) -> Status {
        match word & !HELD {
            0 => Status::Runnable,
            1 => Status::Running,
            2 => Status::Foreign,
            3 => Status::Parked,
            4 => Status::Dead,
            other => unreachable!("status word {other:#x}"),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct StatusWord {
    word: AtomicU32,
    /// Not 0: InForeign. Written by the goroutine itself, whose word says Running meanwhile.
    foreign: AtomicU32,
    /// Not 0: a holder holds the goroutine InForeign, or tries to. Written under `scan_lock`.
    held: AtomicU32,
}

impl StatusWord {
    /// For debuggers, as are the two below: where this is in a status word, in bytes.
    pub(crate) const WORD_OFFSET: usize = offset_of!(StatusWord, word);
    pub(crate) const FOREIGN_OFFSET: usize = offset_of!(StatusWord, foreign);
    pub(crate) const HELD_OFFSET: usize = offset_of!(StatusWord, held);

    /// A word with this status, not held.
    pub(crate) fn new(status: Status) -> Self {
        let this = StatusWord {
            word: AtomicU32::new(Status::Dead as u32),
            foreign: AtomicU32::new(0),
            held: AtomicU32::new(0),
        };
        this.revive(status);
        this
    }

    /// The status at this moment, for other threads. A goroutine that is held InForeign counts as
    /// Foreign even while it tries to return. The goroutine itself asks
    /// [`StatusWord::is_foreign`].
    pub(crate) fn get(&self) -> Status {
        // Acquire, both: pairs with the Release of `stop`, and of the holder, which has seen that.
        // A thread that sees the status sees the saved `sched`.
        match Status::of(self.word.load(Ordering::Acquire)) {
            Status::Running if self.is_foreign() || self.held.load(Ordering::Acquire) != 0 => {
                Status::Foreign
            }
            status => status,
        }
    }

    /// Whether the goroutine is InForeign. Also true after it has tried to
    /// return and found itself held.
    #[inline]
    pub(crate) fn is_foreign(&self) -> bool {
        // Acquire: as in `get`.
        self.foreign.load(Ordering::Acquire) != 0
    }

    /// Holds the goroutine if it is stopped. It stays stopped until the value is dropped.
    ///
    /// # Errors
    /// The status that makes it impossible: Running or Dead.
    pub(crate) fn hold<'g, T>(&'g self, scan_lock: &'g Mutex<T>) -> Result<Held<'g, T>, Status> {
        let state = scan_lock.lock();
        let status = self.try_hold()?;
        Ok(Held { word: self, status, state })
    }

    /// As [`StatusWord::hold`], without waiting: `None` if another thread has the lock.
    pub(crate) fn hold_now<'g, T>(
        &'g self,
        scan_lock: &'g Mutex<T>,
    ) -> Option<Result<Held<'g, T>, Status>> {
        let state = scan_lock.try_lock()?;
        Some(self.try_hold().map(|status| Held { word: self, status, state }))
    }

    /// From `from` to Running; waits while the goroutine is held.
    ///
    /// # Panics
    /// If the status is not `from`.
    #[inline]
    pub(crate) fn start_running<T>(&self, from: Status, scan_lock: &Mutex<T>) {
        while !self.try_start(from) {
            drop(scan_lock.lock());
        }
    }

    /// The same without waiting: false while it is held.
    #[inline]
    pub(crate) fn try_start(&self, from: Status) -> bool {
        if from == Status::Foreign { self.try_return() } else { self.try_run(from) }
    }

    /// From InForeign to Running; false while the goroutine is held.
    #[inline]
    fn try_return(&self) -> bool {
        assert!(self.foreign.load(Ordering::Relaxed) != 0, "a goroutine returns twice");
        self.foreign.store(0, Ordering::Relaxed);
        // Invariant 3: pairs with the fence in try_hold_foreign.
        if !left_out(LeftOut::ForeignFence) {
            light_fence();
        }
        // Acquire: what the last holder wrote (slots) is visible to the goroutine.
        if self.held.load(Ordering::Acquire) == 0 {
            return true;
        }
        cold_path();
        // Release: as in `stop`; the frames have not changed since.
        self.foreign.store(1, Ordering::Release);
        false
    }

    /// Sets `held` if the goroutine is InForeign. The caller has the `scan_lock`.
    fn try_hold_foreign(&self) -> Result<Status, Status> {
        if !self.is_foreign() {
            return Err(Status::Running);
        }
        // Release: a thread that sees the goroutine held also sees what this one has just seen.
        self.held.store(u32::from(!left_out(LeftOut::Held)), Ordering::Release);
        // Invariant 3: pairs with the fence in try_return.
        if !left_out(LeftOut::ForeignFence) {
            heavy_fence();
        }
        if self.is_foreign() {
            return Ok(Status::Foreign);
        }
        // Relaxed: the fence above makes it a Release. The goroutine may read this 0 in place of
        // the last holder's, and must see what that one wrote.
        self.held.store(0, Ordering::Relaxed);
        Err(Status::Running)
    }

    /// Sets the bit if the goroutine is stopped. The caller has the `scan_lock`.
    fn try_hold(&self) -> Result<Status, Status> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            debug_assert_eq!(word & HELD, 0, "only the owner of scan_lock sets the bit");
            match Status::of(word) {
                Status::Running => return self.try_hold_foreign(),
                Status::Dead => return Err(Status::Dead),
                _ => {}
            }
            // Acquire: what the goroutine wrote before it stopped (its frames, `sched`) is visible
            // to the holder.
            let held = if left_out(LeftOut::Held) { word } else { word | HELD };
            match self.word.compare_exchange_weak(word, held, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Ok(Status::of(word)),
                Err(now) => word = now,
            }
        }
    }

    /// Lets go of the goroutine, which was held with this status.
    fn release(&self, status: Status) {
        // Release: what the holder wrote (slots, a moved stack) is visible to
        // the goroutine when it runs.
        if status == Status::Foreign {
            self.held.store(0, Ordering::Release);
        } else {
            self.word.fetch_and(!HELD, Ordering::Release);
        }
    }

    /// From `from` to Running; false while the goroutine is held.
    fn try_run(&self, from: Status) -> bool {
        // Acquire: pairs with `release` of the last holder, and with the Release of the thread that
        // stopped the goroutine.
        let swap = self.word.compare_exchange(
            from as u32,
            Status::Running as u32,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        match swap {
            Ok(_) => true,
            Err(word) => {
                assert_eq!(Status::of(word), from, "a goroutine is started twice");
                false
            }
        }
    }

    /// From Running to a status in which other threads may read the stack.
    #[inline]
    pub(crate) fn stop(&self, to: Status) {
        debug_assert!(
            Status::of(self.word.load(Ordering::Relaxed)) == Status::Running && !self.is_foreign()
        );
        // Release: frames and `sched` are visible before the status. A Running goroutine is not
        // held, so a store is enough.
        let order =
            if left_out(LeftOut::StopRelease) { Ordering::Relaxed } else { Ordering::Release };
        match to {
            Status::Foreign => self.foreign.store(1, order),
            to => self.word.store(to as u32, order),
        }
    }

    /// From Parked to Runnable, held or not.
    ///
    /// # Panics
    /// If the goroutine is not parked: it was made ready twice.
    pub(crate) fn ready(&self) {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            assert_eq!(Status::of(word), Status::Parked, "only a parked goroutine is made ready");
            let next = word & HELD | Status::Runnable as u32;
            // AcqRel: what the parked goroutine and its waker wrote is visible to the next runner.
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// A dead goroutine's record begins a new life.
    pub(crate) fn revive(&self, as_what: Status) {
        debug_assert_eq!(Status::of(self.word.load(Ordering::Relaxed)), Status::Dead);
        let foreign = as_what == Status::Foreign;
        // Release: a holder may see the flag of the new life, and of its word that it is Running,
        // before it has seen the word by an Acquire. The header is visible then.
        self.foreign.store(foreign.into(), Ordering::Release);
        let word = if foreign { Status::Running } else { as_what };
        // Release: the new life's header and flag are visible before its status.
        self.word.store(word as u32, Ordering::Release);
    }
}

/// A goroutine that is held. Dropping the value lets it go.
#[derive(Debug)]
pub(crate) struct Held<'g, T> {
    word: &'g StatusWord,
    /// What it was doing.
    pub(crate) status: Status,
    /// What `scan_lock` guards.
    pub(crate) state: MutexGuard<'g, T>,
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        // Let go before the lock is released: invariant 1.
        self.word.release(self.status);
    }
}

#[cfg(all(test, stackmark_loom))]
mod models;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
