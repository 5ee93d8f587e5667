//! Marking: from words that may refer to objects to the objects' transitive closure, by a crew of threads.
//!
//! An object is *grey* from the moment that somebody has marked it until its references have been looked at. Grey objects
//! lie on a worker's own stack, in its deque, where others steal, or in batches in the shared queue. A worker puts part of
//! its stack into the deque when somebody has nothing to do; popping from the deque costs a fence, popping from the stack
//! does not.
//!
//! The references that a worker finds pass through a short queue, first in, first out, on their way to being looked at: what
//! will be needed of their objects comes into the cache meanwhile (Cher, Hosking and Vitek, "Software prefetching for
//! mark-sweep garbage collection", 2004).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use stackmark_stack::Runtime;

use crate::crew::Crew;
use crate::heap::{Heap, Marked, Object};
use crate::write_barrier::Sink;

/// Bytes of a large object that are traced in one go.
const PIECE: usize = 64 << 10;
/// Objects that are traced between two looks at whether others have something to do.
const STRETCH: usize = 64;
/// Objects that a worker shares at a time.
const SHARE: usize = 32;
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

/// Marks objects of a heap, on threads of its own.
pub(crate) struct Marker<H> {
    shared: Arc<Shared<H>>,
    threads: Vec<JoinHandle<()>>,
}

