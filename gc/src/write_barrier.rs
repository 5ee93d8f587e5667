//! The write barrier: while a cycle marks, references that stores put into memory, or overwrite
//! there, are shaded.
//!
//! - [`Kind::Insertion`] shades what is stored (Dijkstra, Lamport et al., "On-the-fly garbage
//!   collection", 1978). A black object does not refer to a white one. Stacks have no barrier: a
//!   goroutine may load a white reference, overwrite it in memory, and have it nowhere but in a
//!   frame that was visited before. So frames that have run since their visit are visited again in
//!   mark termination; return barriers bound how many.
//! - [`Kind::Hybrid`] also shades what is overwritten (Yuasa, "Real-time garbage collection on
//!   general-purpose machines", 1990; both together: Clements and Hudson, Go's proposal 17503,
//!   2016). Each object that was reachable when the cycle began is marked: through the memory that
//!   referred to it, or when that reference was overwritten. So a goroutine that has been visited
//!   gets only at marked objects, or at ones that are handed out black, and *no frame is visited
//!   twice*. A goroutine with frames that are not visited yet may hold white references there. It
//!   cannot use them before the visit, since a frontier blocks the way: unvisited frames are like
//!   grey objects. What its visited frames store is shaded by the insertion half. A reference that
//!   passes from one stack to another, or is loaded from a root which is then dropped, is shaded on
//!   its way: [`Handle`](crate::handle::Handle)s do so, and native code that hands values from
//!   goroutine to goroutine must.
//!
//! Both need two rounds at the start of a cycle: no stack is visited before the barrier is on
//! everywhere. Both need that a store through a pointer that may point into an older frame of the
//! own stack goes through the barrier (contract C3).
//!
//! # Between cycles
//!
//! A collector with generations leaves the barrier on when a cycle has ended, in another state.
//! What that cycle has marked is *old*; what is allocated since is *young*. A store of a reference
//! to a young object is remembered unless it goes into a young object. It may go into an old one,
//! which the next minor cycle does not trace; or into memory outside of the heap, which may be an
//! older frame of the own stack that a short scan does not visit. The remembered words are roots of
//! the next minor cycle.
//!
//! So when that cycle begins, each reachable young object is reachable from a root that it visits.
//! Take a path to the object, and on it the last step from something old to something young. That
//! reference was stored after the last cycle, since at its end everything reachable was marked; so
//! it was remembered. What an object refers to that was handed out black counts as stored during
//! that cycle: it was shaded. Overwritten references need no shading: a minor cycle keeps what is
//! reachable when it begins. From then on the barrier is that of marking again, everywhere, by a
//! handshake before anything is marked.
//!
//! A cycle that collects everything first clears the marks. Then the barrier goes over to marking,
//! then comes the handshake. A thread that still takes an unmarked object for a young one, or a
//! marked one for an old one, has stored before the first object is traced.
//!
//! # Flag and buffers
//!
//! Managed code tests one byte, at [`WriteBarrier::flag_address`], before it stores a reference
//! through a pointer. If the byte is not zero it calls its slow path, which ends in
//! [`BarrierBuffer::store`] or [`BarrierBuffer::shade`] of the thread's buffer. A buffer holds
//! plain words: the mutator marks nothing, so the flag may be on before marking begins. Full
//! buffers go to the mark workers. The collector takes the others when it likes, also those of
//! threads in native code.
//!
//! Every word shaded while the flag is set is handed over once, and in time: when the world has
//! stopped and the collector has taken the buffers, none is on its way. A thread that shades is
//! waited for. A thread that ends is not, being in native code; but its buffer leaves the list of
//! buffers only together with its words, under the list's lock.

use std::sync::Arc;

use stackmark_stack::sync::Ordering::{Acquire, Release};
use stackmark_stack::sync::{AtomicU8, LeftOut, Mutex, left_out};

use self::remembered_set::RememberedSet;

#[cfg(all(test, stackmark_loom))]
mod buffer_models;
#[cfg(all(test, stackmark_loom))]
mod models;
mod remembered_set;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;

