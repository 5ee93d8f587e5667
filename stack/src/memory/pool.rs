//! The pool of stacks: powers of two from 1 KiB, and reserved ranges for large stacks.
//!
//! *Small* stacks, up to 32 KiB, are cut from 256 KiB spans, as Go does. [`StackPool::trim`]
//! returns wholly free spans to the system; the collector calls it when no cycle runs. Each machine
//! keeps a few free small stacks, so that starting and ending goroutines rarely takes a lock.
//! *Medium* stacks, up to the move limit, are mapped one by one. A *reserved* stack is a range of
//! the maximum size, of which the part that has been in use is accessible. It grows and shrinks in
//! place. The rest takes no memory and no room in core files, and its lowest page is a guard.
//! What the system does not unmap is kept without its pages, and used again.
//!
//! Giving pages back takes the system time in proportion to their number: some 100 ns each. So no
//! lock is held over more than a [`PIECE`] of them: a stack that shrinks keeps its pages until
//! [`StackPool::give_piece_back`] has been called often enough.

use super::stack_memory::{MIN_STACK, Origin, StackError, StackMemory};
use crate::os::{self, Mapping};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The largest stack that is cut from a span.
const MAX_SMALL_STACK: usize = 32 << 10;
const SPAN_BYTES: usize = 256 << 10;
const ORDERS: usize = (MAX_SMALL_STACK / MIN_STACK).ilog2() as usize + 1;
/// The most bytes of free stacks of one size that a machine keeps for itself.
const CACHED_BYTES: usize = 64 << 10;
/// Bytes of pages that are given back to the system in one go.
const PIECE: usize = 256 << 10;
/// The most freed reserved ranges kept for reuse. Their pages are given back.
const KEPT_RANGES: usize = 16;
/// The most freed medium stacks of each size kept for reuse.
const KEPT_MEDIUM: usize = 8;

struct Span {
    order: usize,
    free: Vec<u32>,
}

#[derive(Default)]
struct Small {
    /// The spans by address. Each numbers its free stacks from its low end.
    spans: BTreeMap<usize, Span>,
    /// For each order, the spans that may have free stacks. Some of them may be full or gone.
    candidates: [Vec<usize>; ORDERS],
}

impl Small {
    /// Adds the span at `base`, all of whose stacks are free.
    fn add_span(&mut self, base: usize, order: usize) {
        let count = (SPAN_BYTES / (MIN_STACK << order)) as u32;
        self.spans.insert(base, Span { order, free: (0..count).rev().collect() });
        self.candidates[order].push(base);
    }
}

/// The free small stacks of one machine.
struct Cache {
    /// The pool that they belong to.
    pool: *const StackPool,
    free: [Vec<StackMemory>; ORDERS],
}

thread_local! {
    static CACHE: RefCell<Option<Cache>> = const { RefCell::new(None) };
}

/// Calls `f` with this thread's free stacks of `size`, if the thread has a cache for `pool`.
fn cached<R>(
    pool: &StackPool,
    size: usize,
    f: impl FnOnce(&mut Vec<StackMemory>) -> R,
) -> Option<R> {
    // A thread that ends may have dropped its cache already.
    let with = CACHE.try_with(|cache| {
        let mut cache = cache.borrow_mut();
        let cache = cache.as_mut().filter(|cache| ptr::eq(cache.pool, pool))?;
        Some(f(&mut cache.free[order(size)]))
    });
    with.ok().flatten()
}

impl Drop for Cache {
    fn drop(&mut self) {
        let free: Vec<_> = self.free.iter_mut().flat_map(std::mem::take).collect();
        // SAFETY: the thread is attached, or ends without being detached. Its
        // machine keeps the runtime alive.
        unsafe { &*self.pool }.give_small(free);
    }
}

fn order(size: usize) -> usize {
    (size / MIN_STACK).ilog2() as usize
}

