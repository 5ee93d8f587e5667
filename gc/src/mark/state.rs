//! What all marking threads share: the queues of grey objects and roots, and the totals.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};

use crossbeam_deque::{Injector, Steal, Stealer};
use parking_lot::Mutex;
use stackmark_stack::Runtime;
use stackmark_stack::{Activity, Span};

use crate::heap::{Heap, Object};
use crate::termination::Termination;
use crate::write_barrier::Sink;

/// Roots that are collected before a worker is woken for them.
const ROOT_BATCH: usize = 512;

/// What lies in the shared queue.
pub(super) enum Work {
    /// Grey objects.
    Grey(Vec<Object>),
    /// Words that may refer to unmarked objects.
    Words(Vec<usize>),
    /// The rest of a large object, from this byte offset on.
    Piece(Object, usize),
}

/// The marking of one heap, as workers, mutators and scanning threads share it.
pub(crate) struct MarkState<H> {
    pub(super) heap: Arc<H>,
    pub(super) queue: Injector<Work>,
    pub(super) stealers: Vec<Stealer<Object>>,
    /// Roots that await a worker.
    roots: Mutex<Vec<usize>>,
    /// The number of `roots`. Written under their lock.
    root_count: AtomicUsize,
    /// The workers visit the frozen frames of its goroutines. Weak, since it refers to us.
    runtime: Weak<Runtime>,
    pub(super) termination: Termination,
    // Each thread counts for itself. It adds to the totals from time to time and before it parks,
    // so they are exact on quiescence.
    pub(super) objects: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl<H: Heap> MarkState<H> {
    /// For as many threads as there are `stealers`, one of them the coordinator.
    pub(super) fn new(
        heap: Arc<H>,
        runtime: Weak<Runtime>,
        stealers: Vec<Stealer<Object>>,
    ) -> MarkState<H> {
        MarkState {
            heap,
            queue: Injector::new(),
            termination: Termination::new(stealers.len() - 1),
            stealers,
            roots: Mutex::default(),
            root_count: AtomicUsize::new(0),
            runtime,
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn has_work(&self) -> bool {
        // The last object of a deque is left to its owner, which is not idle: stealing it would
        // only keep two threads busy.
        !self.queue.is_empty()
            || self.root_count.load(Relaxed) > 0
            || self.stealers.iter().any(|stealer| stealer.len() > 1)
            || self.runtime.upgrade().is_some_and(|runtime| runtime.has_frozen())
    }

    /// A span of [`Activity::Mark`]. An observer that comes later sees the next span.
    pub(super) fn mark_span(&self) -> Option<Span> {
        self.runtime.upgrade().map(|runtime| runtime.observed().span(Activity::Mark, 0))
    }

    /// Wakes a worker for the frozen frames of a stack.
    pub(crate) fn stack_waits(&self) {
        self.termination.announce_work();
    }

    /// Visits a chunk of some stack's frozen frames. False if there are none.
    pub(super) fn scan_frozen(&self) -> bool {
        let Some(runtime) = self.runtime.upgrade() else { return false };
        runtime.scan_frozen().unwrap_or_else(|error| runtime.fatal(&error))
    }

    /// Leaves the objects that `words` refer to, to the workers. For threads that find roots, after
    /// `begin_cycle`.
    ///
    /// Many threads bring few words each. They are collected before a worker is woken for them; the
    /// coordinator takes the rest.
    pub(crate) fn shade(&self, words: &[usize]) {
        let mut roots = self.roots.lock();
        roots.extend(words.iter().filter(|word| **word != 0));
        let full = if roots.len() >= ROOT_BATCH { std::mem::take(&mut *roots) } else { Vec::new() };
        // Relaxed: workers and the coordinator look after the lock or a fence, before they park.
        self.root_count.store(roots.len(), Relaxed);
        drop(roots);
        self.take(full);
    }

    pub(super) fn take_roots(&self) -> Vec<usize> {
        let mut roots = self.roots.lock();
        self.root_count.store(0, Relaxed);
        std::mem::take(&mut *roots)
    }

    pub(super) fn add(&self, work: Work) {
        self.queue.push(work);
        self.termination.announce_work();
    }

    /// Empties the queues, with the world stopped and marking quiescent. Threads in native code may
    /// still have delivered words; the objects are marked, so the words are not needed.
    pub(super) fn discard_queued(&self) {
        while !self.queue.is_empty() {
            drop(self.queue.steal());
        }
        // The memory is kept: freeing it may have the allocator give back much more to the system,
        // which takes long.
        let mut roots = self.roots.lock();
        roots.clear();
        self.root_count.store(0, Relaxed);
    }

    /// Bytes of the objects traced in this cycle; while it runs, a little less.
    pub(crate) fn traced(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

impl<H: Heap> Sink for MarkState<H> {
    fn is_unmarked(&self, word: usize) -> bool {
        self.heap.resolve(word).is_some_and(|object| !self.heap.is_marked(object))
    }

    fn take(&self, words: Vec<usize>) {
        if !words.is_empty() {
            self.add(Work::Words(words));
        }
    }
}

/// Steals until the answer is definite: retries after lost races.
pub(super) fn retry_steal<T>(mut steal: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match steal() {
            Steal::Success(stolen) => return Some(stolen),
            Steal::Retry => {}
            Steal::Empty => return None,
        }
    }
}