/// Which references a store shades.
///
/// Neither is faster than the other: over programs the hybrid barrier takes 0.95 to 1.07 times as
/// long (`cargo run --release -p peers -- --barriers`). Stops are short with both, whatever
/// goroutines push (`cargo bench -p minigo --bench push`). The insertion barrier is the default
/// because it asks less of native code, which need not shade what passes from stack to stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The stored one. Stores are cheap; stacks are visited again.
    #[default]
    Insertion,
    /// The stored and the overwritten one. Stores are dearer; no stack is visited twice.
    Hybrid,
}

/// Words in a buffer before it is handed over.
#[cfg(not(stackmark_loom))]
const CAPACITY: usize = 512;
/// Small enough for a model to fill it.
#[cfg(stackmark_loom)]
const CAPACITY: usize = 2;

/// Receives the words of full buffers.
pub(crate) trait Sink: Send + Sync {
    /// Whether `word` refers to or into an object that is not marked: between cycles, a young one.
    fn is_unmarked(&self, word: usize) -> bool;
    /// Takes words that may refer to unmarked objects, to be looked at when marking runs.
    fn take(&self, words: Vec<usize>);
}

/// Stores need no barrier.
const OFF: u8 = 0;
/// A cycle marks: stores are shaded.
const MARKING: u8 = 1;
/// No cycle marks, and the next one may be a minor one: stores are remembered for it.
const REMEMBERING: u8 = 2;

/// The write barrier of one collector. It is shared by all threads.
pub struct WriteBarrier {
    kind: Kind,
    state: AtomicU8,
    buffers: Mutex<Vec<Arc<Buffer>>>,
    remembered: Mutex<RememberedSet>,
    sink: Arc<dyn Sink>,
}

type Buffer = Mutex<Vec<usize>>;

impl std::fmt::Debug for WriteBarrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteBarrier").field("on", &self.is_on()).finish_non_exhaustive()
    }
}

/// The references that one thread has stored and the collector has not seen yet. Each machine has
/// one.
pub struct BarrierBuffer {
    words: Arc<Buffer>,
    barrier: Arc<WriteBarrier>,
}

impl std::fmt::Debug for BarrierBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BarrierBuffer").field("words", &self.words.lock().len()).finish()
    }
}

impl WriteBarrier {
    pub(crate) fn new(kind: Kind, sink: Arc<dyn Sink>) -> Arc<WriteBarrier> {
        Arc::new(WriteBarrier {
            kind,
            state: AtomicU8::new(OFF),
            buffers: Mutex::default(),
            remembered: Mutex::default(),
            sink,
        })
    }

    /// Which references a store shades.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The address of the byte that is not zero while stores must go through the barrier. It stays
    /// the same as long as the barrier.
    #[cfg(not(stackmark_loom))]
    pub fn flag_address(&self) -> usize {
        self.state.as_ptr() as usize
    }

