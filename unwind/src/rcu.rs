//! A value that readers read without waiting and writers replace (read-copy-update).
//!
//! Readers count themselves in and out. A later writer frees a replaced value, once it has seen
//! each counter at zero since the replacement. Counting is all that a reader does: it uses no
//! thread-local state, no memory and no lock. So it may run in a signal handler, even in one that
//! interrupted a reader or a writer. (Crossbeam's epochs may not: a handler may interrupt the
//! pinning, and a reader may have to free memory.)

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Deref;

use crate::sync::{AtomicPtr, AtomicUsize, Ordering, fence, fence_behind_rmw};

/// Readers on different stacks mostly count in different places.
const STRIPES: usize = if cfg!(all(test, stackmark_loom)) { 1 } else { 8 };
/// Two counters a stripe take turns: one drains while new readers count in the other.
const COUNTERS: usize = 2 * STRIPES;

#[derive(Debug)]
#[repr(align(128))]
struct Counter(AtomicUsize);

/// The value, shared with readers.
#[derive(Debug)]
pub(crate) struct Rcu<T> {
    current: AtomicPtr<T>,
    readers: [Counter; COUNTERS],
    /// Its lowest bit says where new readers count.
    turn: AtomicUsize,
    _owned: PhantomData<T>,
}

/// Values that were replaced and may still be read. Its holder is the only writer.
///
/// A replacement takes the same time however many there are: a reader that stays makes them many.
#[derive(Debug)]
pub(crate) struct Retired<T> {
    /// In the order in which they were replaced.
    values: VecDeque<*mut T>,
    /// The counters not yet seen at zero since then, one bit each, and how many values in a row
    /// wait for these. What a value waits for, later ones wait for too. So the sets grow from group
    /// to group, and there are no more groups than counters and one.
    groups: Vec<(u32, usize)>,
}

// SAFETY: it owns the values. Readers of any thread see them by reference, and the holder frees
// them.
unsafe impl<T: Send + Sync> Send for Retired<T> {}

impl<T> Default for Retired<T> {
    fn default() -> Retired<T> {
        Retired { values: VecDeque::new(), groups: Vec::new() }
    }
}

impl<T> Rcu<T> {
    pub(crate) fn new(value: T) -> Rcu<T> {
        Rcu {
            current: AtomicPtr::new(Box::into_raw(Box::new(value))),
            readers: std::array::from_fn(|_| Counter(AtomicUsize::new(0))),
            turn: AtomicUsize::new(0),
            _owned: PhantomData,
        }
    }

    /// The current value. It stays as long as the result lives. Wait-free and signal-safe.
    #[inline]
    pub(crate) fn read(&self) -> RcuReader<'_, T> {
        let here = 0_u8;
        let page = (&raw const here as u64) >> 13;
        let stripe = (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        // Relaxed: where a reader counts matters to progress alone.
        let turn = self.turn.load(Ordering::Relaxed) & 1;
        let counter = &self.readers[2 * (stripe % STRIPES) + turn].0;
        // Relaxed: the fence orders it. Either the writer, which looks at the counters behind its
        // own fence, sees this reader, or this reader sees the writer's value below.
        counter.fetch_add(1, Ordering::Relaxed);
        fence_behind_rmw();
        // Acquire: pairs with the Release of `replace`, so that the value's contents are seen.
        let value = self.current.load(Ordering::Acquire);
        RcuReader { value, counter, _shared: PhantomData }
    }

    /// Replaces the value. Frees values replaced earlier that are no longer read.
    pub(crate) fn replace(&self, retired: &mut Retired<T>, value: T) {
        let value = Box::into_raw(Box::new(value));
        // AcqRel: Release publishes the value to `read`; Acquire orders what is freed below after
        // the writes of the writer that made it.
        let old = self.current.swap(value, Ordering::AcqRel);
        retired.values.push_back(old);
        retired.groups.push(((1 << COUNTERS) - 1, 1));
        // Relaxed: see `read`.
        self.turn.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `read`: a reader that counts itself in after the looks below
        // loads the new value.
        fence(Ordering::SeqCst);
        self.free_unread(retired);
    }

    fn free_unread(&self, retired: &mut Retired<T>) {
        let mut at_zero = 0;
        for (i, counter) in self.readers.iter().enumerate() {
            // Acquire: pairs with the Release of the readers' leaving: what they have read, they
            // read before it is freed.
            if counter.0.load(Ordering::Acquire) == 0 {
                at_zero |= 1 << i;
            }
        }
        retired.groups.iter_mut().for_each(|(unseen, _)| *unseen &= !at_zero);
        retired.groups.dedup_by(|later, group| {
            let equal = later.0 == group.0;
            group.1 += if equal { later.1 } else { 0 };
            equal
        });
        if let Some((0, count)) = retired.groups.first().copied() {
            retired.groups.remove(0);
            for value in retired.values.drain(..count) {
                // SAFETY: it came from a box and is in the list once. Each counter has been zero at
                // some time since it was replaced. Readers that counted before that have left, and
                // readers that came later saw a later value.
                drop(unsafe { Box::from_raw(value) });
            }
        }
    }
}

