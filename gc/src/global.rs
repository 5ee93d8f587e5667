//! Global variables of managed code: ranges of memory whose words are roots.

use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

/// Bytes of a word.
const WORD: usize = size_of::<usize>();

/// The registered ranges.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    ranges: Mutex<Vec<Range<usize>>>,
}

impl Globals {
    /// Adds a range, as whole words.
    ///
    /// # Safety
    /// As long as the collector lives the words stay mapped. They are accessed by whole words only,
    /// or by one thread at a time.
    pub(crate) unsafe fn add(&self, range: Range<usize>) {
        let range = range.start.next_multiple_of(WORD)..range.end & !(WORD - 1);
        if !range.is_empty() {
            self.ranges.lock().push(range);
        }
    }

    /// Calls `visit` with all words, in batches.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&[usize])) {
        let mut batch = Vec::with_capacity(256);
        for range in self.ranges.lock().iter() {
            for address in range.clone().step_by(WORD) {
                // SAFETY: `add`'s caller vouches that the word is mapped; `add` has aligned it.
                let word = unsafe { AtomicUsize::from_ptr(address as *mut usize) };
                // Relaxed: a store that this load misses goes through the write barrier.
                batch.push(word.load(Relaxed));
                if batch.len() == batch.capacity() {
                    visit(&batch);
                    batch.clear();
                }
            }
        }
        visit(&batch);
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn all_whole_words_of_the_ranges_are_visited() {
        static WORDS: [AtomicUsize; 600] = [const { AtomicUsize::new(0) }; 600];
        (0..600).for_each(|i| WORDS[i].store(i, Relaxed));
        let globals = Globals::default();
        let start = WORDS.as_ptr() as usize;
        // SAFETY: a static.
        unsafe {
            globals.add(start..start + 599 * WORD + 3);
            globals.add(start + 1..start + WORD);
        }
        let mut seen = Vec::new();
        globals.visit(|words| seen.extend_from_slice(words));
        assert!(seen.into_iter().eq(0..599));
    }
}
