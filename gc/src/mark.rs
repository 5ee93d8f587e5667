//! Marking: from words that may refer to objects to the objects' transitive closure, by a crew of
//! threads.
//!
//! An object is *grey* from the moment that somebody has marked it until its references have been
//! looked at. Grey objects lie on a worker's own stack, in its deque, where others steal, or in
//! batches in the shared queue. A worker puts part of its stack into the deque when somebody has
//! nothing to do; popping from the deque costs a fence, popping from the stack does not.
//!
//! The references that a worker finds pass through a short queue, first in, first out, on their way
//! to being looked at: what will be needed of their objects comes into the cache meanwhile (Cher,
//! Hosking and Vitek, "Software prefetching for mark-sweep garbage collection", 2004).

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use stackmark_stack::Runtime;

use parking_lot::Mutex;
use stackmark_stack::observe::{Activity, Span};

use crate::crew::Crew;
use crate::heap::{Heap, Marked, Object};
use crate::write_barrier::Sink;

/// Bytes of a large object that are traced in one go.
const PIECE: usize = 64 << 10;
/// Objects that are traced between two looks at whether others have something to do.
const STRETCH: usize = 64;
/// Objects that a worker shares at a time.
const SHARE: usize = 32;
/// Roots that are collected before a worker is woken for them.
const ROOTS: usize = 512;
/// Bytes of objects that are traced by who waits for marking, before others are given some: a
/// little is done sooner than a worker wakes.
const LITTLE: u64 = 32 << 10;
/// Bytes that a worker traces before it adds them to the total.
const PUBLISHED: u64 = 16 << 10;
/// References whose objects are being brought into the cache, at most.
const COMING: usize = 32;
/// As long as the stack has something to give, so many references are left on their way.
const UNDER_WAY: usize = 16;

/// What lies in the shared queue.
enum Work {
    /// Grey objects.
    Grey(Vec<Object>),
    /// Words that may refer to unmarked objects.
    Words(Vec<usize>),
    /// The rest of a large object, from this offset on.
    Piece(Object, usize),
}

/// Marks objects of a heap: on its owner's thread, and on threads of its own.
pub(crate) struct Marker<H> {
    foreman: MarkWorker<H>,
    threads: Vec<JoinHandle<()>>,
}

