//! Tracing by one thread: its own grey objects, and the references on their way into the cache.

use std::num::NonZeroUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::prefetch::PrefetchQueue;
use super::state::{MarkState, Work, retry_steal};
use crate::heap::{BY_COLLECTOR, Heap, Marked, Object, Shade};

/// Bytes of a large object that are traced in one go.
const PIECE: usize = 64 << 10;
/// Objects that are traced in one call of [`Tracer::trace_some`].
const STRETCH: usize = 64;
/// Objects that stay in the prefetch queue as long as the stack has grey objects.
const PREFETCH_DEPTH: usize = 16;

/// The grey object so many places below the top of the stack is prefetched when one is taken: what
/// was pushed long ago is not in the cache any more.
const POP_AHEAD: usize = 8;

/// What one thread has to trace, and has traced.
#[derive(Default)]
pub(super) struct Tracer {
    /// Grey objects that no other thread sees.
    pub(super) stack: Vec<Object>,
    /// References. What says whether their objects are marked comes into the cache.
    words: PrefetchQueue<NonZeroUsize>,
    /// Grey objects, marked just now. They come into the cache themselves.
    marked: PrefetchQueue<Object>,
    pub(super) counted: Marked,
}

impl Tracer {
    /// Traces some objects. Returns whether there may be more.
    pub(super) fn trace_some<H: Heap>(&mut self, state: &MarkState<H>) -> bool {
        for _ in 0..STRETCH {
            let Some(object) = self.next_object(&*state.heap) else { return false };
            let size = self.trace(&*state.heap, object, 0);
            self.count(size);
            if size > PIECE {
                state.add(Work::Piece(object, PIECE));
            }
        }
        true
    }

    /// A grey object; preferably one that is in the cache by now.
    #[inline]
    fn next_object(&mut self, heap: &impl Heap) -> Option<Object> {
        while self.stack.is_empty() && self.marked.len() == 0 {
            let word = self.words.take()?;
            self.mark(heap, word);
        }
        if self.marked.len() > PREFETCH_DEPTH || self.stack.is_empty() {
            return self.marked.take();
        }
        let object = self.stack.pop();
        if let Some(ahead) = self.stack.len().checked_sub(POP_AHEAD) {
            stackmark_unwind::prefetch(self.stack[ahead].address());
        }
        object
    }

    /// Traces the piece of an object that begins at `from`. Returns the object's size.
    #[inline]
    fn trace<H: Heap>(&mut self, heap: &H, object: Object, from: usize) -> usize {
        heap.trace(object, from..from + PIECE, &mut |word| self.follow(heap, word), BY_COLLECTOR)
    }

    /// Prefetches what says whether the object that `word` may refer to is marked. Marks that of
    /// the reference prefetched longest ago.
    #[inline]
    fn follow(&mut self, heap: &impl Heap, word: usize) {
        if heap.prefetch(word)
            && let Some(word) = NonZeroUsize::new(word)
            && let Some(oldest) = self.words.exchange(word)
        {
            self.mark(heap, oldest);
        }
    }

    /// Prefetches an object if it was unmarked: of many references to one, all but the first find
    /// it marked, and need nothing of it.
    #[inline]
    fn mark(&mut self, heap: &impl Heap, word: NonZeroUsize) {
        match heap.mark_at(word.get(), BY_COLLECTOR) {
            Some(Shade::Grey(object)) => {
                stackmark_unwind::prefetch(object.address());
                if let Some(oldest) = self.marked.exchange(object) {
                    self.stack.push(oldest);
                }
            }
            Some(Shade::Black(size)) => self.count(size),
            None => {}
        }
    }

    /// Counts an object of so many bytes.
    #[inline]
    fn count(&mut self, size: usize) {
        self.counted.objects += 1;
        self.counted.bytes += size as u64;
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
            Work::Piece(object, from) => {
                // Before this one is traced, so that another thread begins.
                if state.heap.size(object) > from + PIECE {
                    state.add(Work::Piece(object, from + PIECE));
                }
                self.trace(&*state.heap, object, from);
            }
        }
        true
    }

    /// Empties the prefetch queues onto the stack.
    pub(super) fn empty_queues(&mut self, heap: &impl Heap) {
        while let Some(word) = self.words.take() {
            self.mark(heap, word);
        }
        while let Some(object) = self.marked.take() {
            self.stack.push(object);
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
