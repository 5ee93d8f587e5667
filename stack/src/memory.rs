//! Stack memory: pooled powers of two from 2 KiB, and reserved ranges for large stacks.
//!
//! Small stacks (up to 32 KiB) are cut from 256 KiB spans, as Go does; a span that is wholly free
//! is returned to the system by [`StackPool::trim`], which the collector calls when no cycle runs.
//! Each machine keeps a few free ones for itself, so that starting and ending goroutines takes no
//! lock. Stacks from there to the threshold are mapped one by one. A large stack is a reserved
//! range of the maximum size whose pages appear when they are touched: it grows and shrinks in
//! place.

use crate::{MAX_SMALL_STACK, MIN_STACK};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const SPAN_BYTES: usize = 256 << 10;
const ORDERS: usize = (MAX_SMALL_STACK / MIN_STACK).ilog2() as usize + 1;
const PAGE: usize = 4096;
/// Bytes of free stacks of one size that a machine keeps for itself.
const CACHED_BYTES: usize = 64 << 10;
/// Freed reserved ranges that are kept for reuse, their pages given back.
const KEPT_RANGES: usize = 16;
/// Freed medium stacks of each size that are kept for reuse.
const KEPT_MEDIUM: usize = 8;

/// Why there is no stack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// The system gave no memory.
    #[error("no memory for a stack of {bytes} bytes: {reason}")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
        /// The system's words.
        reason: String,
    },
    /// The stack would exceed its maximum.
    #[error("goroutine stack exceeds {limit}-byte limit")]
    Overflow {
        /// The configured maximum, in bytes.
        limit: usize,
    },
}

/// What a goroutine's stack may do, decided when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StackKind {
    /// Starts small, moves. For managed code that keeps contracts C1 to C3.
    #[default]
    Moving,
    /// Stays in one place: a reserved range of the maximum size, grown and shrunk in place. Exact,
    /// with barriers. For managed code that keeps C1 and C3 but lets addresses of its own frames
    /// live where no stack map names them, as LLVM's does.
    Fixed,
}

/// Where a stack's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A piece of a span.
    Small,
    /// A mapping of its own.
    Medium,
    /// A reserved range, of which the upper part is in use. `base` is its lowest address, above the
    /// guard page.
    Reserved {
        /// The lowest usable address of the range.
        base: usize,
    },
}

/// The memory of one stack. Owned: whoever has it must give it back to its pool.
#[derive(Debug, PartialEq, Eq)]
pub struct StackMemory {
    /// Lowest address in use.
    pub lo: usize,
    /// One past the highest address.
    pub hi: usize,
    /// Where it comes from.
    pub origin: Origin,
}

impl StackMemory {
    /// Bytes in use.
    pub fn size(&self) -> usize {
        self.hi - self.lo
    }
}

struct Span {
    order: usize,
    free: Vec<u32>,
}

#[derive(Default)]
struct Small {
    /// Spans by address; the free stacks of each as numbers within it.
    spans: BTreeMap<usize, Span>,
    /// For each order the spans that may have free stacks. May name spans that are full or gone.
    candidates: [Vec<usize>; ORDERS],
}

/// The free small stacks of one machine.
struct Cache {
    /// Whose stacks they are.
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
    // A thread that ends has no cache any more.
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
        // SAFETY: the thread is attached, or ends without having been detached: its machine keeps
        // the runtime.
        unsafe { &*self.pool }.give_small(free);
    }
}

fn order(size: usize) -> usize {
    (size / MIN_STACK).ilog2() as usize
}

/// All stack memory of a runtime.
pub struct StackPool {
    small: Mutex<Small>,
    medium: Mutex<BTreeMap<usize, Vec<usize>>>,
    ranges: Mutex<Vec<usize>>,
    range_bytes: usize,
    /// Statistics, relaxed: bytes of stacks in use or pooled, and their maximum.
    resident: AtomicUsize,
    peak: AtomicUsize,
}

impl std::fmt::Debug for StackPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StackPool").field("resident", &self.resident).finish_non_exhaustive()
    }
}