pub(crate) struct Shared<H> {
    heap: Arc<H>,
    queue: Injector<Work>,
    stealers: Vec<Stealer<Object>>,
    /// Words that are roots, collected; and how many they are, written under the lock.
    roots: Mutex<Vec<usize>>,
    root_count: AtomicUsize,
    /// Whose frozen frames the workers visit. It refers to us.
    stacks: Weak<Runtime>,
    crew: Crew,
    // Counted by each thread for itself and added from time to time, and before it rests, so exact
    // when it is quiet.
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl<H: Heap> Marker<H> {
    /// With `workers` threads: the caller's, while it [drains](Marker::drain), and others, which
    /// wait for [`open`](Marker::open). They visit frozen frames of `stacks`, too.
    pub(crate) fn start(
        heap: Arc<H>,
        stacks: Weak<Runtime>,
        workers: usize,
    ) -> std::io::Result<Marker<H>> {
        let deques: Vec<_> = (0..workers.max(1)).map(|_| Worker::new_lifo()).collect();
        let shared = Arc::new(Shared {
            heap,
            queue: Injector::new(),
            stealers: deques.iter().map(Worker::stealer).collect(),
            roots: Mutex::default(),
            root_count: AtomicUsize::new(0),
            stacks,
            crew: Crew::new(deques.len() - 1),
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let mut workers = deques.into_iter().enumerate().map(|(number, deque)| {
            let shared = Arc::clone(&shared);
            MarkWorker { number, deque, tracer: Tracer::default(), shared }
        });
        let foreman = workers.next().expect("at least one");
        let mut marker = Marker { foreman, threads: Vec::new() };
        for worker in workers {
            let thread =
                std::thread::Builder::new().name(format!("stackmark-mark-{}", worker.number));
            let thread =
                thread.spawn(move || worker.run()).map_err(|error| no_thread("marking", &error))?;
            marker.threads.push(thread);
        }
        Ok(marker)
    }

    /// What mutators and scanning threads need.
    pub(crate) fn shared(&self) -> &Arc<Shared<H>> {
        &self.foreman.shared
    }

    /// How many threads mark.
    pub(crate) fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    /// Lets the workers begin.
    pub(crate) fn open(&self) {
        let shared = self.shared();
        shared.crew.open(shared.has_work());
    }

    /// Marks until there is nothing left to trace. Others may add something right afterwards,
    /// unless the world is stopped.
    pub(crate) fn drain(&mut self) {
        let shared = Arc::clone(self.shared());
        let _span = shared.mark_span();
        shared.crew.enlist();
        self.foreman.work(LITTLE);
        while shared.crew.rest_or_finish(|| shared.has_work()) {
            self.foreman.work(0);
        }
    }

    /// Marks, if others leave much to do: called by who finds roots, so that they do not pile up.
    pub(crate) fn relieve(&mut self) {
        if !self.shared().queue.is_empty() {
            let shared = Arc::clone(self.shared());
            let _span = shared.mark_span();
            shared.crew.enlist();
            self.foreman.work(LITTLE);
            shared.crew.retire();
        }
    }

    /// Ends marking, when it is quiet and the world is stopped; tells what was marked since the
    /// last call.
    pub(crate) fn close(&self) -> Marked {
        let shared = self.shared();
        shared.crew.close();
        // Threads in native code may still deliver words, of objects that are marked: nobody needs
        // them.
        while !shared.queue.is_empty() {
            drop(shared.queue.steal());
        }
        // Their memory is kept: giving it back may have the allocator give back much more, which
        // takes long.
        let mut roots = shared.roots.lock();
        roots.clear();
        shared.root_count.store(0, Relaxed);
        drop(roots);
        Marked { objects: shared.objects.swap(0, Relaxed), bytes: shared.bytes.swap(0, Relaxed) }
    }
}

impl<H> Drop for Marker<H> {
    fn drop(&mut self) {
        self.foreman.shared.crew.dismiss();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl<H: Heap> Shared<H> {
    fn has_work(&self) -> bool {
        // The last object of a deque is its owner's, who is not idle: going after it would only
        // keep two threads busy.
        !self.queue.is_empty()
            || self.root_count.load(Relaxed) > 0
            || self.stealers.iter().any(|stealer| stealer.len() > 1)
            || self.stacks.upgrade().is_some_and(|stacks| stacks.has_frozen())
    }

    /// An observer that comes later is told from the next rest on.
    fn mark_span(&self) -> Option<Span> {
        self.stacks.upgrade().map(|stacks| stacks.observed().span(Activity::Mark, 0))
    }

    /// There is a stack to go on with.
    pub(crate) fn stack_waits(&self) {
        self.crew.announce();
    }

    /// Visits a chunk of some stack's frozen frames. False if there are none.
    fn scan_frozen(&self) -> bool {
        let Some(stacks) = self.stacks.upgrade() else { return false };
        stacks.scan_frozen().unwrap_or_else(|error| stacks.fatal(&error))
    }

    /// Leaves what the words refer to to the workers. For threads that find roots, after
    /// `begin_cycle`.
    ///
    /// Many threads bring few words each. They are collected before a worker is woken for them; who
    /// waits for marking to be complete wakes one for the rest.
    pub(crate) fn shade(&self, words: &[usize]) {
        let mut roots = self.roots.lock();
        roots.extend(words.iter().filter(|word| **word != 0));
        let full = if roots.len() >= ROOTS { std::mem::take(&mut *roots) } else { Vec::new() };
        // Relaxed: workers look before they rest, and so does who waits for them, after the lock or
        // a fence.
        self.root_count.store(roots.len(), Relaxed);
        drop(roots);
        self.take(full);
    }

    fn take_roots(&self) -> Vec<usize> {
        let mut roots = self.roots.lock();
        self.root_count.store(0, Relaxed);
        std::mem::take(&mut *roots)
    }

    fn add(&self, work: Work) {
        self.queue.push(work);
        self.crew.announce();
    }

    /// Bytes of the objects that were traced in this cycle, or a little less while it runs.
    pub(crate) fn traced(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Marks on a mutator's behalf, about so many bytes of objects, as far as others leave
    /// something to take and until it `is_awaited` elsewhere; tells how many it were.
    pub(crate) fn help(&self, bytes: u64, is_awaited: impl Fn() -> bool) -> u64 {
        if !self.crew.join() {
            return 0;
        }
        let mut tracer = Tracer::default();
        while tracer.counted.bytes < bytes
            && !is_awaited()
            && (tracer.trace_stretch(self) || self.take_any(&mut tracer))
        {}
        while let Some(word) = tracer.coming.take() {
            if let Some(object) = self.heap.resolve(word)
                && self.heap.mark(object)
            {
                tracer.stack.push(object);
            }
        }
        let done = tracer.counted.bytes;
        tracer.publish(self);
        if !tracer.stack.is_empty() {
            self.add(Work::Grey(tracer.stack));
        }
        self.crew.part();
        done
    }

    /// Work for a helper, from the shared queue or a worker.
    fn take_any(&self, tracer: &mut Tracer) -> bool {
        tracer.take_shared(self)
            || self.stealers.iter().any(|stealer| {
                let stolen = std::iter::from_fn(|| insist(|| stealer.steal())).take(SHARE / 2);
                let before = tracer.stack.len();
                tracer.stack.extend(stolen);
                tracer.stack.len() > before
            })
    }
}

impl<H: Heap> Sink for Shared<H> {
    fn wants(&self, word: usize) -> bool {
        self.heap.resolve(word).is_some_and(|object| !self.heap.is_marked(object))
    }

    fn take(&self, words: Vec<usize>) {
        if !words.is_empty() {
            self.add(Work::Words(words));
        }
    }
}

/// The error of a thread that the system refuses, with what it was for.
pub(crate) fn no_thread(purpose: &str, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("cannot start a thread for {purpose}: {error}"))
}

struct MarkWorker<H> {
    number: usize,
    deque: Worker<Object>,
    tracer: Tracer,
    shared: Arc<Shared<H>>,
}

/// What one thread has to trace, and has traced.
#[derive(Default)]
struct Tracer {
    /// Grey objects that nobody else sees.
    stack: Vec<Object>,
    coming: Coming,
    counted: Marked,
}

/// A queue of references whose objects are on their way into the cache.
#[derive(Default)]
struct Coming {
    words: [usize; COMING],
    /// Counts what was taken and what was put: the places are these, modulo the length.
    taken: usize,
    put: usize,
}

impl Coming {
    #[inline]
    fn len(&self) -> usize {
        self.put.wrapping_sub(self.taken)
    }

    /// Adds a word; gives the oldest one if there was no room.
    #[inline]
    fn exchange(&mut self, word: usize) -> Option<usize> {
        let oldest = if self.len() == COMING { self.take() } else { None };
        self.words[self.put % COMING] = word;
        self.put = self.put.wrapping_add(1);
        oldest
    }

    #[inline]
    fn take(&mut self) -> Option<usize> {
        if self.taken == self.put {
            return None;
        }
        let word = self.words[self.taken % COMING];
        self.taken = self.taken.wrapping_add(1);
        Some(word)
    }
}

/// A collector's thread that panics would leave everybody waiting for it.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Tracer {
    /// Traces some objects; whether there may be more.
    fn trace_stretch<H: Heap>(&mut self, shared: &Shared<H>) -> bool {
        for _ in 0..STRETCH {
            let Some(object) = self.next_object(&*shared.heap) else { return false };
            let size = shared.heap.size(object);
            self.counted.objects += 1;
            self.counted.bytes += size as u64;
            self.trace(shared, object, 0, size);
        }
        true
    }

    /// A grey object, rather one that is in the cache by now.
    #[inline]
    fn next_object(&mut self, heap: &impl Heap) -> Option<Object> {
        while self.coming.len() > UNDER_WAY || self.stack.is_empty() {
            let word = self.coming.take()?;
            if let Some(object) = heap.resolve(word)
                && heap.mark(object)
            {
                return Some(object);
            }
        }
        self.stack.pop()
    }

    /// Traces the piece of an object that begins at `from`; puts what follows it, if there is
    /// something, into the queue first.
    #[inline]
    fn trace<H: Heap>(&mut self, shared: &Shared<H>, object: Object, from: usize, size: usize) {
        if size - from > PIECE {
            shared.add(Work::Piece(object, from + PIECE));
        }
        let heap = &*shared.heap;
        heap.trace(object, from..from + PIECE, &mut |word| self.follow(heap, word));
    }

    /// Has the object that `word` may refer to brought into the cache, and looks at one that has
    /// been.
    #[inline]
    fn follow(&mut self, heap: &impl Heap, word: usize) {
        if heap.prefetch(word)
            && let Some(oldest) = self.coming.exchange(word)
            && let Some(object) = heap.resolve(oldest)
            && heap.mark(object)
        {
            self.stack.push(object);
        }
    }

    /// Takes something from the shared queue, if there is anything.
    fn take_shared<H: Heap>(&mut self, shared: &Shared<H>) -> bool {
        let work =
            insist(|| shared.queue.steal()).unwrap_or_else(|| Work::Words(shared.take_roots()));
        match work {
            Work::Grey(objects) => self.stack.extend(objects),
            Work::Words(words) if words.is_empty() => return false,
            Work::Words(words) => {
                words.into_iter().for_each(|word| self.follow(&*shared.heap, word))
            }
            Work::Piece(object, from) => self.trace(shared, object, from, shared.heap.size(object)),
        }
        true
    }

    /// Adds what was counted to the totals.
    fn publish<H>(&mut self, shared: &Shared<H>) {
        // Relaxed: whoever needs exact totals has waited until it is quiet, or the world is
        // stopped.
        let counted = std::mem::take(&mut self.counted);
        shared.objects.fetch_add(counted.objects, Relaxed);
        shared.bytes.fetch_add(counted.bytes, Relaxed);
    }
}

impl<H: Heap> MarkWorker<H> {
    fn run(mut self) {
        let _guard = AbortOnPanic;
        let shared = Arc::clone(&self.shared);
        // What has been added already is not touched before a cycle opens.
        while shared.crew.rest(|| shared.has_work()) {
            let _span = shared.mark_span();
            self.work(0);
        }
    }

    /// Works until it finds nothing to do; so many bytes are traced before others are given some.
    fn work(&mut self, mut alone: u64) {
        let shared = Arc::clone(&self.shared);
        loop {
            while self.tracer.trace_stretch(&shared) {
                if shared.crew.wants_work() && self.tracer.counted.bytes >= alone {
                    self.share();
                }
                if self.tracer.counted.bytes >= PUBLISHED {
                    alone = alone.saturating_sub(self.tracer.counted.bytes);
                    self.tracer.publish(&shared);
                }
            }
            if let Some(object) = self.deque.pop() {
                self.tracer.stack.push(object);
            } else if !self.tracer.take_shared(&shared) && !self.steal() && !shared.scan_frozen() {
                // Before it rests: see the crew's first invariant.
                self.tracer.publish(&shared);
                return;
            }
        }
    }

    /// Gives the older half of the stack, or a good part of it, to those who have nothing.
    fn share(&mut self) {
        let count = (self.tracer.stack.len() / 2).min(SHARE);
        if count > 0 && self.deque.len() < SHARE {
            self.tracer.stack.drain(..count).for_each(|object| self.deque.push(object));
            self.shared.crew.announce();
        }
    }

    fn steal(&mut self) -> bool {
        let count = self.shared.stealers.len();
        for other in (1..count).map(|i| (self.number + i) % count) {
            if let Some(object) =
                insist(|| self.shared.stealers[other].steal_batch_and_pop(&self.deque))
            {
                self.tracer.stack.push(object);
                return true;
            }
        }
        false
    }
}

/// Tries again as long as others are in the way.
fn insist<T>(mut steal: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match steal() {
            Steal::Success(stolen) => return Some(stolen),
            Steal::Retry => {}
            Steal::Empty => return None,
        }
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use crate::mark_sweep::{Descriptor, MarkSweep, Options};

    /// A heap with a list, a wide tree in one large array and garbage; the roots and how many
    /// objects they reach.
    fn graph() -> (Arc<MarkSweep>, Vec<usize>, u64, u64) {
        let heap = MarkSweep::new(&Options { limit: 256 << 20, poison: true }).expect("a heap");
        let allocator = heap.allocator().expect("an allocator");
        let references = heap.register(Descriptor::references()).expect("a descriptor");
        let new = |bytes| allocator.allocate(references, bytes).expect("room").as_ptr() as usize;
        let store = |object: usize, word: usize, value: usize| {
            // SAFETY: within an object that was just allocated.
            unsafe { ((object + word * 8) as *mut usize).write(value) }
        };
        let mut list = 0;
        for _ in 0..50_000 {
            let node = new(16);
            new(16);
            store(node, 0, list);
            store(node, 1, node + 8);
            list = node;
        }
        let wide = new(100_000 * 8);
        for i in 0..100_000 {
            store(wide, i, new(8) + i % 8);
        }
        (heap, vec![list, 12345, wide + 400_000], 150_001, 50_000 * 16 + 100_000 * 8 + 100_000 * 8)
    }

    #[test]
    fn any_number_of_workers_marks_exactly_what_is_reachable() {
        for workers in [1, 2, 5] {
            let (heap, roots, objects, bytes) = graph();
            let mut marker =
                Marker::start(Arc::clone(&heap), Weak::new(), workers).expect("threads");
            for _ in 0..3 {
                heap.begin_cycle();
                marker.open();
                marker.shared().shade(&roots);
                marker.drain();
                marker.shared().take(roots.clone());
                marker.drain();
                let marked = marker.close();
                assert_eq!(marked, Marked { objects, bytes });
                heap.end_cycle(marked);
                heap.finish_sweep();
                assert_eq!(heap.counts().live_bytes, bytes);
            }
        }
    }

    #[test]
    fn helpers_mark_with_the_workers() {
        let (heap, roots, objects, bytes) = graph();
        let mut marker = Marker::start(Arc::clone(&heap), Weak::new(), 1).expect("threads");
        let shared = Arc::clone(marker.shared());
        assert_eq!(shared.help(1 << 20, || false), 0);
        let mut helped = 0;
        for _ in 0..20 {
            heap.begin_cycle();
            marker.open();
            std::thread::scope(|scope| {
                let help = || {
                    shared.shade(&roots);
                    (0..1000).map(|_| shared.help(1 << 10, || false)).sum::<u64>()
                };
                let helpers = [scope.spawn(help), scope.spawn(help)];
                helped +=
                    helpers.map(|helper| helper.join().expect("no panic")).iter().sum::<u64>();
            });
            marker.drain();
            let marked = marker.close();
            assert_eq!(marked, Marked { objects, bytes });
            heap.end_cycle(marked);
            heap.finish_sweep();
        }
        assert_ne!(helped, 0);
    }

    #[test]
    fn words_that_arrive_before_the_cycle_wait_for_it() {
        let (heap, roots, objects, _) = graph();
        let mut marker = Marker::start(Arc::clone(&heap), Weak::new(), 2).expect("threads");
        marker.shared().take(roots.clone());
        assert!(marker.shared().wants(roots[0]));
        heap.begin_cycle();
        marker.open();
        marker.drain();
        assert!(!marker.shared().wants(roots[0]) && !marker.shared().wants(12345));
        assert_eq!(marker.close().objects, objects);
    }
}
