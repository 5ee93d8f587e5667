//! Atomics, locks and fences of the protocols, so that loom can run the very same code.
//!
//! With `--cfg stackmark_loom` everything here is loom's; otherwise the atomics are the standard
//! library's and the locks parking_lot's. With `--cfg stackmark_tsan` the fences are made of what
//! ThreadSanitizer knows. Only the protocol modules use it: what never runs under a model uses the
//! standard types.

#[cfg(not(stackmark_loom))]
mod real {
    #[cfg(not(stackmark_tsan))]
    pub use super::asymmetric::{heavy_fence, light_fence, prepare_fences};
    #[cfg(stackmark_tsan)]
    pub use super::read_modify_write::{fence, heavy_fence, light_fence, prepare_fences};
    use std::sync::OnceLock;
    #[cfg(not(stackmark_tsan))]
    pub use std::sync::atomic::fence;
    pub use std::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
    use std::time::{Duration, Instant};

    /// How long [`spin`] looks: half as long as it takes to put a thread to sleep and to wake it.
    /// Longer is lost where who is waited for needs this processor.
    const SPIN: Duration = Duration::from_micros(20);
    /// Pauses between two looks.
    const PAUSES: u32 = 16;

    /// Looks for some microseconds whether `done` says true, for what others do soon if they run at
    /// all: waking a thread takes longer than most of what is waited for in a handshake. True if it
    /// did. With one processor it looks once.
    pub fn spin(mut done: impl FnMut() -> bool) -> bool {
        static ALONE: OnceLock<bool> = OnceLock::new();
        if done() {
            return true;
        }
        if *ALONE.get_or_init(|| std::thread::available_parallelism().is_ok_and(|n| n.get() == 1)) {
            return false;
        }
        let begun = Instant::now();
        loop {
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
            if done() {
                return true;
            }
            // Without yielding: others might keep the processor for milliseconds, and who sleeps is
            // preferred when he is woken.
            if begun.elapsed() > SPIN {
                return false;
            }
        }
    }

    /// A mutual-exclusion lock without poisoning.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(parking_lot::Mutex<T>);
    /// The right to the value of a [`Mutex`].
    pub type MutexGuard<'a, T> = parking_lot::MutexGuard<'a, T>;

    impl<T> Mutex<T> {
        /// A new, unlocked mutex.
        pub fn new(value: T) -> Self {
            Mutex(parking_lot::Mutex::new(value))
        }
        /// Blocks until the lock is ours.
        #[inline]
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock()
        }
        /// The lock, if nobody has it.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock()
        }
    }

    /// A condition variable for [`Mutex`].
    #[derive(Debug, Default)]
    pub struct Condvar(parking_lot::Condvar);

    impl Condvar {
        /// A new condition variable.
        pub fn new() -> Self {
            Condvar(parking_lot::Condvar::new())
        }
        /// Gives up the lock until notified, or for no reason.
        pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(&mut guard);
            guard
        }
        /// As [`Condvar::wait`], but not longer than `timeout`.
        pub fn wait_for<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            timeout: Duration,
        ) -> MutexGuard<'a, T> {
            self.0.wait_for(&mut guard, timeout);
            guard
        }
        /// Wakes one waiter.
        pub fn notify_one(&self) {
            self.0.notify_one();
        }
        /// Wakes all waiters.
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

#[cfg(not(any(stackmark_loom, stackmark_tsan)))]
mod asymmetric {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

    /// Whether [`heavy_fence`] makes other threads' light fences full ones. Relaxed: set before any
    /// thread that uses it.
    static ASYMMETRIC: AtomicBool = AtomicBool::new(false);

    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: the call touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    /// Asks the system, once, to make light fences light. Called before the first thread is
    /// attached.
    pub fn prepare_fences() {
        static ONCE: OnceLock<()> = OnceLock::new();
        ONCE.get_or_init(|| {
            ASYMMETRIC.store(membarrier(REGISTER_PRIVATE_EXPEDITED), Ordering::Relaxed)
        });
    }