fn map(bytes: usize, reserve_only: bool) -> Result<usize, StackError> {
    let flags = libc::MAP_PRIVATE
        | libc::MAP_ANONYMOUS
        | if reserve_only { libc::MAP_NORESERVE } else { 0 };
    // SAFETY: a fresh anonymous mapping touches no existing memory.
    let at = unsafe {
        libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if at == libc::MAP_FAILED {
        return Err(StackError::OutOfMemory {
            bytes,
            reason: std::io::Error::last_os_error().to_string(),
        });
    }
    Ok(at as usize)
}

fn unmap(at: usize, bytes: usize) {
    // SAFETY: callers pass mappings of this pool that nobody uses any more.
    let result = unsafe { libc::munmap(at as *mut libc::c_void, bytes) };
    assert_eq!(result, 0, "unmapping our own mapping: {}", std::io::Error::last_os_error());
}

/// Gives the pages wholly inside `lo..hi` back to the system; they read as zero afterwards.
fn give_back(lo: usize, hi: usize) {
    let (lo, hi) = (lo.next_multiple_of(PAGE), hi / PAGE * PAGE);
    if lo < hi {
        // SAFETY: the range is inside a mapping of this pool, and its contents are dead. A failure
        // costs only memory.
        unsafe { libc::madvise(lo as *mut libc::c_void, hi - lo, libc::MADV_DONTNEED) };
    }
}

impl StackPool {
    /// A pool whose largest stacks have `max_stack` bytes.
    pub fn new(max_stack: usize) -> Self {
        StackPool {
            small: Mutex::default(),
            medium: Mutex::default(),
            ranges: Mutex::default(),
            range_bytes: max_stack.next_multiple_of(PAGE) + PAGE,
            resident: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }
    }

    /// A stack of `size` bytes, a power of two, that does not grow in place.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`].
    pub fn take(&self, size: usize) -> Result<StackMemory, StackError> {
        debug_assert!(size.is_power_of_two() && size >= MIN_STACK);
        if size <= MAX_SMALL_STACK {
            if let Some(memory) = cached(self, size, Vec::pop).flatten() {
                return Ok(memory);
            }
            let mut small = self.small.lock();
            let memory = self.take_small(&mut small, size)?;
            // Half a cache more, while we have the lock. That there is no memory for it is no error
            // yet.
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
                let lo = map(size, false)?;
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
                let base = map(SPAN_BYTES, false)?;
                self.count(SPAN_BYTES);
                let count = (SPAN_BYTES / size) as u32;
                small.spans.insert(base, Span { order, free: (0..count).rev().collect() });
                small.candidates[order].push(base);
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

    /// A stack in a reserved range of the maximum size, with a guard page below it, of which `size`
    /// bytes are in use.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`] where no range can be reserved.
    pub fn reserve(&self, size: usize) -> Result<StackMemory, StackError> {
        debug_assert!(size <= self.range_bytes - PAGE);
        let kept = self.ranges.lock().pop();
        let at = match kept {
            Some(at) => at,
            None => {
                let at = map(self.range_bytes, true)?;
                // SAFETY: the first page of our own fresh mapping.
                let guarded =
                    unsafe { libc::mprotect(at as *mut libc::c_void, PAGE, libc::PROT_NONE) };
                if guarded != 0 {
                    let reason = std::io::Error::last_os_error().to_string();
                    unmap(at, self.range_bytes);
                    return Err(StackError::OutOfMemory { bytes: self.range_bytes, reason });
                }
                at
            }
        };
        self.count(size);
        let hi = at + self.range_bytes;
        Ok(StackMemory { lo: hi - size, hi, origin: Origin::Reserved { base: at + PAGE } })
    }

    /// Grows or shrinks a reserved stack in place to `size` bytes.
    ///
    /// # Errors
    /// [`StackError::Overflow`] if the range has not so many bytes.
    pub fn resize(&self, memory: &mut StackMemory, size: usize) -> Result<(), StackError> {
        let Origin::Reserved { base } = memory.origin else {
            unreachable!("only reserved stacks grow in place")
        };
        if size > memory.hi - base {
            return Err(StackError::Overflow { limit: memory.hi - base });
        }
        let lo = memory.hi - size;
        if lo < memory.lo {
            self.count(memory.lo - lo);
        } else {
            give_back(memory.lo, lo);
            self.resident.fetch_sub(lo - memory.lo, Relaxed);
        }
        memory.lo = lo;
        Ok(())
    }

    /// Takes a stack back.
    pub fn give(&self, memory: StackMemory) {
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
                    self.resident.fetch_sub(size, Relaxed);
                    unmap(memory.lo, size);
                }
            }
            Origin::Reserved { base } => {
                give_back(memory.lo, memory.hi);
                self.resident.fetch_sub(size, Relaxed);
                let mut ranges = self.ranges.lock();
                if ranges.len() < KEPT_RANGES {
                    ranges.push(base - PAGE);
                } else {
                    drop(ranges);
                    unmap(base - PAGE, self.range_bytes);
                }
            }
        }
    }

    fn give_small(&self, stacks: Vec<StackMemory>) {
        let mut small = self.small.lock();
        let small = &mut *small;
        for memory in stacks {
            // The span that contains the stack is the last that begins at or below it.
            let (&base, span) =
                small.spans.range_mut(..=memory.lo).next_back().expect("a stack of a span");
            if span.free.is_empty() {
                small.candidates[span.order].push(base);
            }
            span.free.push(((memory.lo - base) / memory.size()) as u32);
        }
    }

    /// Gives this thread a cache of its own; it has none.
    pub(crate) fn open_cache(&self) {
        CACHE.set(Some(Cache { pool: self, free: Default::default() }));
    }

    /// Takes this thread's cache back.
    pub(crate) fn close_cache(&self) {
        // A thread that ends has given it back already.
        let _ = CACHE.try_with(RefCell::take);
    }

    /// Returns memory that no stack uses to the system. Called when no marking runs: until then
    /// stack memory is not used for anything else (Go's issue 11267).
    pub fn trim(&self) {
        let mut small = self.small.lock();
        let small = &mut *small;
        small.spans.retain(|&base, span| {
            let size = MIN_STACK << span.order;
            let free = span.free.len() == SPAN_BYTES / size;
            if free {
                self.resident.fetch_sub(SPAN_BYTES, Relaxed);
                unmap(base, SPAN_BYTES);
            }
            !free
        });
        for order in 0..ORDERS {
            let spans = &small.spans;
            small.candidates[order]
                .retain(|base| spans.get(base).is_some_and(|s| s.order == order));
        }
        for (&size, kept) in self.medium.lock().iter_mut() {
            for lo in kept.drain(..) {
                self.resident.fetch_sub(size, Relaxed);
                unmap(lo, size);
            }
        }
    }

    /// Bytes of stacks in use or pooled; for reserved stacks the part in use.
    pub fn resident_bytes(&self) -> usize {
        self.resident.load(Relaxed)
    }

    /// The largest that [`StackPool::resident_bytes`] has been.
    pub fn resident_peak_bytes(&self) -> usize {
        self.peak.load(Relaxed)
    }

    fn count(&self, bytes: usize) {
        let now = self.resident.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(now, Relaxed);
    }
}

