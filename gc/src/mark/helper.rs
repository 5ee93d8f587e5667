//! Marking on a mutator's behalf.

use super::state::{MarkState, Work, retry_steal};
use super::tracer::Tracer;
use crate::heap::Heap;

/// Objects that a helper steals from a worker at a time.
const STEAL_BATCH: usize = 16;

impl<H: Heap> MarkState<H> {
    /// Traces about `bytes` bytes of objects on the calling thread. Stops early when the other
    /// threads leave nothing to take, and when `is_awaited` says that the caller is needed
    /// elsewhere. Returns the bytes traced.
    pub(crate) fn help(&self, bytes: u64, is_awaited: impl Fn() -> bool) -> u64 {
        if !self.termination.join() {
            return 0;
        }
        let mut tracer = Tracer::default();
        while tracer.counted.bytes < bytes
            && !is_awaited()
            && (tracer.trace_some(self) || self.take_any(&mut tracer))
        {}
        tracer.empty_queues(&*self.heap);
        let traced = tracer.counted.bytes;
        tracer.publish(self);
        if !tracer.stack.is_empty() {
            self.add(Work::Grey(tracer.stack));
        }
        self.termination.leave();
        traced
    }

    /// Takes work from the shared queue, else from a worker. Returns whether there was any.
    fn take_any(&self, tracer: &mut Tracer) -> bool {
        tracer.take_shared(self)
            || self.stealers.iter().any(|stealer| {
                let stolen =
                    std::iter::from_fn(|| retry_steal(|| stealer.steal())).take(STEAL_BATCH);
                let before = tracer.stack.len();
                tracer.stack.extend(stolen);
                tracer.stack.len() > before
            })
    }
}
