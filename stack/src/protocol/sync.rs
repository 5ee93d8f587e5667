//! The atomics, locks and fences of the protocols. loom replaces them, so that
//! models run the very same code.
//!
//! With `--cfg stackmark_loom` everything here is loom's. Otherwise the atomics are the
//! standard library's and the locks are parking_lot's. With `--cfg stackmark_tsan` the
//! fences are operations that ThreadSanitizer understands. Code that never runs under a
//! model uses the standard types.

mod counts;
pub use counts::{ThreadCounts, thread_counts};

#[cfg(not(stackmark_loom))]
mod real {
    #[cfg(not(stackmark_tsan))]
    pub use super::asymmetric::{heavy_fence, light_fence, prepare_fences};
    use super::counts;
    #[cfg(stackmark_tsan)]
    pub use super::read_modify_write::{fence, heavy_fence, light_fence, prepare_fences};
    use std::sync::OnceLock;
    #[cfg(not(stackmark_tsan))]
    pub use std::sync::atomic::fence;
    pub use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
    use std::time::{Duration, Instant};

    /// How long [`spin`] looks: half as long as it takes to put a thread to sleep and to wake it.
    /// Spinning longer is a loss where the thread that is waited for needs this processor.
    const SPIN: Duration = Duration::from_micros(20);
    /// Pauses between two looks.
    const PAUSES: u32 = 16;

    /// Calls `done` for some microseconds until it returns true. Returns whether it did.
    /// Waking a thread takes longer than most of what a handshake waits for. With one
    /// processor it calls `done` once.
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
            // No yielding: other threads may keep the processor for milliseconds. The system
            // prefers a thread that slept and is woken.
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
        /// The lock, if it is free.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock()
        }
    }

    /// Unlocks, and lets a thread that waits have the lock next: for a holder that locks again at
    /// once.
    pub(crate) fn unlock_fair<T>(guard: MutexGuard<'_, T>) {
        parking_lot::MutexGuard::unlock_fair(guard);
    }

    /// A condition variable for [`Mutex`].
    #[derive(Debug, Default)]
    pub struct Condvar(parking_lot::Condvar);

    impl Condvar {
        /// A new condition variable.
        pub fn new() -> Self {
            Condvar(parking_lot::Condvar::new())
        }
        /// Gives up the lock until notified. May return without a notification.
        pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            counts::count_wait();
            self.0.wait(&mut guard);
            guard
        }
        /// As [`Condvar::wait`], but not longer than `timeout`.
        pub fn wait_for<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            timeout: Duration,
        ) -> MutexGuard<'a, T> {
            counts::count_wait();
            self.0.wait_for(&mut guard, timeout);
            guard
        }
        /// Wakes one waiter.
        pub fn notify_one(&self) {
            counts::count_wakes(self.0.notify_one().into());
        }
        /// Wakes all waiters.
        pub fn notify_all(&self) {
            counts::count_wakes(self.0.notify_all());
        }
    }
}

#[cfg(not(any(stackmark_loom, stackmark_tsan)))]
mod asymmetric;

/// Fences for ThreadSanitizer, which knows neither `fence` nor membarrier: read-modify-writes of
/// one word. Each reads the value that the one before it wrote, so everything before the earlier
/// fence happens before the later one. That orders at least what the real fences order. It orders
/// more in one respect: the earlier fence *synchronises* even where the later thread reads nothing
/// that was stored before it. So ThreadSanitizer may miss a race.
#[cfg(all(stackmark_tsan, not(stackmark_loom)))]
mod read_modify_write {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static FENCE: AtomicUsize = AtomicUsize::new(0);

    /// Nothing to prepare.
    pub fn prepare_fences() {}

    /// A full fence, whatever order is asked for.
    pub fn fence(_order: Ordering) {
        FENCE.fetch_add(1, Ordering::SeqCst);
    }

    /// A full fence.
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
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    /// Nothing to prepare.
    pub fn prepare_fences() {}

    /// A full fence.
    pub fn light_fence() {
        fence(Ordering::SeqCst);
    }

