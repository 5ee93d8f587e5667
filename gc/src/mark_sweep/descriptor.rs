//! Descriptors: where in an object references may lie.

/// Where references may lie in objects of one type: in no word, or by a pattern of words that
/// repeats to the object's end. In a struct the pattern occurs once, in an array it repeats.
/// Padding at the end of an object's cell is zero, so it is harmless to look for references there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// Words after which the pattern repeats; 0 when there are no references.
    period: usize,
    /// The words below `period` that may hold references: ascending, each once.
    references: Vec<u32>,
}

/// Names a registered [`Descriptor`] in its heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DescriptorId(pub(super) u32);

impl DescriptorId {
    /// The id as a number, for a compiler that passes it to a native function.
    pub const fn index(self) -> u32 {
        self.0
    }

    /// The id whose [`index`](DescriptorId::index) is `index`. An id that the heap has not given
    /// out is refused when it is used.
    pub const fn from_index(index: u32) -> DescriptorId {
        DescriptorId(index)
    }
}

/// Why a heap does not take a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// A reference would lie beyond the pattern.
    #[error("descriptor: word {word} lies outside its pattern of {words} words")]
    OutsidePattern {
        /// The word.
        word: usize,
        /// The pattern's length in words.
        words: usize,
    },
    /// The pattern is longer than any object may be.
    #[error(
        "descriptor: a pattern of {words} words is longer than the longest that is supported, \
         {limit}"
    )]
    TooLong {
        /// The pattern's length in words.
        words: usize,
        /// The longest supported, in words.
        limit: usize,
    },
    /// The heap has no room for another descriptor.
    #[error("descriptor: the heap has {limit} different ones already, its maximum")]
    TooMany {
        /// How many it holds.
        limit: usize,
    },
}

/// The longest pattern, in words.
const MAX_PERIOD: usize = 1 << 24;

impl Descriptor {
    /// Objects without references: bytes, numbers.
    pub const fn no_pointers() -> Descriptor {
        Descriptor { period: 0, references: Vec::new() }
    }

    /// Objects in which each word may be a reference.
    pub fn references() -> Descriptor {
        Descriptor { period: 1, references: vec![0] }
    }

    /// Objects of `words` words, or arrays of such elements. Of each `words` words those with the
    /// indices `references` may hold references.
    ///
    /// # Errors
    /// If a reference lies outside the pattern, or the pattern is too long.
    pub fn pattern(
        words: usize,
        references: impl IntoIterator<Item = usize>,
    ) -> Result<Descriptor, DescriptorError> {
        if words > MAX_PERIOD {
            return Err(DescriptorError::TooLong { words, limit: MAX_PERIOD });
        }
        let mut places = Vec::new();
        for word in references {
            if word >= words {
                return Err(DescriptorError::OutsidePattern { word, words });
            }
            places.push(word as u32);
        }
        places.sort_unstable();
        places.dedup();
        Ok(Descriptor { period: words, references: places }.shortest())
    }

    /// The same places with the shortest period, so that types of equal layout share blocks.
    fn shortest(self) -> Descriptor {
        if self.references.is_empty() {
            return Descriptor::no_pointers();
        }
        let count = self.references.len();
        // A shorter period divides the longer one, and its repeats divide the references.
        let shorter = (1..=self.period / 2)
            .filter(|period| self.period.is_multiple_of(*period))
            .find(|&period| {
                let repeats = self.period / period;
                count.is_multiple_of(repeats) && {
                    let each = count / repeats;
                    (each..count).all(|i| {
                        self.references[i] as usize == self.references[i - each] as usize + period
                    }) && (self.references[each - 1] as usize) < period
                }
            });
        match shorter {
            Some(period) => Descriptor {
                period,
                references: self.references[..count / (self.period / period)].to_vec(),
            },
            None => self,
        }
    }

    /// Words after which the pattern repeats; 0 when there are no references.
    pub(super) fn period(&self) -> usize {
        self.period
    }

    /// The words of one period that may hold references.
    pub(super) fn places(&self) -> &[u32] {
        &self.references
    }

    /// The places as bits, if one word has room for them.
    pub(super) fn bits(&self) -> Option<u64> {
        (self.period <= 64).then(|| self.references.iter().fold(0, |bits, place| bits | 1 << place))
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    fn pattern(words: usize, references: &[usize]) -> Descriptor {
        Descriptor::pattern(words, references.iter().copied()).expect("a valid pattern")
    }

    #[test]
    fn equal_layouts_have_equal_descriptors() {
        assert_eq!(pattern(4, &[]), Descriptor::no_pointers());
        assert_eq!(pattern(3, &[0, 1, 2]), Descriptor::references());
        assert_eq!(pattern(4, &[1, 3]), pattern(2, &[1]));
        assert_eq!(pattern(6, &[0, 3, 3]), pattern(3, &[0]));
        assert_ne!(pattern(4, &[0, 3]), pattern(2, &[0]));
        assert_ne!(pattern(2, &[0]), pattern(2, &[1]));
        assert_ne!(pattern(4, &[0, 1]), pattern(2, &[0]));
        assert_eq!(pattern(65, &[64]).bits(), None);
        assert_eq!(pattern(64, &[63]).bits(), Some(1 << 63));
    }

    #[test]
    fn places_outside_the_pattern_are_refused() {
        assert_eq!(
            Descriptor::pattern(2, [2]),
            Err(DescriptorError::OutsidePattern { word: 2, words: 2 })
        );
        assert!(matches!(
            Descriptor::pattern(usize::MAX, [0]),
            Err(DescriptorError::TooLong { .. })
        ));
    }
}
