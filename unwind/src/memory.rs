//! The memory that a walk reads: live memory, or a snapshot of it. Only this file reads through raw
//! addresses.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::{self, WORD};
use crate::os;

/// Memory that a walk reads, a word at a time.
pub trait Memory {
    /// The word at `address`, or `None` if it does not lie wholly within this memory or is not
    /// aligned.
    fn read(&self, address: usize) -> Option<usize>;

    /// The word at `address` and the one above it, as [`read`](Memory::read) would.
    #[inline]
    fn read_two(&self, address: usize) -> Option<[usize; 2]> {
        Some([self.read(address)?, self.read(address.wrapping_add(WORD))?])
    }

    /// A hint that the word at `address` may soon be read. Any address is allowed.
    #[inline]
    fn prefetch(&self, _address: usize) {}

    /// The eight bytes of code at `address`, or `None` if they cannot be read. A walk asks for them
    /// where no CFI describes a pc, to know the end of a signal handler by them, or a stub of the
    /// procedure linkage table.
    fn read_code(&self, address: usize) -> Option<u64> {
        let before = address % WORD;
        let mut bits = 0_u128;
        for at in (0..before + size_of::<u64>()).step_by(WORD) {
            let word = self.read((address - before).wrapping_add(at))?;
            bits |= (word as u128) << (8 * at);
        }
        Some((bits >> (8 * before)) as u64)
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    #[inline]
    fn read(&self, address: usize) -> Option<usize> {
        (**self).read(address)
    }

    #[inline]
    fn read_two(&self, address: usize) -> Option<[usize; 2]> {
        (**self).read_two(address)
    }

    #[inline]
    fn prefetch(&self, address: usize) {
        (**self).prefetch(address);
    }

    fn read_code(&self, address: usize) -> Option<u64> {
        (**self).read_code(address)
    }
}

/// Memory of this process within fixed bounds, such as a thread's stack.
#[derive(Clone, Debug)]
pub struct LiveMemory {
    start: usize,
    words: usize,
}

impl LiveMemory {
    /// Memory at `range`, its ends rounded inwards to words.
    ///
    /// # Safety
    ///
    /// All of `range` stays mapped and readable for as long as this value and its clones are in
    /// use. Other threads may write to it meanwhile. A read then yields some value, and a walk at
    /// worst an error or a wrong frame; it never reads outside of `range`.
    pub unsafe fn new(range: Range<usize>) -> LiveMemory {
        let start = range.start.checked_next_multiple_of(WORD).unwrap_or(range.end);
        LiveMemory { start, words: range.end.saturating_sub(start) / WORD }
    }

    /// The bounds within which it reads.
    pub fn bounds(&self) -> Range<usize> {
        self.start..self.start + self.words * WORD
    }

    /// The number of words from the start to the address. An address that is unaligned or below the
    /// start gets a number beyond all words.
    #[inline]
    fn index(&self, address: usize) -> usize {
        const { assert!(WORD.is_power_of_two()) };
        // The lowest bits become the highest.
        address.wrapping_sub(self.start).rotate_right(WORD.trailing_zeros())
    }

    /// # Safety
    ///
    /// `address` is aligned and lies within the bounds.
    #[inline]
    unsafe fn load(&self, address: usize) -> usize {
        // SAFETY: within the bounds, which are whole words and, as `new` requires, mapped. The
        // access is atomic because the stack's own thread may write other words of it at the same
        // time.
        let word = unsafe { AtomicUsize::from_ptr(address as *mut usize) };
        // Relaxed: the stop of the thread ordered the words of its frames before this walk. One
        // kind of word may change meanwhile, on the walking thread's own stack: a return address,
        // to a barrier's stub. What that publishes is found at an address made of the word, by
        // `ReturnAddresses`, and processors keep such loads in order.
        word.load(Ordering::Relaxed)
    }
}

impl Memory for LiveMemory {
    #[inline]
    fn read(&self, address: usize) -> Option<usize> {
        // SAFETY: the test says that the word is aligned and lies within the bounds.
        (self.index(address) < self.words).then(|| unsafe { self.load(address) })
    }

    #[inline]
    fn read_two(&self, address: usize) -> Option<[usize; 2]> {
        // SAFETY: by the test the second word, too, lies within the bounds.
        (self.index(address) < self.words.saturating_sub(1))
            .then(|| unsafe { [self.load(address), self.load(address + WORD)] })
    }

    #[inline]
    fn prefetch(&self, address: usize) {
        arch::prefetch(address);
    }

    fn read_code(&self, address: usize) -> Option<u64> {
        os::read_code(address)
    }
}

/// Several memories as one, for a trace over several stacks. The first that holds a word answers.
impl<M: Memory, const N: usize> Memory for [M; N] {
    #[inline]
    fn read(&self, address: usize) -> Option<usize> {
        self.iter().find_map(|memory| memory.read(address))
    }

    #[inline]
    fn prefetch(&self, address: usize) {
        if let Some(memory) = self.first() {
            memory.prefetch(address);
        }
    }

    fn read_code(&self, address: usize) -> Option<u64> {
        self.iter().find_map(|memory| memory.read_code(address))
    }
}

/// A copy of stack memory, as in a core file or a test: `words[0]` stood at address `start`.
#[derive(Clone, Debug)]
pub struct MemorySnapshot {
    /// The address of the first word.
    pub start: usize,
    /// The words, upwards from there.
    pub words: Vec<usize>,
}

impl MemorySnapshot {
    /// The addresses that it holds.
    pub fn bounds(&self) -> Range<usize> {
        self.start..self.start.saturating_add(self.words.len() * WORD)
    }
}

impl Memory for MemorySnapshot {
    #[inline]
    fn read(&self, address: usize) -> Option<usize> {
        let offset = address.checked_sub(self.start)?;
        if offset % WORD != 0 {
            return None;
        }
        self.words.get(offset / WORD).copied()
    }
}