/// All stack memory of a runtime.
pub(crate) struct StackPool {
    small: Mutex<Small>,
    medium: Mutex<BTreeMap<usize, Vec<usize>>>,
    /// Reserved ranges that no stack is in. Their pages have been given back.
    ranges: Mutex<Vec<usize>>,
    /// Bytes of a page.
    page: usize,
    range_bytes: usize,
    /// Bytes of stacks in use or pooled, and their maximum. Relaxed: statistics.
    resident: AtomicUsize,
    peak: AtomicUsize,
}

impl std::fmt::Debug for StackPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StackPool").field("resident", &self.resident).finish_non_exhaustive()
    }
}

fn map(bytes: usize, mapping: Mapping) -> Result<usize, StackError> {
    os::map(bytes, mapping).map_err(|error| StackError::out_of_memory(bytes, &error))
}

/// Unmaps a mapping that nothing uses any more. False if the system refuses. A process with as many
/// mappings as it may have cannot unmap what lies between two others: the system has merged all
/// three, and the rest would be two.
#[must_use = "the mapping may still be there"]
fn unmap(at: usize, bytes: usize) -> bool {
    // SAFETY: callers pass mappings of this pool that nothing uses any more.
    unsafe { os::unmap(at, bytes) }.is_ok()
}

/// Gives the pages wholly inside `lo..hi`, whose contents are dead, back to the system, in pieces.
/// Between two of them other threads may map and unmap.
fn give_back(lo: usize, hi: usize) {
    for start in (lo..hi).step_by(PIECE) {
        // SAFETY: callers pass dead parts of mappings of this pool. They begin at a page.
        unsafe { os::give_pages_back(first_piece(start..hi)) };
    }
}

/// The first [`PIECE`] bytes of a range, or all of it. A range of 32 bits may lie at their top.
fn first_piece(range: Range<usize>) -> Range<usize> {
    range.start..range.start.saturating_add(PIECE).min(range.end)
}

impl StackPool {
    /// A pool whose largest stacks have `max_stack` bytes.
    pub(crate) fn new(max_stack: usize) -> Self {
        StackPool {
            small: Mutex::default(),
            medium: Mutex::default(),
            ranges: Mutex::default(),
            page: os::page_size(),
            range_bytes: max_stack.next_multiple_of(os::page_size()) + os::page_size(),
            resident: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }
    }

    /// A stack of `size` bytes, a power of two, that does not grow in place.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`].
    pub(crate) fn take(&self, size: usize) -> Result<StackMemory, StackError> {
        debug_assert!(size.is_power_of_two() && size >= MIN_STACK);
        if size <= MAX_SMALL_STACK {
            if let Some(memory) = cached(self, size, Vec::pop).flatten() {
                return Ok(memory);
            }
            let mut small = self.small.lock();
            let memory = self.take_small(&mut small, size)?;
            // Fills half of the cache while the lock is held. A lack of
            // memory for that is no error.
            cached(self, size, |free| {
                while free.len() * size < CACHED_BYTES / 2 {
                    let Ok(memory) = self.take_small(&mut small, size) else { break };
                    free.push(memory);
                }
            });
            return Ok(memory);
        }
        let kept = self.medium.lock().get_mut(&size).and_then(Vec::pop);
        let lo = match kept {
            Some(lo) => lo,
            None => {
                let lo = map(size, Mapping::Memory)?;
                self.count(size);
                lo
            }
        };
        Ok(StackMemory { lo, hi: lo + size, origin: Origin::Medium })
    }

    fn take_small(&self, small: &mut Small, size: usize) -> Result<StackMemory, StackError> {
        let order = order(size);
        loop {
            let Some(&base) = small.candidates[order].last() else {
                let base = map(SPAN_BYTES, Mapping::Memory)?;
                self.count(SPAN_BYTES);
                small.add_span(base, order);
                continue;
            };
            let number = small
                .spans
                .get_mut(&base)
                .filter(|span| span.order == order)
                .and_then(|s| s.free.pop());
            match number {
                Some(number) => {
                    let lo = base + number as usize * size;
                    return Ok(StackMemory { lo, hi: lo + size, origin: Origin::Small });
                }
                None => {
                    small.candidates[order].pop();
                }
            }
        }
    }

