//! A queue that gives memory the time to come into the cache.

/// References that are being prefetched, at most.
const CAPACITY: usize = 32;

/// A queue, first in first out, of references whose objects are being brought into the cache.
#[derive(Default)]
pub(super) struct PrefetchQueue {
    words: [usize; CAPACITY],
    /// How many words have been taken and put; modulo the length, where the next one lies.
    taken: usize,
    put: usize,
}

impl PrefetchQueue {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.put.wrapping_sub(self.taken)
    }

    /// Adds a word. Returns the oldest one if the queue was full.
    #[inline]
    pub(super) fn exchange(&mut self, word: usize) -> Option<usize> {
        let oldest = if self.len() == CAPACITY { self.take() } else { None };
        self.words[self.put % CAPACITY] = word;
        self.put = self.put.wrapping_add(1);
        oldest
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<usize> {
        if self.taken == self.put {
            return None;
        }
        let word = self.words[self.taken % CAPACITY];
        self.taken = self.taken.wrapping_add(1);
        Some(word)
    }
}
