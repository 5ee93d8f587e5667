//! Where a walk reads: live stack memory, or a snapshot of it. The only place that reads through
//! raw addresses.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::rule::WORD;

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

    /// Says that the word at `address` may soon be read; any address will do.
    #[inline]
    fn prefetch(&self, _address: usize) {}
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
}

/// The word, of which the compiler then knows nothing: neither that it equals another, nor which.
/// For a computation behind a branch that is to stay there, since the processor does not wait for
/// what it has predicted.
#[inline(always)]
pub(crate) fn opaque(mut word: usize) -> usize {
    // SAFETY: no instruction.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) word, options(nomem, nostack, preserves_flags))
    };
    word
}

/// Memory of this process within fixed bounds.
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
    /// The whole of `range` stays mapped and readable for as long as this value and its clones are
    /// in use. Other threads may write to it meanwhile, by whole words or not: a read then yields
    /// some value, and a walk at worst an error or a wrong frame, but no read outside of `range`.
    pub unsafe fn new(range: Range<usize>) -> LiveMemory {
        let start = range.start.checked_next_multiple_of(WORD).unwrap_or(range.end);
        LiveMemory { start, words: range.end.saturating_sub(start) / WORD }
    }

    /// The bounds within which it reads.
    pub fn bounds(&self) -> Range<usize> {
        self.start..self.start + self.words * WORD
    }

    /// How many words above the start the address lies; beyond all of them if it is not aligned or
    /// below the start.
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
        // Relaxed: what the words of a stopped or frozen frame hold was ordered before this walk by
        // whatever stopped it; nothing is published through the stack itself.
        word.load(Ordering::Relaxed)
    }
}

impl Memory for LiveMemory {
    #[inline]
    fn read(&self, address: usize) -> Option<usize> {
        // SAFETY: by the test.
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
        // SAFETY: a prefetch reads nothing and faults at no address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                address as *const i8,
            )
        };
    }
}

/// Several memories as one: the stacks that a trace goes through. The first that holds a word
/// answers.
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
