//! A collector for models: the shipped order of steps, over a heap whose objects are small numbers
//! that refer to one other at most. The stacks are one word of one goroutine.

use std::convert::Infallible;
use std::sync::Arc;

use stackmark_stack::OneMachine;
use stackmark_stack::sync::{AtomicBool, AtomicUsize, Mutex, Ordering::Relaxed};

use super::phases::{self, Closing, Completing, Opening};
use crate::handle::{Handle, Handles};
use crate::weak::{Callback, WeakReferences};
use crate::write_barrier::{Kind, Sink, WriteBarrier};

const OBJECTS: usize = 4;

/// The heap: which objects are marked, which were freed, and the words taken.
pub(crate) struct ModelHeap {
    marked: [AtomicBool; OBJECTS],
    freed: [AtomicBool; OBJECTS],
    /// What each refers to, or 0.
    references: [AtomicUsize; OBJECTS],
    taken: Mutex<Vec<usize>>,
}

impl ModelHeap {
    /// Whether the word refers to a marked object or to none.
    pub(crate) fn is_marked(&self, word: usize) -> bool {
        word == 0 || self.marked[word].load(Relaxed)
    }

    pub(crate) fn set_marked(&self, word: usize, marked: bool) {
        if word != 0 {
            self.marked[word].store(marked, Relaxed);
        }
    }

    /// Whether a cycle has freed the object.
    pub(crate) fn is_freed(&self, word: usize) -> bool {
        self.freed[word].load(Relaxed)
    }

    /// Marks what the write barrier has handed over, and what that refers to.
    pub(crate) fn drain(&self) {
        let taken = std::mem::take(&mut *self.taken.lock());
        taken.into_iter().for_each(|word| self.mark(word));
    }

    fn mark(&self, word: usize) {
        if !self.is_marked(word) {
            self.set_marked(word, true);
            self.mark(self.reference(word));
        }
    }

    /// What the object refers to. Relaxed, as the store: plain memory of managed code.
    pub(crate) fn reference(&self, word: usize) -> usize {
        self.references[word].load(Relaxed)
    }

    /// Makes the object refer to another one. The caller shades that, where it must.
    pub(crate) fn refer(&self, from: usize, to: usize) {
        self.references[from].store(to, Relaxed);
    }
}

impl Sink for ModelHeap {
    fn is_unmarked(&self, word: usize) -> bool {
        !self.is_marked(word)
    }
    fn take(&self, words: Vec<usize>) {
        self.taken.lock().extend(words);
    }
}

/// The collector and what it looks at.
pub(crate) struct ModelCollector {
    pub(crate) heap: Arc<ModelHeap>,
    pub(crate) world: OneMachine,
    pub(crate) barrier: Arc<WriteBarrier>,
    pub(crate) handles: Arc<Handles>,
    pub(crate) weak: Arc<WeakReferences>,
    /// The stack of the machine's goroutine. Relaxed: plain memory of managed code.
    pub(crate) stack: AtomicUsize,
    kind: Kind,
}

impl ModelCollector {
    pub(crate) fn new(kind: Kind) -> Arc<ModelCollector> {
        let heap = Arc::new(ModelHeap {
            marked: Default::default(),
            freed: Default::default(),
            references: Default::default(),
            taken: Mutex::default(),
        });
        let barrier = WriteBarrier::new(kind, heap.clone());
        let handles = Handles::new(barrier.clone(), 1);
        Arc::new(ModelCollector {
            heap,
            world: OneMachine::default(),
            weak: WeakReferences::new(handles.clone(), barrier.clone()),
            barrier,
            handles,
            stack: AtomicUsize::new(0),
            kind,
        })
    }

    /// Opens a cycle. With `major` it clears the marks.
    pub(crate) fn open(&self, major: bool) {
        phases::open(&mut Steps(self, None), major, major);
    }

    /// Scans the stack, and visits the handles.
    pub(crate) fn visit_roots(&self) {
        self.world.stopped(|| self.scan_stack());
        self.handles.visit(|words| words.iter().for_each(|word| self.heap.mark(*word)));
        self.heap.drain();
    }

    fn scan_stack(&self) {
        self.heap.mark(self.stack.load(Relaxed));
    }

    /// Closes the cycle in the stopped world, and frees what is unmarked. Returns the callbacks
    /// that are due.
    pub(crate) fn close(&self) -> Vec<(Handle, Callback)> {
        let closed = self.world.stopped(|| phases::close(&mut Steps(self, None)));
        let Ok(closed) = closed;
        closed.due
    }

    /// As [`ModelCollector::close`]. Weak references are cleared between two stopped worlds.
    pub(crate) fn close_in_two_stops(&self) -> Vec<(Handle, Callback)> {
        let heap = &self.heap;
        let held = self.world.stopped(|| {
            let Ok(()) = phases::complete(&mut Steps(self, None));
            self.weak.hold(|| heap.drain())
        });
        let due = self.weak.clear(held, |word| heap.is_marked(word), || heap.drain());
        let closed = self.world.stopped(|| phases::close(&mut Steps(self, Some(due))));
        let Ok(closed) = closed;
        closed.due
    }

    /// A whole cycle.
    pub(crate) fn collect(&self) -> Vec<(Handle, Callback)> {
        self.open(true);
        self.visit_roots();
        self.close()
    }

    /// A whole cycle that closes in two stops.
    pub(crate) fn collect_in_two_stops(&self) -> Vec<(Handle, Callback)> {
        self.open(true);
        self.visit_roots();
        self.close_in_two_stops()
    }
}

/// The steps, and the callbacks that are due if weak references are cleared.
struct Steps<'m>(&'m ModelCollector, Option<Vec<(Handle, Callback)>>);

impl Opening for Steps<'_> {
    fn clear_marks(&mut self) {
        self.0.heap.marked.iter().for_each(|mark| mark.store(false, Relaxed));
    }
    fn turn_on(&mut self) {
        self.0.barrier.turn_on();
    }
    fn handshake(&mut self) {
        self.0.world.handshake();
    }
    fn forget_remembered(&mut self) {
        self.0.barrier.forget_remembered();
    }
    fn blacken_allocation(&mut self) {}
    fn open_marking(&mut self) {}
}

impl Completing for Steps<'_> {
    type Error = Infallible;
    type Visited = ();

    fn take_buffers(&mut self) {
        self.0.barrier.take_buffers();
    }
    fn finish_stacks(&mut self) -> Result<(), Infallible> {
        if self.0.kind == Kind::Insertion && self.1.is_none() {
            self.0.scan_stack();
        }
        Ok(())
    }
    fn drain(&mut self) {
        self.0.heap.drain();
    }
}

impl Closing for Steps<'_> {
    type Due = Vec<(Handle, Callback)>;
    type Marked = ();

    fn process_weak(&mut self) -> Vec<(Handle, Callback)> {
        let (heap, weak) = (&self.0.heap, &self.0.weak);
        let process = || weak.process(|word| heap.is_marked(word), || heap.drain());
        self.1.take().unwrap_or_else(process)
    }
    fn verify(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
    fn turn_off(&mut self) {
        self.0.barrier.turn_off(false);
    }
    fn close_marking(&mut self) {}
    fn condemn(&mut self, (): &()) {
        for (freed, marked) in self.0.heap.freed.iter().zip(&self.0.heap.marked) {
            freed.fetch_or(!marked.load(Relaxed), Relaxed);
        }
    }
}

pub(crate) fn bounded(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(model);
}
