//! The remembered set: references stored between cycles that the next minor cycle needs as roots.

/// By so many words the set may exceed twice its distinct words before it is deduplicated.
const SLACK: usize = 4096;

/// Words recorded between cycles. Each is there once, or not many times.
#[derive(Default)]
pub(super) struct RememberedSet {
    words: Vec<usize>,
    /// How many distinct words there were after the last deduplication.
    distinct: usize,
}

impl RememberedSet {
    pub(super) fn add(&mut self, words: &[usize]) {
        self.words.extend_from_slice(words);
        // A program may store the same reference again and again.
        if self.words.len() > 2 * self.distinct + SLACK {
            self.words.sort_unstable();
            self.words.dedup();
            self.distinct = self.words.len();
        }
    }

    pub(super) fn into_words(self) -> Vec<usize> {
        self.words
    }

    #[cfg(all(test, not(stackmark_loom)))]
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }
}