impl Drop for StackPool {
    fn drop(&mut self) {
        for &base in self.small.get_mut().spans.keys() {
            unmap(base, SPAN_BYTES);
        }
        for (&size, kept) in self.medium.get_mut().iter() {
            kept.iter().for_each(|&lo| unmap(lo, size));
        }
        for &at in self.ranges.get_mut().iter() {
            unmap(at, self.range_bytes);
        }
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    const MAX: usize = 1 << 30;

    #[test]
    fn stacks_of_a_span_do_not_overlap_and_come_back() {
        let pool = StackPool::new(MAX);
        let mut taken: Vec<StackMemory> =
            (0..600).map(|i| pool.take(MIN_STACK << (i % ORDERS)).expect("memory")).collect();
        let mut ranges: Vec<_> = taken.iter().map(|m| (m.lo, m.hi)).collect();
        ranges.sort();
        assert!(ranges.windows(2).all(|w| w[0].1 <= w[1].0));
        let resident = pool.resident_bytes();
        taken.drain(..).for_each(|m| pool.give(m));
        assert_eq!(pool.resident_bytes(), resident, "pooled memory is still resident");
        let again = pool.take(MIN_STACK).expect("memory");
        assert_eq!(pool.resident_bytes(), resident, "pooled memory is used again");
        pool.give(again);
        pool.trim();
        assert_eq!(pool.resident_bytes(), 0);
        assert_eq!(pool.resident_peak_bytes(), resident);
        let fresh = pool.take(MIN_STACK).expect("memory");
        pool.give(fresh);
    }

    #[test]
    fn a_reserved_stack_grows_and_shrinks_in_place_and_gives_its_pages_back() {
        let pool = StackPool::new(MAX);
        let mut m = pool.reserve(512 << 10).expect("a range");
        let hi = m.hi;
        pool.resize(&mut m, 64 << 20).expect("room");
        assert_eq!((m.hi, m.size()), (hi, 64 << 20));
        // SAFETY: the whole stack in use is writable memory of ours.
        unsafe { ptr::write_bytes(m.lo as *mut u8, 0xaa, m.size()) };
        pool.resize(&mut m, 1 << 20).expect("room");
        assert_eq!(pool.resident_bytes(), 1 << 20);
        pool.resize(&mut m, 64 << 20).expect("room");
        // SAFETY: as above.
        assert_eq!(unsafe { *(m.lo as *const u64) }, 0, "the pages were given back");
        assert_eq!(pool.resize(&mut m, MAX + 1), Err(StackError::Overflow { limit: MAX }));
        pool.give(m);
        assert_eq!(pool.resident_bytes(), 0);
    }
}