    /// The often executed half of a pair of fences between two threads that each write one word and
    /// read the other's. Together with [`heavy_fence`] it is a pair of `fence(SeqCst)`; with
    /// another light fence it is nothing.
    #[inline(always)]
    pub fn light_fence() {
        if ASYMMETRIC.load(Ordering::Relaxed) {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// The rare half: takes microseconds. Also a `fence(SeqCst)`.
    pub fn heavy_fence() {
        fence(Ordering::SeqCst);
        if ASYMMETRIC.load(Ordering::Relaxed) {
            // membarrier(2): every thread of the process that runs has executed a full fence when
            // it returns.
            assert!(
                membarrier(PRIVATE_EXPEDITED),
                "membarrier: {}",
                std::io::Error::last_os_error()
            );
        }
    }
}

/// Fences for ThreadSanitizer, which knows neither `fence` nor membarrier: read-modify-writes of
/// one word. Each sees the one before it, and everything before that. That is at least what the
/// others order: in the total order of both, the later of two fences comes after all that is before
/// the earlier one. It is more in one respect only: here the earlier one *synchronises* even where
/// nothing stored before it is read behind the later, so a race may be missed.
#[cfg(all(stackmark_tsan, not(stackmark_loom)))]
mod read_modify_write {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static FENCE: AtomicUsize = AtomicUsize::new(0);

    /// Nothing to prepare.
    pub fn prepare_fences() {}

    /// Whatever the order asked for.
    pub fn fence(_order: Ordering) {
        FENCE.fetch_add(1, Ordering::SeqCst);
    }

    /// What a light and a heavy fence are together.
    pub fn light_fence() {
        fence(Ordering::SeqCst);
    }

    /// As [`light_fence`].
    pub fn heavy_fence() {
        fence(Ordering::SeqCst);
    }
}

#[cfg(stackmark_loom)]
mod real {
    use super::{LeftOut, left_out};
    pub use loom::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    /// Nothing to prepare.
    pub fn prepare_fences() {}

    /// What a light and a heavy fence are together.
    pub fn light_fence() {
        fence(Ordering::SeqCst);
    }

    /// As [`light_fence`].
    pub fn heavy_fence() {
        fence(Ordering::SeqCst);
    }

    /// Looks once: what follows in a model is the way of who has looked in vain.
    pub fn spin(mut done: impl FnMut() -> bool) -> bool {
        done()
    }

    /// loom's mutex with the interface of the real one. The value lies beside the lock in a cell
    /// that loom watches, so that a model which leaves the lock out is caught.
    #[derive(Debug)]
    pub struct Mutex<T> {
        lock: loom::sync::Mutex<()>,
        value: loom::cell::UnsafeCell<T>,
    }

    // SAFETY: the lock orders all accesses; where a model leaves it out, loom finds the accesses
    // that nothing orders.
    unsafe impl<T: Send> Sync for Mutex<T> {}

    /// The right to the value of a [`Mutex`].
    #[derive(Debug)]
    pub struct MutexGuard<'a, T> {
        // Dropped in this order.
        value: Option<loom::cell::MutPtr<T>>,
        locked: Option<loom::sync::MutexGuard<'a, ()>>,
        mutex: &'a Mutex<T>,
    }

    impl<T> Mutex<T> {
        /// A new, unlocked mutex.
        pub fn new(value: T) -> Self {
            Mutex { lock: loom::sync::Mutex::new(()), value: loom::cell::UnsafeCell::new(value) }
        }
        /// Blocks until the lock is ours.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            let locked = (!left_out(LeftOut::Lock))
                .then(|| self.lock.lock().expect("a model that panics is over"));
            MutexGuard { value: Some(self.value.get_mut()), locked, mutex: self }
        }
        /// The lock, if nobody has it.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            let locked = self.lock.try_lock().ok()?;
            Some(MutexGuard {
                value: Some(self.value.get_mut()),
                locked: Some(locked),
                mutex: self,
            })
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Mutex::new(T::default())
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            // SAFETY: the guard has the lock, or loom says otherwise.
            unsafe { self.value.as_ref().expect("only missing while waiting").deref() }
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: as above.
            unsafe { self.value.as_ref().expect("only missing while waiting").deref() }
        }
    }

    /// loom's condition variable with the interface of the real one.
    #[derive(Debug)]
    pub struct Condvar(loom::sync::Condvar);

    impl Condvar {
        /// A new condition variable.
        pub fn new() -> Self {
            Condvar(loom::sync::Condvar::new())
        }
        /// Gives up the lock until notified.
        pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            guard.value = None;
            if let Some(locked) = guard.locked.take() {
                guard.locked = Some(self.0.wait(locked).expect("a model that panics is over"));
            }
            guard.value = Some(guard.mutex.value.get_mut());
            guard
        }
        /// loom has no time: waits until notified.
        pub fn wait_for<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            _timeout: Duration,
        ) -> MutexGuard<'a, T> {
            self.wait(guard)
        }
        /// Wakes one waiter.
        pub fn notify_one(&self) {
            self.0.notify_one();
        }
        /// Wakes all waiters.
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