pub(crate) struct Shared<H> {
    heap: Arc<H>,
    queue: Injector<Work>,
    stealers: Vec<Stealer<Object>>,
    /// Whose frozen frames the workers visit. It refers to us.
    stacks: Weak<Runtime>,
    crew: Crew,
    // Counted by each worker for itself and added before it rests, so exact when it is quiet.
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl<H: Heap> Marker<H> {
    /// Starts `workers` threads, at least one, which wait for [`open`](Marker::open). They visit frozen frames of `stacks`, too.
    pub(crate) fn start(heap: Arc<H>, stacks: Weak<Runtime>, workers: usize) -> std::io::Result<Marker<H>> {
        let deques: Vec<_> = (0..workers.max(1)).map(|_| Worker::new_lifo()).collect();
        let shared = Arc::new(Shared {
            heap,
            queue: Injector::new(),
            stealers: deques.iter().map(Worker::stealer).collect(),
            stacks,
            crew: Crew::new(deques.len()),
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let mut marker = Marker { shared, threads: Vec::new() };
        for (number, deque) in deques.into_iter().enumerate() {
            let shared = Arc::clone(&marker.shared);
            let (coming, counted) = (Coming::default(), Marked::default());
            let worker = MarkWorker { number, deque, stack: Vec::new(), coming, counted, shared };
            let thread = std::thread::Builder::new().name(format!("stackmark-mark-{number}"));
            marker.threads.push(thread.spawn(move || worker.run())?);
        }
        Ok(marker)
    }

    /// What mutators and scanning threads need.
    pub(crate) fn shared(&self) -> &Arc<Shared<H>> {
        &self.shared
    }

    /// Lets the workers begin.
    pub(crate) fn open(&self) {
        self.shared.crew.open();
    }

    /// Waits until there is nothing left to trace. Others may add something right afterwards, unless the world is stopped.
    pub(crate) fn drain(&self) {
        self.shared.crew.wait_until_quiet(|| self.shared.has_work());
    }

    /// Ends marking, when it is quiet and the world is stopped; tells what was marked since the last call.
    pub(crate) fn close(&self) -> Marked {
        self.shared.crew.close();
        // Threads in native code may still deliver words, of objects that are marked: nobody needs them.
        while !self.shared.queue.is_empty() {
            drop(self.shared.queue.steal());
        }
        Marked { objects: self.shared.objects.swap(0, Relaxed), bytes: self.shared.bytes.swap(0, Relaxed) }
    }
}

impl<H> Drop for Marker<H> {
    fn drop(&mut self) {
        self.shared.crew.dismiss();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl<H: Heap> Shared<H> {
    fn has_work(&self) -> bool {
        // The last object of a deque is its owner's, who is not idle: going after it would only keep two threads busy.
        !self.queue.is_empty()
            || self.stealers.iter().any(|stealer| stealer.len() > 1)
            || self.stacks.upgrade().is_some_and(|stacks| stacks.has_frozen())
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

    /// Marks what the words refer to and leaves it to the workers. For threads that find roots, after `begin_cycle`.
    pub(crate) fn shade(&self, words: &[usize]) {
        let mut grey = Vec::new();
        for word in words {
            if let Some(object) = self.heap.resolve(*word)
                && self.heap.mark(object)
            {
                grey.push(object);
            }
        }
        if !grey.is_empty() {
            self.queue.push(Work::Grey(grey));
            self.crew.announce();
        }
    }
}

impl<H: Heap> Sink for Shared<H> {
    fn wants(&self, word: usize) -> bool {
        self.heap.resolve(word).is_some_and(|object| !self.heap.is_marked(object))
    }

    fn take(&self, words: Vec<usize>) {
        if !words.is_empty() {
            self.queue.push(Work::Words(words));
            self.crew.announce();
        }
    }
}

struct MarkWorker<H> {
    number: usize,
    deque: Worker<Object>,
    /// Grey objects that nobody else sees.
    stack: Vec<Object>,
    coming: Coming,
    counted: Marked,
    shared: Arc<Shared<H>>,
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

impl<H: Heap> MarkWorker<H> {
    fn run(mut self) {
        let _guard = AbortOnPanic;
        loop {
            while self.trace_stretch() {
                if self.shared.crew.wants_work() {
                    self.share();
                }
            }
            if let Some(object) = self.deque.pop() {
                self.stack.push(object);
            } else if !self.take_shared() && !self.steal() && !self.shared.scan_frozen() {
                // The counters of the crew order these: it is quiet only after a lock that we take next.
                self.shared.objects.fetch_add(std::mem::take(&mut self.counted.objects), Relaxed);
                self.shared.bytes.fetch_add(std::mem::take(&mut self.counted.bytes), Relaxed);
                if !self.shared.crew.rest(|| self.shared.has_work()) {
                    return;
                }
            }
        }
    }

    /// Traces some objects; whether there may be more.
    fn trace_stretch(&mut self) -> bool {
        for _ in 0..STRETCH {
            let Some(object) = self.next_object() else { return false };
            let size = self.shared.heap.size(object);
            self.counted.objects += 1;
            self.counted.bytes += size as u64;
            self.trace(object, 0, size);
        }
        true
    }

    /// A grey object of this worker's, rather one that is in the cache by now.
    #[inline]
    fn next_object(&mut self) -> Option<Object> {
        let heap = &*self.shared.heap;
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

    /// Traces the piece of an object that begins at `from`; puts what follows it, if there is something, into the queue first.
    #[inline]
    fn trace(&mut self, object: Object, from: usize, size: usize) {
        let shared = &*self.shared;
        let (stack, coming) = (&mut self.stack, &mut self.coming);
        if size - from > PIECE {
            shared.queue.push(Work::Piece(object, from + PIECE));
            shared.crew.announce();
        }
        let heap = &*shared.heap;
        heap.trace(object, from..from + PIECE, &mut |word| {
            if heap.prefetch(word)
                && let Some(oldest) = coming.exchange(word)
                && let Some(object) = heap.resolve(oldest)
                && heap.mark(object)
            {
                stack.push(object);
            }
        });
    }

    /// Gives the older half of the stack, or a good part of it, to those who have nothing.
    fn share(&mut self) {
        let count = (self.stack.len() / 2).min(SHARE);
        if count > 0 && self.deque.len() < SHARE {
            self.stack.drain(..count).for_each(|object| self.deque.push(object));
            self.shared.crew.announce();
        }
    }

    fn take_shared(&mut self) -> bool {
        let work = loop {
            match self.shared.queue.steal() {
                Steal::Success(work) => break work,
                Steal::Retry => {}
                Steal::Empty => return false,
            }
        };
        match work {
            Work::Grey(objects) => self.stack.extend(objects),
            Work::Words(words) => {
                let heap = &*self.shared.heap;
                let referred = words.into_iter().filter_map(|word| heap.resolve(word));
                self.stack.extend(referred.filter(|object| heap.mark(*object)));
            }
            Work::Piece(object, from) => self.trace(object, from, self.shared.heap.size(object)),
        }
        true
    }

    fn steal(&mut self) -> bool {
        let count = self.shared.stealers.len();
        for other in (1..count).map(|i| (self.number + i) % count) {
            loop {
                match self.shared.stealers[other].steal_batch_and_pop(&self.deque) {
                    Steal::Success(object) => {
                        self.stack.push(object);
                        return true;
                    }
                    Steal::Retry => {}
                    Steal::Empty => break,
                }
            }
        }
        false
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use crate::mark_sweep::{Descriptor, MarkSweep, Options};

    /// A heap with a list, a wide tree in one large array and garbage; the roots and how many objects they reach.
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
            let marker = Marker::start(Arc::clone(&heap), Weak::new(), workers).expect("threads");
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
    fn words_that_arrive_before_the_cycle_wait_for_it() {
        let (heap, roots, objects, _) = graph();
        let marker = Marker::start(Arc::clone(&heap), Weak::new(), 2).expect("threads");
        marker.shared().take(roots.clone());
        assert!(marker.shared().wants(roots[0]));
        heap.begin_cycle();
        marker.open();
        marker.drain();
        assert!(!marker.shared().wants(roots[0]) && !marker.shared().wants(12345));
        assert_eq!(marker.close().objects, objects);
    }
}
