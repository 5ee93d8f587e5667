//! The ranges of code whose rules have changed lately, so that a cache loses no others.

use std::ops::Range;
use std::sync::Arc;

/// Changes that lie side by side. Each version of the tables copies its latest ones.
const CHUNK: usize = 24;
/// How many full chunks are kept.
const CHUNKS: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Change {
    /// The version that made it.
    version: u64,
    start: usize,
    end: usize,
}

/// The latest changes, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    /// Versions up to this one may have changed more than is kept.
    forgotten: u64,
    full: Arc<[Arc<[Change; CHUNK]>]>,
    last: [Change; CHUNK],
    count: usize,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { forgotten: 0, full: Arc::new([]), last: [Change::default(); CHUNK], count: 0 }
    }
}

impl Changes {
    /// Notes that `version` has changed the rules of `range`.
    pub(crate) fn add(&mut self, version: u64, range: Range<usize>) {
        if self.count == CHUNK {
            let surplus = (self.full.len() + 1).saturating_sub(CHUNKS);
            if let Some(last) = surplus.checked_sub(1).and_then(|i| self.full.get(i)) {
                self.forgotten = last[CHUNK - 1].version;
            }
            let kept = self.full[surplus..].iter().cloned();
            self.full = kept.chain([Arc::new(self.last)]).collect();
            self.count = 0;
        }
        self.last[self.count] = Change { version, start: range.start, end: range.end };
        self.count += 1;
    }

    /// The ranges changed by versions after `version`; `None` if some are not known any more. It
    /// allocates nothing.
    pub(crate) fn since(&self, version: u64) -> Option<impl Iterator<Item = Range<usize>>> {
        let full = self.full.iter().rev().flat_map(|chunk| chunk.iter().rev());
        let latest_first = self.last[..self.count].iter().rev().chain(full);
        let later = latest_first.take_while(move |change| change.version > version);
        (version >= self.forgotten).then(|| later.map(|change| change.start..change.end))
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn changes_are_known_back_to_a_limit() {
        let mut changes = Changes::default();
        let range = |version: u64| version as usize * 8..version as usize * 8 + 8;
        // Some versions change nothing, some two ranges.
        let count = |version: u64| version % 3;
        for version in 1..9000 {
            for _ in 0..count(version) {
                changes.add(version, range(version));
            }
            if version % 500 == 0 {
                let mut known = 0;
                for since in (0..=version).rev() {
                    let Some(found) = changes.since(since) else { break };
                    let expected = (since + 1..=version).rev();
                    let expected =
                        expected.flat_map(|version| vec![range(version); count(version) as usize]);
                    assert!(found.eq(expected), "since {since} at {version}");
                    known = version - since;
                }
                assert!(known >= version.min((CHUNK * (CHUNKS - 1)) as u64), "{known}");
            }
        }
    }
}
