//! The write barrier: while a cycle marks, references that stores put into memory, or lose there,
//! are shaded.
//!
//! - [`Kind::Insertion`] shades what is stored (Dijkstra, Lamport et al., "On-the-fly garbage
//!   collection", 1978). A black object does not refer to a white one. Stacks have no barrier: a
//!   goroutine may load a white reference, lose it in memory, and have it nowhere but in a frame
//!   that was visited before. So what has run since its visit is visited again in mark termination;
//!   return barriers bound that.
//! - [`Kind::Hybrid`] shades what is overwritten, too (Yuasa, "Real-time garbage collection on
//!   general-purpose machines", 1990; both together: Clements and Hudson, Go's proposal 17503,
//!   2016). Whatever was reachable when a cycle began is marked, by way of the memory that it was
//!   reachable through or of the deletion; so a goroutine that has been visited can only get at
//!   marked objects, or at ones that are handed out black, and *no frame is visited twice*. A
//!   goroutine some of whose frames nobody has visited yet may hold white references in those: it
//!   cannot use them before they are visited, since a frontier blocks the way (unvisited frames are
//!   like grey objects). What it stores meanwhile from its visited frames is shaded by the
//!   insertion half. A reference that goes from one stack to another, or from a root to a stack and
//!   is then dropped, is shaded on its way: [`Handle`](crate::handle::Handle)s do that, and whoever
//!   hands values from goroutine to goroutine.
//!
//! Both need two rounds at the start of a cycle (no stack is visited before the barrier is on
//! everywhere), and that stores through pointers which may point into an older frame of the own
//! stack go through the barrier, too (contract C3).
//!
//! # Between cycles
//!
//! A collector with generations leaves the barrier on when a cycle has ended, in another state.
//! What that cycle has marked is *old*, what is allocated since is young. A store of a reference to
//! a young object is recorded unless it goes into a young object: into an old one, which the next
//! minor cycle does not trace; or into memory outside of the heap, which may be an older frame of
//! the own stack that a short scan does not visit. The words recorded are roots of the next minor
//! cycle. So when that begins, each young object that is reachable is so from a root that it
//! visits: take a path to it, and the last step on it from something old to something young; that
//! reference was stored after the last cycle, for at its end everything that was reachable was
//! marked, and so it was recorded. What an object refers to that was handed out black counts as
//! stored while that cycle ran: it was shaded. Nothing is shaded for being overwritten: a minor
//! cycle keeps what is reachable when it begins, and then the barrier is that of marking again,
//! everywhere, by a handshake before anything is marked.
//!
//! A cycle that collects everything clears the marks first, then the barrier goes over to marking,
//! then comes the handshake: who still takes an unmarked object for a young one, or a marked one
//! for an old one, has stored before the first object is traced.
//!
//! Managed code tests one byte, [`WriteBarrier::flag_address`], before a store of a reference
//! through a pointer, and calls its slow path when it is not zero; the slow path ends in
//! [`BarrierBuffer::store`] or [`BarrierBuffer::shade`] of the thread's buffer. A buffer holds
//! plain words: nothing is marked by the mutator, so that the flag may be on before marking begins.
//! Full buffers go to the mark workers; the collector takes the others when it likes, also those of
//! threads in native code.
//!
//! Every word shaded while the flag is set is handed over once, and in time: when the world has
//! stopped, and the collector has taken the buffers, there is none on its way. A thread that shades
//! is waited for. One that ends is not, being in native code; but its buffer leaves the list of
//! buffers only together with its words, under the list's lock.

use std::sync::Arc;

use stackmark_stack::sync::Ordering::{Acquire, Release};
use stackmark_stack::sync::{AtomicU8, LeftOut, Mutex, left_out};

/// Which stores shade what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// What is stored. Cheap; stacks are visited again.
    #[default]
    Insertion,
    /// What is stored and what is overwritten. Dearer; no stack is visited twice.
    Hybrid,
}

/// Words in a buffer before it is handed over.
#[cfg(not(stackmark_loom))]
const CAPACITY: usize = 512;
/// Small enough for a model to fill it.
#[cfg(stackmark_loom)]
const CAPACITY: usize = 2;

/// Where the words of full buffers go.
pub(crate) trait Sink: Send + Sync {
    /// Whether `word` refers to an object that is not marked.
    fn wants(&self, word: usize) -> bool;
    /// Whether `word` refers to an unmarked object, or into it.
    fn is_young(&self, word: usize) -> bool {
        self.wants(word)
    }
    /// Takes words that may refer to unmarked objects, to be looked at when marking runs.
    fn take(&self, words: Vec<usize>);
}