    /// A stack in a reserved range of the maximum size, of which `size` bytes are in use. A guard
    /// page lies below the range.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`] where no range can be reserved.
    pub(crate) fn reserve(&self, size: usize) -> Result<StackMemory, StackError> {
        debug_assert!(size <= self.range_bytes - self.page);
        let kept = self.ranges.lock().pop();
        let at = match kept {
            Some(at) => at,
            None => map(self.range_bytes, Mapping::Reserved)?,
        };
        let hi = at + self.range_bytes;
        let lo = hi - size;
        if let Err(error) = self.open(lo..hi) {
            if !unmap(at, self.range_bytes) {
                self.ranges.lock().push(at);
            }
            return Err(error);
        }
        self.count(size);
        let origin = Origin::Reserved { base: at + self.page, touched: lo };
        Ok(StackMemory { lo, hi, origin })
    }

    /// Makes a part of a reserved range accessible.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`].
    fn open(&self, part: Range<usize>) -> Result<(), StackError> {
        let bytes = part.len();
        let pages = part.start / self.page * self.page..part.end.next_multiple_of(self.page);
        // SAFETY: the pages lie in a mapping of this pool. Some of them may be in use already.
        unsafe { os::make_accessible(pages) }
            .map_err(|error| StackError::out_of_memory(bytes, &error))
    }

    /// Grows or shrinks a reserved stack in place to `size` bytes. Takes no time that depends on
    /// the size: a stack that shrinks keeps its pages until [`StackPool::give_piece_back`] takes
    /// them.
    ///
    /// # Errors
    /// [`StackError::Overflow`] if the range has fewer bytes, [`StackError::OutOfMemory`]. The
    /// stack is as it was then.
    pub(crate) fn resize(&self, memory: &mut StackMemory, size: usize) -> Result<(), StackError> {
        let Origin::Reserved { base, touched } = &mut memory.origin else {
            unreachable!("only reserved stacks grow in place")
        };
        if size > memory.hi - *base {
            return Err(StackError::Overflow { limit: memory.hi - *base });
        }
        let lo = memory.hi - size;
        if lo < *touched {
            self.open(lo..*touched)?;
            self.count(*touched - lo);
            *touched = lo;
        }
        memory.lo = lo;
        Ok(())
    }

    /// Gives some of the pages back that the stack, which is in use, has kept when it shrank.
    /// Returns whether there are more.
    pub(crate) fn give_piece_back(&self, memory: &mut StackMemory) -> bool {
        let lo = memory.lo / self.page * self.page;
        let Origin::Reserved { touched, .. } = &mut memory.origin else { return false };
        let piece = first_piece(*touched..lo);
        if piece.is_empty() {
            return false;
        }
        give_back(piece.start, piece.end);
        self.resident.fetch_sub(piece.len(), Relaxed);
        *touched = piece.end;
        piece.end < lo
    }

    /// Takes a stack back.
    pub(crate) fn give(&self, memory: StackMemory) {
        let size = memory.size();
        match memory.origin {
            Origin::Small => {
                let mut surplus = vec![memory];
                cached(self, size, |free| {
                    free.append(&mut surplus);
                    if free.len() * size > CACHED_BYTES {
                        surplus = free.split_off(free.len() / 2);
                    }
                });
                if !surplus.is_empty() {
                    self.give_small(surplus);
                }
            }
            Origin::Medium => {
                let mut medium = self.medium.lock();
                let kept = medium.entry(size).or_default();
                if kept.len() < KEPT_MEDIUM {
                    kept.push(memory.lo);
                } else {
                    drop(medium);
                    if unmap(memory.lo, size) {
                        self.resident.fetch_sub(size, Relaxed);
                    } else {
                        give_back(memory.lo, memory.hi);
                        self.medium.lock().entry(size).or_default().push(memory.lo);
                    }
                }
            }
            Origin::Reserved { base, touched } => {
                give_back(touched, memory.hi);
                self.resident.fetch_sub(memory.hi - touched, Relaxed);
                let at = base - self.page;
                let is_kept = self.ranges.lock().len() < KEPT_RANGES;
                if is_kept || !unmap(at, self.range_bytes) {
                    self.ranges.lock().push(at);
                }
            }
        }
    }

