//! A word that native code hands to a goroutine.

/// A word that native code hands to a goroutine, and whether it is a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Not a reference: the write barrier skips it.
    Plain(usize),
    /// A reference, or a word that may be one.
    Reference(usize),
}

impl Word {
    /// The word itself.
    pub fn bits(self) -> usize {
        match self {
            Word::Plain(bits) | Word::Reference(bits) => bits,
        }
    }

    /// The word, if it may be a reference.
    pub fn reference(self) -> Option<usize> {
        match self {
            Word::Plain(_) => None,
            Word::Reference(bits) => Some(bits),
        }
    }
}