impl<T> Drop for Rcu<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` orders it after everything.
        let value = self.current.load(Ordering::Relaxed);
        // SAFETY: it came from a box; readers borrow `self`, so that none is left.
        drop(unsafe { Box::from_raw(value) });
    }
}

impl<T> Retired<T> {
    /// Frees all of them.
    ///
    /// # Safety
    ///
    /// No reader of the values' [`Rcu`] is left.
    pub(crate) unsafe fn free(&mut self) {
        self.groups.clear();
        for value in self.values.drain(..) {
            // SAFETY: it came from a box, is in the list once, and has no reader.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

/// A value that stays as long as this lives.
#[derive(Debug)]
pub(crate) struct RcuReader<'s, T> {
    value: *const T,
    counter: &'s AtomicUsize,
    _shared: PhantomData<&'s T>,
}

impl<T> Deref for RcuReader<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value was current after the counter had counted this reader, so that no
        // writer frees it before the counter is seen at zero, or before the `Rcu` that `'s`
        // borrows is gone.
        unsafe { &*self.value }
    }
}

impl<T> Drop for RcuReader<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `free_unread`.
        self.counter.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_value_lives_as_long_as_it_is_read() {
        let value = Arc::new(());
        let shared = Rcu::new(value.clone());
        let mut retired = Retired::default();
        let reading = shared.read();
        for _ in 0..5 {
            shared.replace(&mut retired, Arc::new(()));
        }
        assert_eq!(Arc::strong_count(&value), 2, "it is still being read");
        assert_eq!(Arc::strong_count(&reading), 2);
        // What later readers see does not keep it.
        let later = shared.read();
        drop(reading);
        shared.replace(&mut retired, Arc::new(()));
        shared.replace(&mut retired, Arc::new(()));
        assert_eq!(Arc::strong_count(&value), 1, "no longer read");
        drop(later);
        // SAFETY: all readers are gone.
        unsafe { retired.free() };
    }

    /// Readers on many stacks, so that they count in different places.
    #[test]
    fn values_that_wait_for_different_readers_are_in_few_groups() {
        let shared = Rcu::new(Arc::new(0));
        let mut retired = Retired::default();
        let mut replaced = Vec::new();
        let mut replace = |retired: &mut Retired<_>, n: usize| {
            let value = Arc::new(n);
            replaced.push(Arc::downgrade(&value));
            shared.replace(retired, value);
        };
        fn deep<R>(depth: usize, at: impl FnOnce() -> R) -> R {
            let space = [0_u8; 8192];
            std::hint::black_box(&space);
            if depth == 0 { at() } else { deep(depth - 1, at) }
        }
        let mut readers = Vec::new();
        for n in 1..400 {
            if n % 7 == 0 {
                readers.push(deep(n / 7, || shared.read()));
            }
            replace(&mut retired, n);
            assert!(retired.groups.len() <= COUNTERS + 1);
            let waiting: usize = retired.groups.iter().map(|group| group.1).sum();
            assert_eq!(waiting, retired.values.len());
        }
        assert!(retired.values.len() > 300, "the first reader keeps them");
        readers.iter().for_each(|reader| assert!(Arc::strong_count(reader) >= 1));
        drop(readers);
        replace(&mut retired, 400);
        replace(&mut retired, 401);
        assert!(retired.values.is_empty());
        assert_eq!(replaced.iter().filter(|value| value.strong_count() > 0).count(), 1);
    }
}

#[cfg(all(test, stackmark_loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Says when it is freed.
    struct Value(Arc<AtomicBool>);

    impl Drop for Value {
        fn drop(&mut self) {
            assert!(!self.0.swap(true, Ordering::Relaxed), "freed once");
        }
    }

    fn value() -> Value {
        Value(Arc::new(AtomicBool::new(false)))
    }

    /// Readers that come and go while a writer replaces `writes` times.
    fn model(readers: usize, reads: usize, writes: usize, bound: Option<usize>) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = bound;
        builder.check(move || {
            let shared = Arc::new(Rcu::new(value()));
            let threads: Vec<_> = (0..readers)
                .map(|_| {
                    let shared = shared.clone();
                    loom::thread::spawn(move || {
                        for _ in 0..reads {
                            let reading = shared.read();
                            assert!(!reading.0.load(Ordering::Relaxed), "read after it was freed");
                            loom::thread::yield_now();
                            assert!(!reading.0.load(Ordering::Relaxed), "freed while it was read");
                        }
                    })
                })
                .collect();
            let mut retired = Retired::default();
            for _ in 0..writes {
                shared.replace(&mut retired, value());
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            shared.replace(&mut retired, value());
            assert!(retired.values.is_empty(), "with no reader left, everything is freed");
        });
    }

    #[test]
    fn a_reader_never_sees_a_freed_table_while_code_comes_and_goes() {
        model(1, 2, 2, None);
    }

    #[test]
    fn two_readers_and_a_writer() {
        model(2, 1, 2, Some(2));
    }
}