    /// As [`light_fence`].
    pub fn heavy_fence() {
        fence(Ordering::SeqCst);
    }

    /// Looks once. A model then takes the path of a waiter that has spun in vain.
    pub fn spin(mut done: impl FnMut() -> bool) -> bool {
        done()
    }

    /// loom's mutex with the interface of the real one. The value lies beside the lock, in a cell
    /// that loom watches. So loom catches a model that leaves the lock out.
    #[derive(Debug)]
    pub struct Mutex<T> {
        lock: loom::sync::Mutex<()>,
        value: loom::cell::UnsafeCell<T>,
    }

    // SAFETY: the lock orders all accesses. Where a model leaves the lock out, loom reports the
    // unordered accesses.
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
        /// The lock, if it is free.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            let locked = self.lock.try_lock().ok()?;
            Some(MutexGuard {
                value: Some(self.value.get_mut()),
                locked: Some(locked),
                mutex: self,
            })
        }
    }

    /// Unlocks: which thread is next is the model's choice.
    pub(crate) fn unlock_fair<T>(guard: MutexGuard<'_, T>) {
        drop(guard);
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Mutex::new(T::default())
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            // SAFETY: the guard has the lock; where a model leaves it out, loom reports the access.
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
    #[derive(Debug, Default)]
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

/// The parts of the protocols that a model may leave out on purpose. Its twin then shows that the
/// model notices. The code asks [`left_out`] at the very place that the variant breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// The table's word is written before the slot's.
    SavedFirst,
    /// Stubs removed under a goroutine that is InForeign are kept for a while.
    Limbo,
    /// A barrier blocks the goroutine's way to unvisited frames.
    Frontier,
    /// A native call that comes back to managed code compares what is watched.
    Watch,
    /// A worker compares its cycle with the scan's.
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
    /// The fence between `inside` and `wanted`.
    WorldFence,
    /// A thread that waits for machines fences before it takes one to be outside.
    OutsideFence,
    /// The heavy fence between the hint that a thread can be woken and the queues.
    WakeFence,
    /// A buffer of the write barrier is handed over before it leaves the list of buffers.
    HandOver,
    /// A sweeper of all blocks waits for the allocators that sweep a block of their own.
    SweepWait,
    /// An allocator reads whether new objects are black under the lock that a cycle's start takes.
    MarkingLock,
    /// The start of a cycle blackens the rest of every allocator's run.
    BlackRest,
    /// Allocators give up their blocks when a cycle ends.
    Retire,
    /// A goroutine that runs marks itself dirty.
    DirtyMark,
    /// A scan checks whether its cycle continues the last one.
    Kept,
    /// A goroutine that pushes frames polls before its young part exceeds the bound.
    YoungPoll,
    /// A goroutine that returns far places the next barrier close to it.
    Follow,
    /// Between cycles the write barrier records stores into old objects.
    Recorded,
    /// Marks are cleared before the write barrier switches to marking.
    ClearFirst,
    /// The write barrier goes off after weak references are cleared.
    OffLast,
    /// The table of weak references stays locked until the values of weak maps are traced.
    TableHeld,
    /// A thread that asks for a weak reference while they are cleared looks at the object's mark.
    WeakMark,
    /// The end of marking waits for workers that have taken what came late.
    CloseWait,
    /// A goroutine that runs next is taken by one step.
    NextExchange,
    /// The monitor takes a goroutine that runs next, and queues it, under the lock.
    RouseLock,
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

    // All threads of a model are coroutines of one OS thread. Each test has its own OS thread.
    std::thread_local! {
        static LEFT_OUT: Cell<Option<LeftOut>> = const { Cell::new(None) };
    }

    /// Whether the running model leaves this out.
    pub fn left_out(what: LeftOut) -> bool {
        LEFT_OUT.get() == Some(what)
    }

    /// Makes the models that this thread runs leave it out.
    pub fn leave_out(what: LeftOut) {
        LEFT_OUT.set(Some(what));
    }
}

#[cfg(stackmark_loom)]
pub use leaving_out::{leave_out, left_out};
pub use real::*;
