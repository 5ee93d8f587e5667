//! A word that native code hands to a goroutine.

use std::sync::atomic::{AtomicU8, Ordering};

/// A word that native code hands to a goroutine, and whether it is a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Not a reference: the write barrier skips it.
    Plain(usize),
    /// A reference, or 0. A collector that moves the object writes its new address here.
    Reference(usize),
    /// A reference, an integer, or an address outside the heap. The object that it refers to stays
    /// alive, and where it is: see [`RootSlot::Ambiguous`](crate::RootSlot::Ambiguous).
    Ambiguous(usize),
}

impl Word {
    /// The word itself.
    pub fn bits(self) -> usize {
        match self {
            Word::Plain(bits) | Word::Reference(bits) | Word::Ambiguous(bits) => bits,
        }
    }

    /// The word, if it may be a reference.
    pub fn reference(self) -> Option<usize> {
        match self {
            Word::Plain(_) => None,
            Word::Reference(bits) | Word::Ambiguous(bits) => Some(bits),
        }
    }
}

impl From<usize> for Word {
    /// A word of which it is not said what it is.
    fn from(bits: usize) -> Word {
        Word::Ambiguous(bits)
    }
}

/// What a word of a goroutine's header is, which stands apart from it: managed code reads the bits.
#[derive(Debug, Default)]
pub(crate) struct WordKind(AtomicU8);

impl WordKind {
    /// Says what the word is that is stored next.
    #[inline]
    pub(crate) fn set(&self, word: Word) {
        let kind = match word {
            Word::Plain(_) => 0,
            Word::Reference(_) => 1,
            Word::Ambiguous(_) => 2,
        };
        // Relaxed: the store of the word comes next, with Release.
        self.0.store(kind, Ordering::Relaxed);
    }

    /// The word with these bits. Read after the bits, with Acquire.
    pub(crate) fn of(&self, bits: usize) -> Word {
        match self.0.load(Ordering::Relaxed) {
            0 => Word::Plain(bits),
            1 => Word::Reference(bits),
            _ => Word::Ambiguous(bits),
        }
    }
}
