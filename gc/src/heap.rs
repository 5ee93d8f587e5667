//! The trait that a collector marks a heap through.
//!
//! A heap finds the object that a word points into, marks it, and enumerates the references in it.
//! It lays out and hands out memory as it likes. [`mark_sweep`](crate::mark_sweep) is the heap that
//! comes with the crate.

use std::num::NonZeroUsize;
use std::ops::Range;

pub use crate::heap_owner::{Fresh, HeapOwner, NotAdmitted, NotClaimed};

/// The address at which an object of a heap begins. Objects do not move, so it stays the same for
/// the object's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Object(NonZeroUsize);

impl Object {
    /// Names the object at `address`.
    ///
    /// # Safety
    /// An object begins at `address`. The heap that the result is passed to has handed it out and
    /// not freed it.
    pub const unsafe fn from_address(address: NonZeroUsize) -> Object {
        Object(address)
    }

    /// The object's address.
    pub const fn address(self) -> usize {
        self.0.get()
    }
}

/// The colour of an object that was just marked (Dijkstra, Lamport, Martin, Scholten and Steffens,
/// "On-the-fly garbage collection: an exercise in cooperation", CACM 1978).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shade {
    /// It is to be traced.
    Grey(Object),
    /// It holds no references, and has this size in bytes, by [`Heap::size`].
    Black(usize),
}

/// What marking has found, as the collector tells the heap at the end of a cycle. Objects that were
/// allocated while the cycle ran are left out: they were born marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Objects for which [`Heap::mark`] returned true.
    pub objects: u64,
    /// Their bytes, by [`Heap::size`].
    pub bytes: u64,
}

/// What a heap has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapCounts {
    /// Bytes handed out.
    pub allocated_bytes: u64,
    /// Objects marked, in all cycles.
    pub objects_marked: u64,
    /// Objects found dead, whose memory was taken back.
    pub objects_swept: u64,
    /// Bytes in live objects after the last cycle: an estimate until its sweep is complete, then
    /// exact.
    pub live_bytes: u64,
    /// Bytes of memory that hold objects, or have held some and were not given back to the system.
    pub resident_bytes: u64,
}

/// The right of a heap's collector to run cycles: only the collector has one. So no other code
/// marks objects, or condemns those that it has not marked.
#[derive(Debug)]
pub struct CycleRight(());

/// The collector's.
pub(crate) const BY_COLLECTOR: &CycleRight = &CycleRight(());

