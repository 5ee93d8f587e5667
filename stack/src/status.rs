//! The status word of a goroutine: who may run it, who may look at its stack.
//!
//! One word holds the status and a bit that says that somebody *holds* the goroutine. Invariants:
//!
//! 1. The bit is set and cleared only by a thread that has the goroutine's `scan_lock`, and is set only on a goroutine that
//!    is not Running: so there is one holder.
//! 2. A goroutine becomes Running only by a compare-and-swap that fails while the bit is set: it stays where it is
//!    as long as it is held. Whoever fails waits for the `scan_lock` and tries again.
//! 3. A parked goroutine may be made Runnable while it is held; the bit stays.
//!
//! The park happens before whatever makes the goroutine visible to those who may wake it (its author's duty), so
//! [`StatusWord::ready`] never meets Running.

use crate::sync::{AtomicU32, Ordering};

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
pub(crate) struct StatusWord(AtomicU32);

impl StatusWord {
    /// A word with a status that nobody holds.
    pub(crate) fn new(status: Status) -> Self {
        StatusWord(AtomicU32::new(status as u32))
    }

    /// The status at this moment.
    pub(crate) fn get(&self) -> Status {
        // Acquire: with the Release of park and enter_foreign, whoever sees the status sees the saved `sched`.
        Status::of(self.0.load(Ordering::Acquire))
    }

    /// Sets the bit if the goroutine is stopped. The caller has the `scan_lock`.
    ///
    /// # Errors
    /// The status that makes it impossible: Running or Dead.
    pub(crate) fn try_hold(&self) -> Result<Status, Status> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            debug_assert_eq!(word & HELD, 0, "only the owner of scan_lock sets the bit");
            let status = Status::of(word);
            if matches!(status, Status::Running | Status::Dead) {
                return Err(status);
            }
            // Acquire: what the goroutine wrote before it stopped (its frames, `sched`) is visible to the holder.
            match self.0.compare_exchange_weak(word, word | HELD, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(status),
                Err(now) => word = now,
            }
        }
    }

    /// Clears the bit.
    pub(crate) fn release(&self) {
        // Release: what the holder wrote (slots, a moved stack) is visible to the goroutine when it runs.
        self.0.fetch_and(!HELD, Ordering::Release);
    }

    /// From `from` to Running; false while the goroutine is held.
    ///
    /// # Panics
    /// If the status is not `from`.
    pub(crate) fn try_run(&self, from: Status) -> bool {
        // Acquire: pairs with release() of the last holder and with the Release of whoever parked it.
        let swap = self.0.compare_exchange(from as u32, Status::Running as u32, Ordering::Acquire, Ordering::Relaxed);
        match swap {
            Ok(_) => true,
            Err(word) => {
                assert_eq!(Status::of(word), from, "a goroutine is started twice");
                false
            }
        }
    }

    /// From Running to a status in which others may look at the stack.
    pub(crate) fn stop(&self, to: Status) {
        debug_assert_eq!(self.get(), Status::Running);
        // Release: frames and `sched` before the status. A Running goroutine is not held, so a store is enough.
        self.0.store(to as u32, Ordering::Release);
    }

    /// From Parked to Runnable, held or not.
    ///
    /// # Panics
    /// If the goroutine is not parked: it was made ready twice.
    pub(crate) fn ready(&self) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            assert_eq!(Status::of(word), Status::Parked, "only a parked goroutine is made ready");
            let next = word & HELD | Status::Runnable as u32;
            // AcqRel: passes on to the next runner what the parked goroutine and its waker wrote.
            match self.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// A dead goroutine's record begins a new life.
    pub(crate) fn revive(&self) {
        debug_assert_eq!(self.get(), Status::Dead);
        // Release: the new life's header before its status.
        self.0.store(Status::Runnable as u32, Ordering::Release);
    }
}
