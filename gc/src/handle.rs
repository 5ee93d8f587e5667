//! Handles: roots that native code holds.

use std::sync::Arc;

use stackmark_stack::sync::Ordering::Relaxed;
use stackmark_stack::sync::{AtomicUsize, Mutex};

use crate::heap::Fresh;
use crate::write_barrier::WriteBarrier;

/// Shards of the table, each with a lock of its own.
#[cfg(not(stackmark_loom))]
const SHARDS: usize = 16;
/// A model has few handles.
#[cfg(stackmark_loom)]
const SHARDS: usize = 2;

/// The handles of one collector. Any thread may use them.
///
/// A store to a handle takes the lock of the handle's shard and, under it, looks at the write
/// barrier's flag. The collector sets the flag first and then visits the shard under the same lock.
/// So the visit sees the store, or the store shades its value, on any thread in any state.
pub struct Handles {
    shards: [Mutex<Shard>; SHARDS],
    next: AtomicUsize,
    barrier: Arc<WriteBarrier>,
    /// The id of the collector's runtime.
    runtime: u64,
}

#[derive(Default)]
struct Shard {
    words: Vec<usize>,
    free: Vec<usize>,
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handles").field("live", &self.live()).finish_non_exhaustive()
    }
}

/// A reference to an object, held by native code. The object lives as long as the handle, or until
/// the handle is set to another word. The word may also point into an object. Any thread may use
/// and drop a handle.
pub struct Handle {
    handles: Arc<Handles>,
    shard: usize,
    index: usize,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Handle").field(&format_args!("{:#x}", self.get())).finish()
    }
}

impl Handles {
    pub(crate) fn new(barrier: Arc<WriteBarrier>, runtime: u64) -> Arc<Handles> {
        Arc::new(Handles {
            shards: std::array::from_fn(|_| Mutex::default()),
            next: AtomicUsize::new(0),
            barrier,
            runtime,
        })
    }

    /// A handle on what `word` refers to. The caller's goroutine is Running, or the caller holds
    /// another handle on the object: otherwise the object may be gone already.
    pub fn create(self: &Arc<Self>, word: usize) -> Handle {
        // Relaxed: only spreads threads over the shards.
        let number = self.next.fetch_add(1, Relaxed) % SHARDS;
        let index = self.add(&mut self.shards[number].lock(), word);
        Handle { handles: Arc::clone(self), shard: number, index }
    }

    /// Makes an entry of the shard that holds `word`. Returns its index.
    fn add(&self, shard: &mut Shard, word: usize) -> usize {
        let index = shard.free.pop().unwrap_or(shard.words.len());
        if index == shard.words.len() {
            shard.words.push(0);
        }
        self.store(shard, index, word);
        index
    }

    /// A handle on an object that this thread has just allocated.
    ///
    /// # Panics
    /// If the thread has gone outside since: the object may be gone. If the object's heap belongs
    /// to another runtime than the collector.
    pub fn create_fresh(self: &Arc<Self>, fresh: &Fresh<'_>) -> Handle {
        assert!(
            fresh.inside().is_unbroken(),
            "a fresh object is kept before its thread goes outside: the object may be gone by now"
        );
        assert_eq!(
            fresh.inside().runtime().id(),
            self.runtime,
            "a fresh object is kept by a handle of its own heap's collector"
        );
        self.create(fresh.address())
    }

    fn store(&self, shard: &mut Shard, index: usize, word: usize) {
        let overwritten = std::mem::replace(&mut shard.words[index], word);
        // Between cycles nothing is noted: the next one visits all handles, under this lock.
        if self.barrier.is_marking() {
            self.barrier.shade(word);
            self.barrier.shade_overwritten(overwritten);
        }
    }

    /// How many handles there are.
    pub fn live(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock())
            .map(|shard| shard.words.len() - shard.free.len())
            .sum()
    }

    /// Calls `visit` with the words of all handles.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&[usize])) {
        for shard in &self.shards {
            visit(&shard.lock().words);
        }
    }
}

impl Handle {
    /// The word that it holds.
    pub fn get(&self) -> usize {
        self.handles.shards[self.shard].lock().words[self.index]
    }

    /// Makes it hold another word. What [`Handles::create`] says of `word` holds here too.
    pub fn set(&self, word: usize) {
        self.handles.store(&mut self.handles.shards[self.shard].lock(), self.index, word);
    }
}

impl Clone for Handle {
    fn clone(&self) -> Handle {
        // Under one lock: once another thread has set this handle to another word, the object that
        // it held may be gone.
        let mut shard = self.handles.shards[self.shard].lock();
        let word = shard.words[self.index];
        let index = self.handles.add(&mut shard, word);
        Handle { handles: Arc::clone(&self.handles), shard: self.shard, index }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // With an insertion barrier a dropped word needs no shading. A goroutine that has loaded it
        // is scanned after this, or again, or stores it through the barrier.
        let mut shard = self.handles.shards[self.shard].lock();
        let dropped = std::mem::take(&mut shard.words[self.index]);
        shard.free.push(self.index);
        self.handles.barrier.shade_overwritten(dropped);
    }
}

#[cfg(all(test, stackmark_loom))]
mod models;

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use crate::write_barrier::{Kind, Sink};

    #[derive(Default)]
    struct Taken(Mutex<Vec<usize>>);

    impl Sink for Taken {
        fn is_unmarked(&self, _word: usize) -> bool {
            true
        }
        fn take(&self, words: Vec<usize>) {
            self.0.lock().extend(words);
        }
    }

    fn visited(handles: &Handles) -> Vec<usize> {
        let mut words = Vec::new();
        handles.visit(|shard| words.extend(shard.iter().filter(|word| **word != 0)));
        words.sort_unstable();
        words
    }

    #[test]
    fn what_handles_hold_is_visited_and_what_they_held_is_not() {
        let handles =
            Handles::new(WriteBarrier::new(Kind::Insertion, Arc::new(Taken::default())), 1);
        let mut held: Vec<Handle> = (1..=100).map(|word| handles.create(word)).collect();
        assert_eq!(visited(&handles), (1..=100).collect::<Vec<_>>());
        held.retain(|handle| handle.get() % 2 == 0);
        held[0].set(1000);
        let copy = held[1].clone();
        assert_eq!((copy.get(), handles.live()), (4, 51));
        drop(held);
        assert_eq!(visited(&handles), [4]);
        let slots: usize = handles.shards.iter().map(|shard| shard.lock().words.len()).sum();
        assert!(slots <= 102, "entries are used again");
    }

    #[test]
    fn handles_are_spread_over_the_shards() {
        let handles =
            Handles::new(WriteBarrier::new(Kind::Insertion, Arc::new(Taken::default())), 1);
        let _held: Vec<Handle> = (0..20 * SHARDS).map(|_| handles.create(1)).collect();
        assert!(handles.shards.iter().all(|shard| shard.lock().words.len() == 20));
    }

    #[test]
    fn stores_are_shaded_while_the_barrier_is_on() {
        let taken = Arc::new(Taken::default());
        let barrier = WriteBarrier::new(Kind::Insertion, taken.clone());
        let handles = Handles::new(Arc::clone(&barrier), 1);
        let handle = handles.create(1);
        barrier.turn_on();
        handle.set(2);
        let _other = handles.create(3);
        barrier.turn_off(true);
        handle.set(4);
        assert_eq!(*taken.0.lock(), [2, 3]);
    }
}