/// A non-moving heap that a concurrent collector marks.
///
/// # A cycle, as the heap sees it
///
/// 1. [`finish_sweep`](Heap::finish_sweep) completes the last cycle. Every mark is clear then,
///    unless marks are kept (see below).
/// 2. The collector turns the write barrier on, and waits until every thread that allocates has
///    answered a handshake.
/// 3. [`begin_cycle`](Heap::begin_cycle). The world runs. Each object handed out from now on is
///    *black*: it counts as marked and is not traced. That is sound, because the thread that
///    initialises it runs with the write barrier on. (A thread without the barrier could store a
///    white object's only reference into a black object.)
/// 4. [`resolve`](Heap::resolve), [`mark`](Heap::mark), [`trace`](Heap::trace) from many threads,
///    while others allocate.
/// 5. [`end_cycle`](Heap::end_cycle), with the world stopped. What is unmarked is garbage from now
///    on.
/// 6. The world runs. A thread of the collector calls [`finish_sweep`](Heap::finish_sweep) and then
///    [`release`](Heap::release), while others allocate.
///
/// # Generations
///
/// A collector with generations calls [`keep_marks`](Heap::keep_marks) before the first
/// cycle. From then on marks stay when a cycle ends. A *major* cycle calls
/// [`clear_marks`](Heap::clear_marks) after step 1; a *minor* one does not. So a minor cycle marks
/// and traces only what no cycle has marked since, and condemns only that. Between cycles objects
/// are handed out unmarked.
///
/// # Safety
///
/// The collector and the managed code rely on the heap:
///
/// - The memory of an object that was marked in a cycle, or handed out after its `begin_cycle`,
///   stays as it is at least until the next cycle; if marks are kept, until the next major one.
/// - `trace` reports every reference that lies in the object.
/// - `resolve` returns only objects of this heap that are handed out, or cells that hold zeros and
///   that are harmless to mark and trace.
/// - `owner` returns the same value at each call. Before an object is handed out, it has
///   [admitted](HeapOwner::admit) the thread.
/// - A [`CycleRight`] is not passed on to another heap.
pub unsafe trait Heap: Send + Sync + 'static {
    /// The object that `word` points to or into. Any word may be passed: an address outside of the
    /// heap, in free memory, or past the last object of its block gives `None`. (The address past
    /// an object is the address of its neighbour. Retaining the neighbour is harmless.)
    ///
    /// A thread may have loaded the word without having synchronised with the thread that was
    /// handed the object. So a heap that hands out an object stores what this call looks at, then
    /// passes a fence (Release), and looks at addresses that are made of the word.
    fn resolve(&self, word: usize) -> Option<Object>;

    /// Whether `word` may refer to an object, as far as the heap knows without touching memory. If
    /// so, prefetches what [`resolve`](Heap::resolve) and [`mark`](Heap::mark) will need.
    fn prefetch(&self, word: usize) -> bool {
        word != 0
    }

    /// Marks `object`. Returns whether it was unmarked. Of several threads that mark it at the same
    /// time, exactly one gets true.
    fn mark(&self, object: Object, right: &CycleRight) -> bool;

    /// Marks the object that `word` points to or into: what [`resolve`](Heap::resolve) and
    /// [`mark`](Heap::mark) do, one after the other. Returns what has become of it if it was
    /// unmarked.
    fn mark_at(&self, word: usize, right: &CycleRight) -> Option<Shade> {
        self.resolve(word).filter(|object| self.mark(*object, right)).map(Shade::Grey)
    }

    /// Whether `object` is marked, in this cycle or, if marks are kept, in an earlier one.
    fn is_marked(&self, object: Object) -> bool;

    /// The object's size in bytes, as the heap accounts for it.
    fn size(&self, object: Object) -> usize;

    /// Calls `visit` with each word at a byte offset in `range` that may hold a reference. Offsets
    /// beyond the object's size are left out. `visit` gets the words as they are: null, interior
    /// and foreign ones too. Returns the object's [`size`](Heap::size).
    ///
    /// Mutators may store meanwhile, so the heap loads each word atomically. The write barrier
    /// takes care of a store that the load misses.
    fn trace(
        &self,
        object: Object,
        range: Range<usize>,
        visit: &mut impl FnMut(usize),
        right: &CycleRight,
    ) -> usize;

    /// Turns black allocation on. When this returns, no thread hands out a white object any more.
    fn begin_cycle(&self, right: &CycleRight);

    /// Turns black allocation off and condemns what is unmarked. Marking is complete and the world
    /// is stopped.
    fn end_cycle(&self, marked: Marked, right: &CycleRight);

    /// Says whether marks stay when a cycle has ended: marked objects are old then. Called when the
    /// heap's collector starts, before the first cycle. Returns false if the heap cannot do that.
    fn keep_marks(&self, keep: bool, _right: &CycleRight) -> bool {
        !keep
    }

    /// Clears all marks that were kept. Called when the sweep is complete and before the write
    /// barrier goes on for marking. Other threads allocate meanwhile and look at marks; they may
    /// see either state.
    fn clear_marks(&self, _right: &CycleRight) {}

    /// Completes the sweep of the last cycle, with what other threads are sweeping. Returns at once
    /// if there is nothing to do.
    fn finish_sweep(&self, right: &CycleRight);

    /// Gives free memory back to the system until about `keep` bytes are resident.
    fn release(&self, keep: usize, _right: &CycleRight) {
        let _ = keep;
    }

    /// Has [`HeapOwner::reached_trigger`] called once, when `bytes` bytes have been handed out
    /// since the last `end_cycle`.
    fn set_trigger(&self, bytes: usize, right: &CycleRight);

    /// To whom the heap belongs.
    fn owner(&self) -> &HeapOwner;

    /// Bytes handed out since the last `end_cycle`.
    fn allocated_since_cycle(&self) -> usize;

    /// What the heap has counted.
    fn counts(&self) -> HeapCounts;
}