/// Stores are nobody's business.
const OFF: u8 = 0;
/// A cycle marks.
const MARKING: u8 = 1;
/// No cycle marks, and the next one may be a minor one.
const BETWEEN: u8 = 2;

/// Words recorded between cycles, each of them once or not many times.
#[derive(Default)]
struct Recorded {
    words: Vec<usize>,
    /// How many were left when they were looked through last.
    different: usize,
}

impl Recorded {
    fn add(&mut self, words: &[usize]) {
        self.words.extend_from_slice(words);
        // A program may store the same reference again and again.
        if self.words.len() > 2 * self.different + 8 * CAPACITY {
            self.words.sort_unstable();
            self.words.dedup();
            self.different = self.words.len();
        }
    }
}

/// The write barrier of one collector.
pub struct WriteBarrier {
    kind: Kind,
    on: AtomicU8,
    buffers: Mutex<Vec<Arc<Buffer>>>,
    recorded: Mutex<Recorded>,
    sink: Arc<dyn Sink>,
}

type Buffer = Mutex<Vec<usize>>;

impl std::fmt::Debug for WriteBarrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteBarrier").field("on", &self.is_on()).finish_non_exhaustive()
    }
}

/// What one thread has stored while marking runs. Each machine has one.
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
            on: AtomicU8::new(OFF),
            buffers: Mutex::default(),
            recorded: Mutex::default(),
            sink,
        })
    }

    /// Which stores shade what.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The address of the byte that is not zero while stores must be shaded. It stays the same as
    /// long as the barrier.
    #[cfg(not(stackmark_loom))]
    pub fn flag_address(&self) -> usize {
        self.on.as_ptr() as usize
    }

    /// Whether stores must be shaded, for native code that a collector waits for. (Others shade
    /// under a lock that the collector takes too, as [`Handles`](crate::handle::Handles) do.)
    #[inline]
    pub fn is_on(&self) -> bool {
        self.state() != OFF
    }

    /// Whether a cycle marks, for roots that every cycle visits: what is stored there between
    /// cycles need not be recorded.
    #[inline]
    pub(crate) fn is_marking(&self) -> bool {
        self.state() == MARKING
    }

    #[inline]
    fn state(&self) -> u8 {
        // Acquire: pairs with `turn_on`. What orders the byte for managed code is the handshake.
        self.on.load(Acquire)
    }

    /// A buffer for one more thread.
    pub fn buffer(self: &Arc<Self>) -> BarrierBuffer {
        let words = Arc::new(Mutex::new(Vec::with_capacity(CAPACITY)));
        self.buffers.lock().push(Arc::clone(&words));
        BarrierBuffer { words, barrier: Arc::clone(self) }
    }

    /// Shades a word that is overwritten or dropped, on behalf of a thread that has no buffer.
    pub(crate) fn shade_lost(&self, word: usize) {
        if self.kind == Kind::Hybrid && self.is_marking() {
            self.shade(word);
        }
    }

    /// Shades a word on behalf of a thread that has no buffer.
    pub(crate) fn shade(&self, word: usize) {
        if self.sink.wants(word) {
            self.sink.take(vec![word]);
        }
    }

    pub(crate) fn turn_on(&self) {
        // Release: pairs with `is_on`; whoever sees it may shade.
        self.on.store(MARKING, Release);
    }

    /// With the world stopped. `record`: what is stored until the next cycle is recorded for it.
    pub(crate) fn turn_off(&self, record: bool) {
        self.on.store(if record { BETWEEN } else { OFF }, Release);
    }

    /// Forgets what has been recorded: a cycle begins that visits everything. After the handshake.
    pub(crate) fn forget_recorded(&self) {
        *self.recorded.lock() = Recorded::default();
    }

    /// Takes words that a thread has no more room for.
    fn hand_over(&self, words: Vec<usize>) {
        if self.state() == BETWEEN {
            self.recorded.lock().add(&words);
        } else {
            self.sink.take(words);
        }
    }

    /// Hands over what all buffers hold, and what has been recorded; whether that is anything.
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
        // After the buffers, and under their lock: a buffer that goes away is emptied into this
        // one.
        take(std::mem::take(&mut *self.recorded.lock()).words);
        drop(buffers);
        any
    }
}

impl BarrierBuffer {
    /// Notes that a reference to what `word` refers to is about to be stored. `word` may be
    /// anything: null, a pointer into an object, an integer. Called while the flag is set; when it
    /// is not, the call is harmless.
    pub fn shade(&self, word: usize) {
        let barrier = &*self.barrier;
        if !barrier.is_on() || !barrier.sink.wants(word) {
            return;
        }
        self.note(word);
    }

