//! A mark worker: a tracer with a deque that the others steal from.

use std::sync::Arc;

use crossbeam_deque::Worker as Deque;

use super::state::{MarkState, retry_steal};
use super::tracer::Tracer;
use crate::heap::{Heap, Object};

/// Objects that a worker puts into its deque at a time.
const SHARE_BATCH: usize = 32;
/// Bytes that a worker traces before it adds them to the total.
const PUBLISH_BYTES: u64 = 16 << 10;

pub(super) struct MarkWorker<H> {
    number: usize,
    deque: Deque<Object>,
    tracer: Tracer,
    pub(super) state: Arc<MarkState<H>>,
}

impl<H: Heap> MarkWorker<H> {
    /// `deque` is the one that `state.stealers[number]` steals from.
    pub(super) fn new(
        number: usize,
        deque: Deque<Object>,
        state: Arc<MarkState<H>>,
    ) -> MarkWorker<H> {
        MarkWorker { number, deque, tracer: Tracer::default(), state }
    }

    /// The body of a worker's thread.
    pub(super) fn run(mut self) {
        let state = Arc::clone(&self.state);
        // Work that has been added already is not touched before a cycle opens marking.
        while state.termination.park(|| state.has_work()) {
            let _span = state.mark_span();
            self.work(0);
        }
    }

    /// Works until it finds nothing to do. The first `solo_bytes` bytes are not shared.
    pub(super) fn work(&mut self, mut solo_bytes: u64) {
        let state = Arc::clone(&self.state);
        loop {
            while self.tracer.trace_some(&state) {
                if state.termination.wants_work() && self.tracer.counted.bytes >= solo_bytes {
                    self.share();
                }
                if self.tracer.counted.bytes >= PUBLISH_BYTES {
                    solo_bytes = solo_bytes.saturating_sub(self.tracer.counted.bytes);
                    self.tracer.publish(&state);
                }
            }
            if let Some(object) = self.deque.pop() {
                self.tracer.stack.push(object);
            } else if !self.tracer.take_shared(&state) && !self.steal() && !state.scan_frozen() {
                // Before it parks: invariant 1 of `Termination`.
                self.tracer.publish(&state);
                return;
            }
        }
    }

    /// Puts the older half of the stack, or a good part of it, where idle threads find it.
    fn share(&mut self) {
        let count = (self.tracer.stack.len() / 2).min(SHARE_BATCH);
        if count > 0 && self.deque.len() < SHARE_BATCH {
            self.tracer.stack.drain(..count).for_each(|object| self.deque.push(object));
            self.state.termination.announce_work();
        }
    }

    fn steal(&mut self) -> bool {
        let count = self.state.stealers.len();
        for other in (1..count).map(|i| (self.number + i) % count) {
            if let Some(object) =
                retry_steal(|| self.state.stealers[other].steal_batch_and_pop(&self.deque))
            {
                self.tracer.stack.push(object);
                return true;
            }
        }
        false
    }
}
