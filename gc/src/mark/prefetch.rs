//! A queue that gives memory the time to come into the cache.

/// What waits in a queue, at most.
const CAPACITY: usize = 32;

/// A queue, first in first out, of what is being brought into the cache.
#[derive(Debug)]
pub(super) struct PrefetchQueue<T> {
    items: [Option<T>; CAPACITY],
    /// How many have been taken and put; modulo the length, where the next one lies.
    taken: usize,
    put: usize,
}

impl<T: Copy> Default for PrefetchQueue<T> {
    fn default() -> PrefetchQueue<T> {
        PrefetchQueue { items: [None; CAPACITY], taken: 0, put: 0 }
    }
}

impl<T: Copy> PrefetchQueue<T> {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.put.wrapping_sub(self.taken)
    }

    /// Adds one. Returns the oldest one if the queue was full.
    #[inline]
    pub(super) fn exchange(&mut self, item: T) -> Option<T> {
        let oldest = if self.len() == CAPACITY { self.take() } else { None };
        self.items[self.put % CAPACITY] = Some(item);
        self.put = self.put.wrapping_add(1);
        oldest
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<T> {
        if self.taken == self.put {
            return None;
        }
        let item = self.items[self.taken % CAPACITY];
        self.taken = self.taken.wrapping_add(1);
        item
    }
}