    /// Whether stores must go through the barrier. For native code that the collector waits for;
    /// other threads shade under a lock that the collector takes too, as
    /// [`Handles`](crate::handle::Handles) do.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.state() != OFF
    }

    /// Whether a cycle marks. For roots that every cycle visits: what is stored there between
    /// cycles need not be remembered.
    #[inline]
    pub(crate) fn is_marking(&self) -> bool {
        self.state() == MARKING
    }

    #[inline]
    fn state(&self) -> u8 {
        // Acquire: pairs with `turn_on`. For managed code the handshake orders the byte.
        self.state.load(Acquire)
    }

    /// A buffer for one more thread.
    pub fn buffer(self: &Arc<Self>) -> BarrierBuffer {
        let words = Arc::new(Mutex::new(Vec::with_capacity(CAPACITY)));
        self.buffers.lock().push(Arc::clone(&words));
        BarrierBuffer { words, barrier: Arc::clone(self) }
    }

    /// Shades a word that is overwritten or dropped, on behalf of a thread that has no buffer.
    pub(crate) fn shade_overwritten(&self, word: usize) {
        if self.kind == Kind::Hybrid && self.is_marking() {
            self.shade(word);
        }
    }

    /// Whether the word refers to an object that is not marked.
    pub(crate) fn is_unmarked(&self, word: usize) -> bool {
        self.sink.is_unmarked(word)
    }

    /// Shades a word on behalf of a thread that has no buffer.
    pub(crate) fn shade(&self, word: usize) {
        if self.sink.is_unmarked(word) {
            self.sink.take(vec![word]);
        }
    }

    /// Has stores shaded from now on.
    pub(crate) fn turn_on(&self) {
        // Release: pairs with the load in `state`; a thread that sees it may shade.
        self.state.store(MARKING, Release);
    }

    /// Ends shading, with the world stopped. With `remember`, stores are remembered for the next
    /// cycle.
    pub(crate) fn turn_off(&self, remember: bool) {
        self.state.store(if remember { REMEMBERING } else { OFF }, Release);
    }

    /// Empties the remembered set for a cycle that visits everything. Called after the handshake.
    pub(crate) fn forget_remembered(&self) {
        *self.remembered.lock() = RememberedSet::default();
    }

    /// Takes the words of a buffer that is full or goes away.
    fn hand_over(&self, words: Vec<usize>) {
        if self.state() == REMEMBERING {
            self.remembered.lock().add(&words);
        } else {
            self.sink.take(words);
        }
    }

    /// Gives the sink what all buffers hold, and the remembered set. Returns whether there was
    /// anything.
    pub(crate) fn take_buffers(&self) -> bool {
        let mut any = false;
        let mut take = |words: Vec<usize>| {
            any |= !words.is_empty();
            self.sink.take(words);
        };
        let buffers = self.buffers.lock();
        for buffer in buffers.iter() {
            take(std::mem::take(&mut *buffer.lock()));
        }
        // After the buffers, and under their lock: a buffer that goes away is emptied into the set.
        take(std::mem::take(&mut *self.remembered.lock()).into_words());
        drop(buffers);
        any
    }
}

impl BarrierBuffer {
    /// Notes that `word` is about to be stored. It may be anything: null, a pointer into an object,
    /// an integer. Without effect while the barrier is off.
    pub fn shade(&self, word: usize) {
        let barrier = &*self.barrier;
        if barrier.is_on() && barrier.sink.is_unmarked(word) {
            self.note(word);
        }
    }

    /// As [`BarrierBuffer::shade`], of a store to the address `to`. Between cycles of a collector
    /// with generations it leaves out stores into young objects.
    pub fn store(&self, word: usize, to: usize) {
        let barrier = &*self.barrier;
        let state = barrier.state();
        if state == OFF
            || !barrier.sink.is_unmarked(word)
            || state == REMEMBERING && barrier.sink.is_unmarked(to)
        {
            return;
        }
        if state == REMEMBERING && left_out(LeftOut::Recorded) {
            return;
        }
        self.note(word);
    }

    fn note(&self, word: usize) {
        let barrier = &*self.barrier;
        let mut words = self.words.lock();
        words.push(word);
        if words.len() >= CAPACITY {
            let full = std::mem::replace(&mut *words, Vec::with_capacity(CAPACITY));
            drop(words);
            barrier.hand_over(full);
        }
    }

    /// Notes that `word` is about to be overwritten, or dropped by native code that keeps it for a
    /// goroutine. Without effect with an insertion barrier. Otherwise as [`BarrierBuffer::shade`].
    pub fn shade_overwritten(&self, word: usize) {
        if self.barrier.kind == Kind::Hybrid && self.barrier.is_marking() {
            self.shade(word);
        }
    }

    fn hand_over(&self) {
        let words = std::mem::take(&mut *self.words.lock());
        self.barrier.hand_over(words);
    }
}

impl Drop for BarrierBuffer {
    fn drop(&mut self) {
        let mut buffers = self.barrier.buffers.lock();
        buffers.retain(|other| !Arc::ptr_eq(other, &self.words));
        if left_out(LeftOut::HandOver) {
            drop(buffers);
            self.hand_over();
        } else {
            // Under the lock that `take_buffers` takes: see the module.
            self.hand_over();
        }
    }
}