    /// As [`BarrierBuffer::shade`], of a store to the address `to`. Between cycles of a collector
    /// with generations, stores into objects that have been allocated since the last one are of no
    /// interest.
    pub fn store(&self, word: usize, to: usize) {
        let barrier = &*self.barrier;
        let state = barrier.state();
        if state == OFF
            || !barrier.sink.wants(word)
            || state == BETWEEN && barrier.sink.is_young(to)
        {
            return;
        }
        if state == BETWEEN && left_out(LeftOut::Recorded) {
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
    /// goroutine. Does nothing with an insertion barrier. Otherwise as [`BarrierBuffer::shade`].
    pub fn shade_lost(&self, word: usize) {
        if self.barrier.kind == Kind::Hybrid && self.barrier.is_marking() {
            self.shade(word);
        }
    }

    fn hand_over(&self) {
        let words = std::mem::take(&mut *self.words.lock());
        self.barrier.hand_over(words);
    }

    /// The barrier that this is a buffer of.
    pub fn barrier(&self) -> &Arc<WriteBarrier> {
        &self.barrier
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

#[cfg(all(test, stackmark_loom))]
mod buffer_models;

#[cfg(all(test, stackmark_loom))]
mod models;

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<usize>>);

    impl Sink for Recorder {
        fn wants(&self, word: usize) -> bool {
            word.is_multiple_of(2)
        }
        fn take(&self, words: Vec<usize>) {
            self.0.lock().extend(words);
        }
    }

    #[test]
    fn every_word_shaded_while_it_is_on_arrives_once() {
        let recorder = Arc::new(Recorder::default());
        let barrier = WriteBarrier::new(Kind::Insertion, recorder.clone());
        let (one, other) = (barrier.buffer(), barrier.buffer());
        one.shade(2);
        barrier.turn_on();
        // SAFETY: the byte lives as long as the barrier.
        assert_ne!(unsafe { std::ptr::read_volatile(barrier.flag_address() as *const u8) }, 0);
        (0..2 * CAPACITY * 3).for_each(|word| one.shade(word));
        other.shade(100_000);
        barrier.take_buffers();
        assert_eq!(recorder.0.lock().len(), CAPACITY * 3 + 1);
        other.shade(100_002);
        drop(other);
        let mut words = std::mem::take(&mut *recorder.0.lock());
        words.sort_unstable();
        let expected = (0..2 * CAPACITY * 3).step_by(2).chain([100_000, 100_002]);
        assert!(words.into_iter().eq(expected));
        assert_eq!(barrier.buffers.lock().len(), 1);
        barrier.turn_off(false);
        one.shade(4);
        barrier.take_buffers();
        assert!(recorder.0.lock().is_empty());
    }

    #[test]
    fn between_cycles_stores_into_young_objects_are_left_out_and_the_others_wait() {
        let recorder = Arc::new(Recorder::default());
        let barrier = WriteBarrier::new(Kind::Hybrid, recorder.clone());
        let buffer = barrier.buffer();
        barrier.turn_off(true);
        // SAFETY: the byte lives as long as the barrier.
        assert_ne!(unsafe { std::ptr::read_volatile(barrier.flag_address() as *const u8) }, 0);
        // The even ones are young.
        buffer.store(2, 8);
        buffer.store(4, 7);
        buffer.store(5, 7);
        buffer.shade(6);
        buffer.shade_lost(10);
        barrier.shade_lost(12);
        for _ in 0..100 * CAPACITY {
            buffer.store(14, 9);
        }
        assert!(recorder.0.lock().is_empty(), "nothing is marked before a cycle begins");
        assert!(barrier.recorded.lock().words.len() < 9 * CAPACITY, "the same words are kept once");
        barrier.turn_on();
        assert!(barrier.take_buffers() && !barrier.take_buffers());
        let mut words = std::mem::take(&mut *recorder.0.lock());
        words.sort_unstable();
        words.dedup();
        assert_eq!(words, [4, 6, 14]);
        buffer.store(2, 8);
        barrier.take_buffers();
        assert_eq!(*recorder.0.lock(), [2], "while marking every store counts");
    }

    #[test]
    fn a_cycle_that_visits_everything_forgets_what_was_recorded() {
        let recorder = Arc::new(Recorder::default());
        let barrier = WriteBarrier::new(Kind::Insertion, recorder.clone());
        barrier.turn_off(true);
        let buffer = barrier.buffer();
        (0..CAPACITY).for_each(|_| buffer.store(4, 7));
        assert_eq!(barrier.recorded.lock().words.len(), CAPACITY);
        barrier.turn_on();
        barrier.forget_recorded();
        assert!(!barrier.take_buffers());
    }
}