    fn give_small(&self, stacks: Vec<StackMemory>) {
        let mut small = self.small.lock();
        let small = &mut *small;
        for memory in stacks {
            // The stack's span is the last one that begins at or below it.
            let (&base, span) =
                small.spans.range_mut(..=memory.lo).next_back().expect("a stack of a span");
            if span.free.is_empty() {
                small.candidates[span.order].push(base);
            }
            span.free.push(((memory.lo - base) / memory.size()) as u32);
        }
    }

    /// Gives this thread, which has no cache, a cache of its own. A thread that has come so far in
    /// its end that its thread-locals are gone goes on without one.
    pub(crate) fn open_cache(&self) {
        let cache = Cache { pool: self, free: Default::default() };
        let _ = CACHE.try_with(|own| own.replace(Some(cache)));
    }

    /// Takes this thread's cache back.
    pub(crate) fn close_cache(&self) {
        // A thread that ends may have given it back already.
        let _ = CACHE.try_with(RefCell::take);
    }

    /// Returns memory that no stack uses to the system. Called when no marking runs: while marking
    /// runs, freed stack memory is not used for anything else (Go's issue 11267).
    pub(crate) fn trim(&self) {
        // They are unmapped without a lock, for which a goroutine might wait.
        let mut spans = Vec::new();
        {
            let mut small = self.small.lock();
            let small = &mut *small;
            small.spans.retain(|&base, span| {
                let free = span.free.len() == SPAN_BYTES / (MIN_STACK << span.order);
                if free {
                    spans.push((base, span.order));
                }
                !free
            });
            for order in 0..ORDERS {
                let spans = &small.spans;
                small.candidates[order]
                    .retain(|base| spans.get(base).is_some_and(|s| s.order == order));
            }
        }
        for (base, order) in spans {
            if unmap(base, SPAN_BYTES) {
                self.resident.fetch_sub(SPAN_BYTES, Relaxed);
            } else {
                give_back(base, base + SPAN_BYTES);
                self.small.lock().add_span(base, order);
            }
        }
        let mut medium = Vec::new();
        for (&size, kept) in self.medium.lock().iter_mut() {
            medium.extend(kept.drain(..).map(|lo| (lo, size)));
        }
        for (lo, size) in medium {
            if unmap(lo, size) {
                self.resident.fetch_sub(size, Relaxed);
            } else {
                self.medium.lock().entry(size).or_default().push(lo);
            }
        }
    }

    /// Bytes of stacks in use or pooled. Of a reserved stack only the part in use counts.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.resident.load(Relaxed)
    }

    /// The maximum of [`StackPool::resident_bytes`] so far.
    pub(crate) fn resident_peak_bytes(&self) -> usize {
        self.peak.load(Relaxed)
    }

    fn count(&self, bytes: usize) {
        let now = self.resident.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(now, Relaxed);
    }
}

impl Drop for StackPool {
    fn drop(&mut self) {
        // What the system does not take stays mapped: the pool that had it is gone.
        for &base in self.small.get_mut().spans.keys() {
            let _ = unmap(base, SPAN_BYTES);
        }
        for (&size, kept) in self.medium.get_mut().iter() {
            kept.iter().for_each(|&lo| _ = unmap(lo, size));
        }
        for &at in self.ranges.get_mut().iter() {
            let _ = unmap(at, self.range_bytes);
        }
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests;
