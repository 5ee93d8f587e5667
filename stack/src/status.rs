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

use crate::sync::{AtomicU32, LeftOut, Mutex, MutexGuard, Ordering, left_out};

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

    /// Holds the goroutine if it is stopped: until the value is dropped it stays so.
    ///
    /// # Errors
    /// The status that makes it impossible: Running or Dead.
    pub(crate) fn hold<'g, T>(&'g self, scan_lock: &'g Mutex<T>) -> Result<Held<'g, T>, Status> {
        let state = scan_lock.lock();
        let status = self.try_hold()?;
        Ok(Held { word: self, status, state })
    }

    /// From `from` to Running; waits while somebody holds the goroutine.
    ///
    /// # Panics
    /// If the status is not `from`.
    pub(crate) fn start_running<T>(&self, from: Status, scan_lock: &Mutex<T>) {
        while !self.try_run(from) {
            drop(scan_lock.lock());
        }
    }

    /// Sets the bit if the goroutine is stopped. The caller has the `scan_lock`.
    fn try_hold(&self) -> Result<Status, Status> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            debug_assert_eq!(word & HELD, 0, "only the owner of scan_lock sets the bit");
            let status = Status::of(word);
            if matches!(status, Status::Running | Status::Dead) {
                return Err(status);
            }
            // Acquire: what the goroutine wrote before it stopped (its frames, `sched`) is visible to the holder.
            let held = if left_out(LeftOut::Held) { word } else { word | HELD };
            match self.0.compare_exchange_weak(word, held, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(status),
                Err(now) => word = now,
            }
        }
    }

    /// Clears the bit.
    fn release(&self) {
        // Release: what the holder wrote (slots, a moved stack) is visible to the goroutine when it runs.
        self.0.fetch_and(!HELD, Ordering::Release);
    }

    /// From `from` to Running; false while the goroutine is held.
    fn try_run(&self, from: Status) -> bool {
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
        let order = if left_out(LeftOut::StopRelease) { Ordering::Relaxed } else { Ordering::Release };
        self.0.store(to as u32, order);
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
    pub(crate) fn revive(&self, as_what: Status) {
        debug_assert_eq!(self.get(), Status::Dead);
        // Release: the new life's header before its status.
        self.0.store(as_what as u32, Ordering::Release);
    }
}

/// A goroutine that is held.
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
        // Before the lock is given up: invariant 1.
        self.word.release();
    }
}

#[cfg(all(test, stackmark_loom))]
mod loom_models {
    use super::*;
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    /// A goroutine whose frames are one cell: loom reports any two accesses that nothing orders.
    struct Modelled {
        status: StatusWord,
        scan: Mutex<u32>,
        frames: UnsafeCell<u32>,
        requested: AtomicU32,
    }

    impl Modelled {
        fn new(status: Status) -> Arc<Self> {
            Arc::new(Modelled {
                status: StatusWord::new(status),
                scan: Mutex::new(0),
                frames: UnsafeCell::new(0),
                requested: AtomicU32::new(0),
            })
        }

        /// A step of managed code, which changes its frames.
        fn run_a_step(&self) {
            // SAFETY: loom checks that nobody else is there.
            self.frames.with_mut(|frames| unsafe { *frames += 1 });
        }

        /// Scans once; whether it is scanned now.
        fn try_scan(&self) -> bool {
            match self.status.hold(&self.scan) {
                Ok(mut held) => {
                    if *held.state == 0 {
                        // SAFETY: loom checks that nobody writes.
                        self.frames.with(|frames| unsafe { assert!(*frames <= 3) });
                        *held.state += 1;
                    }
                    true
                }
                Err(Status::Dead) => true,
                Err(_) => {
                    self.requested.store(1, Ordering::Release);
                    false
                }
            }
        }

        fn poll(&self) {
            if self.requested.load(Ordering::Acquire) != 0 {
                let mut scanned = self.scan.lock();
                if *scanned == 0 {
                    self.run_a_step();
                    *scanned += 1;
                }
            }
        }
    }

    #[test]
    fn loom_a_request_meets_a_goroutine_that_parks() {
        loom::model(|| {
            let g = Modelled::new(Status::Running);
            let goroutine = g.clone();
            let thread = thread::spawn(move || {
                goroutine.run_a_step();
                goroutine.poll();
                goroutine.run_a_step();
                goroutine.status.stop(Status::Parked);
            });
            if !g.try_scan() {
                thread.join().unwrap();
                assert!(g.try_scan(), "a parked goroutine can be held");
            } else {
                thread.join().unwrap();
            }
            assert_eq!(*g.scan.lock(), 1, "scanned once");
        });
    }

    #[test]
    fn loom_a_held_goroutine_is_made_ready_and_run() {
        loom::model(|| {
            let g = Modelled::new(Status::Parked);
            let goroutine = g.clone();
            let thread = thread::spawn(move || {
                goroutine.status.ready();
                goroutine.status.start_running(Status::Runnable, &goroutine.scan);
                goroutine.run_a_step();
                goroutine.status.stop(Status::Dead);
            });
            g.try_scan();
            thread.join().unwrap();
            assert_eq!(g.status.get(), Status::Dead);
        });
    }

    #[test]
    fn loom_two_holders_and_a_foreign_return() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let g = Modelled::new(Status::Foreign);
            let (goroutine, other) = (g.clone(), g.clone());
            let runs = thread::spawn(move || {
                goroutine.status.start_running(Status::Foreign, &goroutine.scan);
                goroutine.run_a_step();
                goroutine.status.stop(Status::Foreign);
            });
            let holds = thread::spawn(move || {
                other.try_scan();
            });
            g.try_scan();
            holds.join().unwrap();
            runs.join().unwrap();
            assert!(*g.scan.lock() <= 1);
        });
    }
}