/// What a model may leave out of a protocol on purpose, to show that the model would notice. Each
/// is asked for at the very place that it breaks, by [`left_out`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// The table's word is written before the slot's.
    SavedFirst,
    /// Stubs removed under a goroutine that is InForeign are kept for a while.
    Limbo,
    /// Something blocks the way to what nobody has visited.
    Frontier,
    /// A worker looks at the number of the cycle.
    Epoch,
    /// Every lock.
    Lock,
    /// A held goroutine does not run.
    Held,
    /// What a goroutine does before it stops is visible to its holder.
    StopRelease,
    /// The fences between the poll word and the request flag.
    RequestFence,
    /// The fences between a goroutine that comes back from a foreign call and its holder.
    ForeignFence,
    /// The handshake before the first stack is scanned.
    Handshake,
    /// The fence between `inside` and `stopping`.
    WorldFence,
    /// A buffer of the write barrier that goes away is handed over before the list of buffers can
    /// be seen without it.
    HandOver,
    /// Who sweeps everything waits for those that sweep a block of their own.
    SweepWait,
    /// Whether a run is to be black is read under the lock that the beginning of a cycle takes.
    MarkingLock,
    /// The rest of the runs of allocators is made black when a cycle begins.
    BlackRest,
    /// Allocators give up their blocks when a cycle ends.
    Retire,
    /// A goroutine that runs says so.
    RanNote,
    /// A scan asks whether its cycle goes on from the last one.
    Kept,
    /// Between cycles, what is stored into old objects is recorded.
    Recorded,
    /// Marks are cleared before the write barrier goes over to marking.
    ClearFirst,
}

/// Whether the running model leaves this out. Never, outside of models.
#[cfg(not(stackmark_loom))]
#[inline(always)]
pub const fn left_out(_what: LeftOut) -> bool {
    false
}

#[cfg(stackmark_loom)]
mod leaving_out {
    use super::LeftOut;
    use std::cell::Cell;

    // All of a model's threads are coroutines of one OS thread, and each test has an OS thread of
    // its own.
    std::thread_local! {
        static LEFT_OUT: Cell<Option<LeftOut>> = const { Cell::new(None) };
    }

    /// Whether the running model leaves this out.
    pub fn left_out(what: LeftOut) -> bool {
        LEFT_OUT.get() == Some(what)
    }

    /// Lets the models that this thread runs leave it out.
    pub fn leave_out(what: LeftOut) {
        LEFT_OUT.set(Some(what));
    }
}

#[cfg(stackmark_loom)]
pub use leaving_out::{leave_out, left_out};
pub use real::*;
