//! Tracing by one thread: its own grey objects, and the references on their way into the cache.

use std::sync::atomic::Ordering::Relaxed;

use super::prefetch::PrefetchQueue;
use super::state::{MarkState, Work, retry_steal};
use crate::heap::{BY_COLLECTOR, Heap, Marked, Object};

/// Bytes of a large object that are traced in one go.
const PIECE: usize = 64 << 10;
/// Objects that are traced in one call of [`Tracer::trace_some`].
const STRETCH: usize = 64;
/// References that stay in the prefetch queue as long as the stack has grey objects.
const PREFETCH_DEPTH: usize = 16;

/// The grey object so many places below the top of the stack is prefetched when one is taken: what
/// was pushed long ago is not in the cache any more.
const POP_AHEAD: usize = 8;

/// What one thread has to trace, and has traced.
#[derive(Default)]
pub(super) struct Tracer {
    /// Grey objects that no other thread sees.
    pub(super) stack: Vec<Object>,
    prefetched: PrefetchQueue,
    pub(super) counted: Marked,
}

impl Tracer {
    /// Traces some objects. Returns whether there may be more.
    pub(super) fn trace_some<H: Heap>(&mut self, state: &MarkState<H>) -> bool {
        for _ in 0..STRETCH {
            let Some(object) = self.next_object(&*state.heap) else { return false };
            let size = state.heap.size(object);
            self.counted.objects += 1;
            self.counted.bytes += size as u64;
            self.trace(state, object, 0, size);
        }
        true
    }

    /// A grey object; preferably one that is in the cache by now.
    #[inline]
    fn next_object(&mut self, heap: &impl Heap) -> Option<Object> {
        while self.prefetched.len() > PREFETCH_DEPTH || self.stack.is_empty() {
            let word = self.prefetched.take()?;
            if let Some(object) = heap.resolve(word)
                && heap.mark(object, BY_COLLECTOR)
            {
                return Some(object);
            }
        }
        let object = self.stack.pop();
        if let Some(ahead) = self.stack.len().checked_sub(POP_AHEAD) {
            heap.prefetch(self.stack[ahead].address());
        }
        object
    }

    /// Traces the piece of an object that begins at `from`. The rest of the object, if any, goes
    /// into the shared queue first.
    #[inline]
    fn trace<H: Heap>(&mut self, state: &MarkState<H>, object: Object, from: usize, size: usize) {
        if size - from > PIECE {
            state.add(Work::Piece(object, from + PIECE));
        }
        let heap = &*state.heap;
        heap.trace(object, from..from + PIECE, &mut |word| self.follow(heap, word), BY_COLLECTOR);
    }

    /// Prefetches the object that `word` may refer to, and marks the one prefetched longest ago.
    #[inline]
    fn follow(&mut self, heap: &impl Heap, word: usize) {
        if heap.prefetch(word)
            && let Some(oldest) = self.prefetched.exchange(word)
        {
            self.mark(heap, oldest);
        }
    }

    #[inline]
    fn mark(&mut self, heap: &impl Heap, word: usize) {
        if let Some(object) = heap.resolve(word)
            && heap.mark(object, BY_COLLECTOR)
        {
            self.stack.push(object);
        }
    }

    /// Takes from the shared queue. Returns whether there was anything.
    pub(super) fn take_shared<H: Heap>(&mut self, state: &MarkState<H>) -> bool {
        let work =
            retry_steal(|| state.queue.steal()).unwrap_or_else(|| Work::Words(state.take_roots()));
        match work {
            Work::Grey(objects) => self.stack.extend(objects),
            Work::Words(words) if words.is_empty() => return false,
            Work::Words(words) => {
                words.into_iter().for_each(|word| self.follow(&*state.heap, word))
            }
            Work::Piece(object, from) => self.trace(state, object, from, state.heap.size(object)),
        }
        true
    }

    /// Empties the prefetch queue onto the stack.
    pub(super) fn mark_prefetched(&mut self, heap: &impl Heap) {
        while let Some(word) = self.prefetched.take() {
            self.mark(heap, word);
        }
    }

    /// Adds the counts to the totals.
    pub(super) fn publish<H>(&mut self, state: &MarkState<H>) {
        // Relaxed: exact totals are read on quiescence or with the world stopped.
        let counted = std::mem::take(&mut self.counted);
        state.objects.fetch_add(counted.objects, Relaxed);
        state.bytes.fetch_add(counted.bytes, Relaxed);
    }
}
