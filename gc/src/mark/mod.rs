//! Marking: from words that may refer to objects to the objects' transitive closure, by several
//! threads.
//!
//! An object is *grey* from the moment that a thread has marked it until its references have been
//! looked at. A grey object lies on a worker's own stack, in its deque, where others steal, or in a
//! batch in the shared queue. Popping from the deque costs a fence, popping from the stack does
//! not; so a worker moves a part of its stack to the deque only when some thread is idle.
//!
//! The references that a worker finds pass through a [`PrefetchQueue`](prefetch::PrefetchQueue)
//! before they are looked at (Cher, Hosking and Vitek, "Software prefetching for mark-sweep garbage
//! collection", 2004). Meanwhile the bits that say whether their objects are marked come into the
//! cache. Objects that were unmarked pass through another one, while they come into the cache
//! themselves. So of many references to one object only the first brings it there.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crossbeam_deque::Worker as Deque;
use stackmark_stack::Runtime;

use self::worker::MarkWorker;
use crate::heap::{Heap, Marked};
use crate::thread;

pub(crate) use self::state::MarkState;

mod helper;
mod prefetch;
mod state;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
mod tracer;
mod worker;

/// Bytes of objects that the coordinator traces before it shares work: a little is done sooner than
/// a worker wakes.
const SOLO_BYTES: u64 = 32 << 10;

/// Marks objects of a heap: on its owner's thread, the coordinator, and on threads of its own.
pub(crate) struct Marker<H> {
    coordinator: MarkWorker<H>,
    threads: Vec<JoinHandle<()>>,
}

impl<H: Heap> Marker<H> {
    /// Starts `workers` workers, at least one. The caller's thread is one of them while it
    /// [drains](Marker::drain); the others wait for [`open`](Marker::open). They also visit frozen
    /// frames of `runtime`.
    ///
    /// # Errors
    /// When the system gives no thread. Threads started before are ended.
    pub(crate) fn start(
        heap: Arc<H>,
        runtime: Weak<Runtime>,
        workers: usize,
    ) -> std::io::Result<Marker<H>> {
        let deques: Vec<_> = (0..workers.max(1)).map(|_| Deque::new_lifo()).collect();
        let stealers = deques.iter().map(Deque::stealer).collect();
        let state = Arc::new(MarkState::new(heap, runtime, stealers));
        let mut workers = (0..)
            .zip(deques)
            .map(|(number, deque)| (number, MarkWorker::new(number, deque, Arc::clone(&state))));
        let (_, coordinator) = workers.next().expect("at least one");
        let mut marker = Marker { coordinator, threads: Vec::new() };
        for (number, worker) in workers {
            let name = format!("stackmark-mark-{number}");
            marker.threads.push(thread::spawn(name, "marking", move || worker.run())?);
        }
        Ok(marker)
    }

    /// What mutators and scanning threads need.
    pub(crate) fn state(&self) -> &Arc<MarkState<H>> {
        &self.coordinator.state
    }

    /// How many threads mark.
    pub(crate) fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    /// Lets the workers begin.
    pub(crate) fn open(&self) {
        let state = self.state();
        state.termination.open(state.has_work());
    }

    /// Marks until there is nothing left to trace. Other threads may add work right afterwards,
    /// unless the world is stopped.
    pub(crate) fn drain(&mut self) {
        let state = Arc::clone(self.state());
        let _span = state.mark_span();
        state.termination.add_worker();
        self.coordinator.work(SOLO_BYTES);
        while state.termination.park_or_terminate(|| state.has_work()) {
            self.coordinator.work(0);
        }
    }

    /// Marks if the shared queue holds work. A thread that finds roots calls this between scans, so
    /// that they do not pile up.
    pub(crate) fn drain_backlog(&mut self) {
        if !self.state().queue.is_empty() {
            let state = Arc::clone(self.state());
            let _span = state.mark_span();
            state.termination.add_worker();
            self.coordinator.work(SOLO_BYTES);
            state.termination.remove_worker();
        }
    }

    /// Ends marking, on quiescence and with the world stopped. Returns what was marked since the
    /// last call.
    pub(crate) fn close(&self) -> Marked {
        let state = self.state();
        state.termination.close();
        state.discard_queued();
        Marked { objects: state.objects.swap(0, Relaxed), bytes: state.bytes.swap(0, Relaxed) }
    }
}

impl<H> Drop for Marker<H> {
    fn drop(&mut self) {
        self.coordinator.state.termination.shut_down();
        for thread in self.threads.drain(..) {
            // A worker that panicked has ended the process.
            let _ = thread.join();
        }
    }
}
