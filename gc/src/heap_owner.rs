//! To whom a heap belongs: the runtime whose threads allocate from it, and the collector that marks
//! it. A heap has one of each in its life.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use stackmark_stack::{Inside, Runtime};

/// Hears of a heap's growth, on the thread that allocates, which holds no lock.
pub(crate) trait GrowthListener: Send + Sync {
    /// The heap has grown to its trigger: a collection is to begin.
    fn reached_trigger(&self);

    /// The calling thread has been handed `bytes` bytes that were not reported before. A cycle may
    /// be marking. The call may mark for a while, or wait.
    fn handed_out(&self, bytes: usize);
}

/// To whom a heap belongs: the runtime whose threads allocate from it, and the collector that marks
/// it. Both are set once. A [`Heap`](crate::heap::Heap) keeps one such value for its life.
///
/// A heap takes the runtime of the first thread that allocates from it, or that of its collector.
pub struct HeapOwner {
    /// The runtime's id; 0 before there is one. Relaxed: each value stands for itself, and a stored
    /// one does not change.
    runtime: AtomicU64,
    /// A collector has claimed the heap. Relaxed, as above.
    is_claimed: AtomicBool,
    listener: OnceLock<Box<dyn GrowthListener>>,
}

impl std::fmt::Debug for HeapOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeapOwner")
            .field("runtime", &self.runtime)
            .field("is_claimed", &self.is_claimed)
            .finish_non_exhaustive()
    }
}

/// Why a thread may not allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The thread has gone outside since it got its [`Inside`], for example into
    /// [`Caller::foreign`](stackmark_stack::Caller::foreign).
    #[error(
        "this thread has gone outside since it was shown to be inside, and the collector did not \
         wait for it: it allocates with a new `Inside`"
    )]
    Outside,
    /// The heap belongs to another runtime.
    #[error("the heap belongs to another runtime, whose threads alone allocate from it")]
    OtherRuntime,
}

/// Why a collector may not have a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotClaimed {
    /// The heap has a collector, or has had one.
    #[error("a heap has one collector, also after that is gone")]
    HasCollector,
    /// The heap belongs to another runtime.
    #[error("the heap belongs to another runtime than the collector's")]
    OtherRuntime,
}

impl HeapOwner {
    /// Of a heap that belongs to no runtime yet.
    pub const fn new() -> HeapOwner {
        HeapOwner {
            runtime: AtomicU64::new(0),
            is_claimed: AtomicBool::new(false),
            listener: OnceLock::new(),
        }
    }

    /// Checks that the calling thread may allocate now. A heap asks at each allocation.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    #[inline]
    pub fn admit(&self, inside: &Inside<'_>) -> Result<(), NotAdmitted> {
        if !inside.is_unbroken() {
            return Err(NotAdmitted::Outside);
        }
        if self.runtime.load(Relaxed) == inside.runtime().id() {
            return Ok(());
        }
        self.bind(inside.runtime().id()).then_some(()).ok_or(NotAdmitted::OtherRuntime)
    }

    /// Gives the heap to the runtime with this number, unless another one has it.
    #[cold]
    fn bind(&self, runtime: u64) -> bool {
        self.runtime.compare_exchange(0, runtime, Relaxed, Relaxed).is_ok()
            || self.runtime.load(Relaxed) == runtime
    }

    /// The heap has grown to its [trigger](crate::heap::Heap::set_trigger): a collection is to
    /// begin. Called on the thread that allocates, which holds no lock.
    pub fn reached_trigger(&self) {
        if let Some(listener) = self.listener.get() {
            listener.reached_trigger();
        }
    }

    /// The calling thread has been handed `bytes` bytes that were not reported before. Called
    /// between `begin_cycle` and `end_cycle`, for about 16 KiB at a time, by a thread that holds no
    /// lock. The call may mark for a while, or wait, so that allocation does not outrun marking. It
    /// does nothing on a thread that may not allocate.
    pub fn handed_out(&self, inside: &Inside<'_>, bytes: usize) {
        if self.admit(inside).is_ok() {
            self.report(bytes);
        }
    }

    /// As [`HeapOwner::handed_out`], on a thread that was admitted.
    pub(crate) fn report(&self, bytes: usize) {
        if let Some(listener) = self.listener.get() {
            listener.handed_out(bytes);
        }
    }

    /// Sets the listener of a heap that has none.
    pub(crate) fn listen(&self, listener: Box<dyn GrowthListener>) {
        assert!(self.listener.set(listener).is_ok(), "a heap has one listener");
    }

    /// Claims the heap for a collector of `runtime`, until the value is dropped or settled.
    ///
    /// # Errors
    /// [`NotClaimed`].
    pub(crate) fn claim(&self, runtime: &Runtime) -> Result<Claim<'_>, NotClaimed> {
        if self.is_claimed.swap(true, Relaxed) {
            return Err(NotClaimed::HasCollector);
        }
        let claim = Claim { owner: self, runtime: runtime.id(), is_settled: false };
        match self.runtime.load(Relaxed) {
            0 => Ok(claim),
            other if other == claim.runtime => Ok(claim),
            _ => Err(NotClaimed::OtherRuntime),
        }
    }
}

impl Default for HeapOwner {
    fn default() -> HeapOwner {
        HeapOwner::new()
    }
}

/// A heap that a collector is about to have.
#[derive(Debug)]
pub(crate) struct Claim<'o> {
    owner: &'o HeapOwner,
    runtime: u64,
    is_settled: bool,
}

impl Claim<'_> {
    /// Gives the heap to the collector for good.
    ///
    /// # Errors
    /// [`NotClaimed::OtherRuntime`]: a thread of another runtime has allocated meanwhile.
    pub(crate) fn settle(mut self, listener: Box<dyn GrowthListener>) -> Result<(), NotClaimed> {
        if !self.owner.bind(self.runtime) {
            return Err(NotClaimed::OtherRuntime);
        }
        self.is_settled = true;
        self.owner.listen(listener);
        Ok(())
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.owner.is_claimed.store(false, Relaxed);
        }
    }
}

/// A new object, all zero, on the thread that has allocated it. It stays as long as the thread
/// stays inside. [`Handles::create_fresh`](crate::handle::Handles::create_fresh) keeps it longer;
/// so does a store into an object that is kept.
#[derive(Clone, Copy, Debug)]
pub struct Fresh<'i> {
    address: NonZeroUsize,
    inside: Inside<'i>,
}

impl<'i> Fresh<'i> {
    /// The object at `address`, handed out to a thread that was [admitted](HeapOwner::admit).
    ///
    /// # Safety
    /// Its heap has handed out the object to this thread since `inside` was made.
    #[inline]
    pub unsafe fn new(address: NonZeroUsize, inside: &Inside<'i>) -> Fresh<'i> {
        Fresh { address, inside: *inside }
    }

    /// The object's address.
    #[inline]
    pub fn address(&self) -> usize {
        self.address.get()
    }

    /// The object's address, as a pointer.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.address.get() as *mut u8
    }

    /// Shows that the thread was inside when it allocated the object.
    #[inline]
    pub fn inside(&self) -> Inside<'i> {
        self.inside
    }
}
