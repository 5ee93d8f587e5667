//! Caches for signal handlers: a fixed number of them, taken and given back without a lock.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::rule_cache::RuleCache;
use crate::sync::{AtomicUsize, Ordering};

const FREE: usize = 0;
const TAKEN: usize = 1;

/// Values, of which each is with one holder at most.
struct Pool<T> {
    places: Box<[Place<T>]>,
}

struct Place<T> {
    state: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: a value is reached only by the one holder that has turned its place from free to taken.
unsafe impl<T: Send> Sync for Pool<T> {}

impl<T> Pool<T> {
    fn new(values: impl Iterator<Item = T>) -> Pool<T> {
        let place = |value| Place { state: AtomicUsize::new(FREE), value: UnsafeCell::new(value) };
        Pool { places: values.map(place).collect() }
    }

    /// A free value; the search begins at place `first`.
    fn take(&self, first: usize) -> Option<Taken<'_, T>> {
        let count = self.places.len();
        let mut places = (0..count).map(|i| &self.places[(first % count + i) % count]);
        // Acquire: pairs with the Release of the holder before, so that what it did to the value is
        // seen. Relaxed for a place that is taken: nothing of it is looked at.
        let is_free = |place: &&Place<T>| {
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            place.state.compare_exchange(FREE, TAKEN, success, failure).is_ok()
        };
        let place = places.find(is_free)?;
        Some(Taken { place })
    }
}

/// A value, until it is given back by a drop.
struct Taken<'p, T> {
    place: &'p Place<T>,
}

// SAFETY: it is a unique reference to the value.
unsafe impl<T: Send> Send for Taken<'_, T> {}
// SAFETY: shared, it gives shared references to the value.
unsafe impl<T: Send + Sync> Sync for Taken<'_, T> {}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this holder alone has the value, and it is borrowed with the holder.
        unsafe { &*self.place.value.get() }
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; the holder is borrowed for itself alone.
        unsafe { &mut *self.place.value.get() }
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire of the next holder.
        self.place.state.store(FREE, Ordering::Release);
    }
}

/// A fixed number of [fixed](RuleCache::fixed) caches, for the traces of signal handlers in any
/// number of threads. Taking one and giving it back needs no lock, no memory and no thread-local
/// variable. A handler that interrupts another one gets a cache of its own.
///
/// ```
/// use stackmark_unwind::RuleCachePool;
///
/// let pool = RuleCachePool::new(2, 1000);
/// let one = pool.take().unwrap();
/// let _other = pool.take().unwrap();
/// assert!(pool.take().is_none());
/// drop(one);
/// assert!(pool.take().is_some());
/// ```
pub struct RuleCachePool(Pool<RuleCache>);

impl RuleCachePool {
    /// `caches` of them, each for `pcs` pcs.
    pub fn new(caches: usize, pcs: usize) -> RuleCachePool {
        RuleCachePool(Pool::new((0..caches).map(|_| RuleCache::fixed(pcs))))
    }

    /// A free cache; `None` if all are taken. Wait-free, and safe in signal handlers. A thread
    /// mostly gets the cache that it had before, which knows its code.
    pub fn take(&self) -> Option<PooledCache<'_>> {
        let here = 0_u8;
        // Threads have their stacks apart, and a thread's handlers run on one or two pages of them.
        let page = (&raw const here as u64) >> 16;
        let hash = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.0.take(hash as usize).map(PooledCache)
    }
}

impl fmt::Debug for RuleCachePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleCachePool").field("caches", &self.0.places.len()).finish()
    }
}

/// A cache of a [`RuleCachePool`], given back when this is dropped.
pub struct PooledCache<'p>(Taken<'p, RuleCache>);

impl Deref for PooledCache<'_> {
    type Target = RuleCache;

    fn deref(&self) -> &RuleCache {
        &self.0
    }
}

impl DerefMut for PooledCache<'_> {
    fn deref_mut(&mut self) -> &mut RuleCache {
        &mut self.0
    }
}

impl fmt::Debug for PooledCache<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledCache").field("pcs", &self.len()).finish()
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_with_one_holder_at_most() {
        let pool = Pool::new(0..3);
        for first in [0, 1, 2, 7, usize::MAX] {
            let mut taken: Vec<_> = (0..3).map(|_| pool.take(first).expect("free")).collect();
            let mut values: Vec<i32> = taken.iter().map(|taken| **taken).collect();
            values.sort_unstable();
            assert_eq!(values, [0, 1, 2]);
            assert!(pool.take(first).is_none());
            let value = *taken.swap_remove(1);
            assert_eq!(*pool.take(first).expect("given back"), value);
        }
        assert!(Pool::<u8>::new(std::iter::empty()).take(5).is_none());
    }
}

#[cfg(all(test, stackmark_loom))]
mod loom_models {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    use super::*;

    /// Threads that take and give back one value. loom's cell notices a holder that does not see
    /// what the one before has done, and two at a time.
    #[test]
    fn a_holder_is_alone_and_sees_what_the_last_one_did() {
        loom::model(|| {
            let pool = Arc::new(Pool::new(std::iter::once(UnsafeCell::new(0))));
            let turn = |pool: &Pool<UnsafeCell<usize>>| {
                let Some(taken) = pool.take(0) else { return 0 };
                // SAFETY: this holder alone has the value, which is what the model shows.
                taken.with_mut(|value| unsafe { *value += 1 });
                1
            };
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let pool = pool.clone();
                    loom::thread::spawn(move || turn(&pool) + turn(&pool))
                })
                .collect();
            let turns: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            let taken = pool.take(0).expect("given back");
            // SAFETY: as above.
            assert_eq!(taken.with(|value| unsafe { *value }), turns);
            assert!(turns >= 2, "a thread that finds it taken leaves it to the other");
        });
    }
}
