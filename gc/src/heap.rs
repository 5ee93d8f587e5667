//! What the collector asks of a heap.
//!
//! A heap finds the object that a word points into, marks it, and enumerates the references in it.
//! How memory is laid out and handed out is its own affair; [`mark_sweep`](crate::mark_sweep) is
//! the heap that comes with the crate.

use std::num::NonZeroUsize;
use std::ops::Range;

/// The address at which an object of a heap begins. Objects do not move, so it stays the same for
/// the object's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Object(NonZeroUsize);

impl Object {
    /// Names the object at `address`.
    ///
    /// # Safety
    /// `address` is where an object begins that the heap, to which the result is passed, has handed
    /// out and not freed.
    pub const unsafe fn from_address(address: NonZeroUsize) -> Object {
        Object(address)
    }

    /// The object's address.
    pub const fn address(self) -> usize {
        self.0.get()
    }
}

/// What marking found, as the collector tells the heap at the end of a cycle. Objects that were
/// allocated while the cycle ran are not among it: they were born marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Objects for which [`Heap::mark`] returned true.
    pub objects: u64,
    /// Their sizes, as [`Heap::size`] tells them.
    pub bytes: u64,
}

/// What a heap has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapCounts {
    /// Bytes handed out, in all.
    pub allocated_bytes: u64,
    /// Objects marked, in all.
    pub objects_marked: u64,
    /// Objects that were found dead and whose memory was taken back.
    pub objects_swept: u64,
    /// Bytes in live objects after the last cycle: an estimate until its sweep is complete, then
    /// exact.
    pub live_bytes: u64,
    /// Bytes of memory that hold objects or have held some and were not given back to the system.
    pub resident_bytes: u64,
}

/// Who is told that a heap grows. The heap calls these from the thread that allocates, holding no
/// lock.
pub trait Growth: Send + Sync {
    /// The heap has grown to its [trigger](Heap::set_trigger): a collection shall begin.
    fn reached_trigger(&self);

    /// Between [`Heap::begin_cycle`] and [`Heap::end_cycle`]: this thread has been handed `bytes`
    /// bytes more, and has not told of them yet. About every 16 KiB are told at once. The call may
    /// mark for a while, or wait, so that allocation does not outrun marking; it calls
    /// [`Heap::resolve`], [`Heap::mark`] and [`Heap::trace`].
    fn handed_out(&self, bytes: usize);
}

/// A non-moving heap that a concurrent collector marks.
///
/// # A cycle, as the heap sees it
///
/// 1. [`finish_sweep`](Heap::finish_sweep): what the last cycle left undone. After it every mark is
///    clear, but see below.
/// 2. The collector turns the write barrier on and waits until every thread that allocates has
///    heard of it.
/// 3. [`begin_cycle`](Heap::begin_cycle). The world runs. Each object handed out from now on is
///    *black*: it counts as marked and nobody traces it. That is sound, because the thread that
///    initialises it runs with the write barrier on. (An object handed out black to a thread that
///    stores into it without the barrier would hide what it refers to.)
/// 4. [`resolve`](Heap::resolve), [`mark`](Heap::mark), [`trace`](Heap::trace) from many threads,
///    while others allocate.
/// 5. [`end_cycle`](Heap::end_cycle), with the world stopped. What is unmarked is garbage from here
///    on.
/// 6. The world runs; [`finish_sweep`](Heap::finish_sweep) and then [`release`](Heap::release) from
///    a thread of the collector, while others allocate.
///
/// # Generations
///
/// A collector with generations asks for them once, before the first cycle, by
/// [`keep_marks`](Heap::keep_marks). Then a mark stays from the end of a cycle to the next one,
/// unless [`clear_marks`](Heap::clear_marks) comes between, after step 1: a *minor* cycle marks and
/// traces what is unmarked, and condemns what is unmarked in the end. Between cycles objects are
/// handed out unmarked.
///
/// # Safety
///
/// The collector and the managed code trust the answers: memory of an object that was marked in a
/// cycle, or handed out after `begin_cycle`, must stay as it is until the next cycle at least (if
/// marks are kept, until the next one that begins with cleared marks), and `trace` must report
/// every reference that lies in the object. `resolve` returns only objects of this heap that are
/// handed out, or cells that hold zeros and that it is harmless to mark and trace.
pub unsafe trait Heap: Send + Sync + 'static {
    /// The object that `word` points to or into. Any word may be asked: what lies outside the heap,
    /// in a free cell or past the end of the last object of its block gives `None`. (The end of an
    /// object is the beginning of its neighbour, which cannot be told from a reference to that
    /// neighbour; retaining it is harmless.)
    fn resolve(&self, word: usize) -> Option<Object>;

    /// Whether `word` may refer to an object at all, as far as can be told without touching memory.
    /// If it may, what [`resolve`](Heap::resolve), [`mark`](Heap::mark) and [`trace`](Heap::trace)
    /// will soon need is asked into the cache.
    fn prefetch(&self, word: usize) -> bool {
        word != 0
    }

    /// Marks `object`; true if it was unmarked. Of several threads that mark it at the same time,
    /// one is told true.
    fn mark(&self, object: Object) -> bool;

    /// Whether `object` is marked: in this cycle, or in an earlier one if marks are kept.
    fn is_marked(&self, object: Object) -> bool;

    /// The object's size in bytes, as the heap accounts for it.
    fn size(&self, object: Object) -> usize;

    /// Calls `visit` with the word in each place at a byte offset in `range` that may hold a
    /// reference. Offsets beyond the object's size are left out. `visit` gets the words as they
    /// are: null, interior and foreign ones too.
    ///
    /// The mutators may be storing meanwhile, so the heap loads each word atomically; the insertion
    /// barrier takes care of a store that the load misses.
    fn trace(&self, object: Object, range: Range<usize>, visit: &mut impl FnMut(usize));

    /// From now on what is handed out is black. When it returns, no thread hands out a white object
    /// any more.
    fn begin_cycle(&self);

    /// Marking is complete and the world is stopped. Turns black allocation off and condemns what
    /// is unmarked.
    fn end_cycle(&self, marked: Marked);

    /// From now on marks stay when a cycle has ended: objects that have one are old. Called before
    /// the first cycle, if at all. False: the heap cannot do that.
    fn keep_marks(&self) -> bool {
        false
    }

    /// Clears all marks, which were kept. Called when the sweep is complete and before the write
    /// barrier goes on for marking, while others allocate, and look at marks between cycles: for
    /// these it does not matter what they see.
    fn clear_marks(&self) {}

    /// Completes the sweep of the last cycle. Returns at once if there is nothing to do.
    fn finish_sweep(&self);

    /// Gives free memory back to the system until about `keep` bytes are resident.
    fn release(&self, keep: usize) {
        let _ = keep;
    }

    /// Sets the growth at which [`Growth::reached_trigger`] is called: once, when this many bytes
    /// have been handed out since the last `end_cycle`.
    fn set_trigger(&self, bytes: usize);

    /// Installs who is told of growth. Only the first one counts.
    fn on_growth(&self, growth: Box<dyn Growth>);

    /// Bytes handed out since the last `end_cycle`.
    fn allocated_since_cycle(&self) -> usize;

    /// The counters.
    fn counts(&self) -> HeapCounts;
}
