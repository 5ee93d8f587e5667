//! The rules of the pcs that traces have met: an open-addressed table.
//!
//! No look-up depends on the one before, so the processor does several at a time. (Links from a pc
//! to the one that came after it were slower where they were wrong, and no faster where they were
//! right.)

use std::mem;
use std::ops::Range;

use crate::code::changes::Changes;
use crate::rule::PackedRule;
use crate::saved_registers::{CHECKPOINTS, Checkpoint};

/// Marks a free entry: no code lies at the last address.
const FREE: usize = usize::MAX;
/// Marks an entry whose rule was forgotten, and which searches still run past.
const GONE: usize = usize::MAX - 1;
const FIRST_SIZE: usize = 1 << 10;
const LARGEST_SIZE: usize = 1 << 20;
/// Pcs that share the upper bits share a block.
const BLOCK_SHIFT: u32 = 8;
/// Blocks are told apart by as many bits of a hash.
const BLOCK_BITS: u32 = 12;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
struct Entry {
    at: usize,
    rule: PackedRule,
}

/// Packed rules by pc.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    entries: Box<[Entry]>,
    shift: u32,
}

/// Packed rules by pc, for the traces of one thread. It serves one [`Code`](crate::Code) at a time:
/// a trace with another `Code` empties it. Registration leaves it as it is. After code was
/// unregistered, the next trace forgets the rules of that code, and no others: in a signal handler
/// too. It is emptied if more than 1,500 regions have gone since its last trace, or if
/// a trace goes back to a snapshot older than its last one.
#[derive(Clone, Debug)]
pub struct RuleCache {
    rules: Rules,
    /// Entries that are not free, and how many of them are gone.
    used: usize,
    gone: usize,
    grows: bool,
    code: u64,
    version: u64,
    /// The blocks that have any of the pcs, and maybe others, one bit each.
    blocks: Box<[u64; (1 << BLOCK_BITS) / 64]>,
    /// Room for a trace's checkpoints.
    checkpoints: Box<[Checkpoint; CHECKPOINTS]>,
}

impl Default for RuleCache {
    fn default() -> RuleCache {
        RuleCache::new()
    }
}

impl RuleCache {
    /// A cache that grows with the number of pcs, up to 16 MiB.
    pub fn new() -> RuleCache {
        RuleCache::with_size(FIRST_SIZE, true)
    }

    /// A cache for `count` pcs that never grows. Traces with it allocate nothing and take no lock,
    /// as signal handlers need. They fail in images whose CFI has not been read by
    /// [`Snapshot::read_images`](crate::Snapshot::read_images).
    pub fn fixed(count: usize) -> RuleCache {
        RuleCache::with_size((count.min(LARGEST_SIZE / 2) * 2).next_power_of_two().max(64), false)
    }

    fn with_size(size: usize, grows: bool) -> RuleCache {
        RuleCache {
            rules: Rules {
                entries: vec![Entry { at: FREE, rule: PackedRule::NONE }; size].into_boxed_slice(),
                shift: usize::BITS - size.trailing_zeros(),
            },
            used: 0,
            gone: 0,
            grows,
            code: 0,
            version: 0,
            blocks: Box::new([0; (1 << BLOCK_BITS) / 64]),
            checkpoints: Box::new([Checkpoint::default(); CHECKPOINTS]),
        }
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.rules.entries)
            + size_of_val(&*self.checkpoints)
            + size_of_val(&*self.blocks)
    }

    /// How many pcs it holds.
    pub fn len(&self) -> usize {
        self.used - self.gone
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn grows(&self) -> bool {
        self.grows
    }

    /// Forgets what is no longer so in this version of the tables of `code`.
    #[inline]
    pub(crate) fn belongs_to(&mut self, code: u64, version: u64, changes: &Changes) {
        if (self.code, self.version) != (code, version) {
            self.catch_up(code, version, changes);
        }
    }

    #[cold]
    fn catch_up(&mut self, code: u64, version: u64, changes: &Changes) {
        let is_later = self.code == code && self.version <= version;
        match changes.since(self.version).filter(|_| is_later) {
            Some(changes) if self.used != 0 => changes.for_each(|range| self.forget(range)),
            Some(_) => {}
            None => self.clear(),
        }
        (self.code, self.version) = (code, version);
    }

    fn clear(&mut self) {
        if self.used != 0 {
            self.rules.entries.fill(Entry { at: FREE, rule: PackedRule::NONE });
            self.blocks.fill(0);
            (self.used, self.gone) = (0, 0);
        }
    }

    /// Forgets the rules of the pcs in `range`. It looks for each pc, or goes through all entries,
    /// whichever is less work.
    fn forget(&mut self, range: Range<usize>) {
        let range = range.start..range.end.min(GONE);
        if range.is_empty() {
            return;
        }
        let blocks = (range.start >> BLOCK_SHIFT)..=(range.end - 1) >> BLOCK_SHIFT;
        let limit = self.rules.entries.len() >> BLOCK_SHIFT;
        let is_small = blocks.end() - blocks.start() < 1 << BLOCK_BITS;
        let has = |blocks_with: &[u64], block: &usize| {
            let bit = block_bit(*block);
            blocks_with[bit / 64] >> (bit % 64) & 1 != 0
        };
        if is_small {
            let count = blocks.clone().filter(|block| has(&self.blocks[..], block)).count();
            if count <= limit {
                for block in blocks {
                    if !has(&self.blocks[..], &block) {
                        continue;
                    }
                    let first = block << BLOCK_SHIFT;
                    let last = first | ((1 << BLOCK_SHIFT) - 1);
                    for at in first.max(range.start)..=last.min(range.end - 1) {
                        if let Some(place) = self.rules.place(at) {
                            self.gone += self.rules.entries[place].forget();
                        }
                    }
                }
                return;
            }
        }
        for entry in self.rules.entries.iter_mut().filter(|entry| range.contains(&entry.at)) {
            self.gone += entry.forget();
        }
    }

    /// The rules, and the room for checkpoints.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&Rules, &mut [Checkpoint; CHECKPOINTS]) {
        (&self.rules, &mut self.checkpoints)
    }

    /// The room for checkpoints.
    #[inline]
    pub(crate) fn checkpoints(&self) -> &[Checkpoint; CHECKPOINTS] {
        &self.checkpoints
    }

    /// The rule for a pc, if it has been met.
    pub(crate) fn find(&self, at: usize) -> Option<PackedRule> {
        self.rules.find(at)
    }

    /// Remembers the rule for a pc that is not yet in the cache.
    pub(crate) fn insert(&mut self, at: usize, rule: PackedRule) {
        if at >= GONE {
            return;
        }
        if (self.used + 1) * 2 > self.rules.entries.len() {
            let is_largest = self.rules.entries.len() == LARGEST_SIZE;
            if self.grows && (!is_largest || self.gone * 2 > self.used) {
                self.grow();
            } else if self.place_for(at).1 == FREE {
                // Half of the entries stay free, so that each search ends. Fewer pcs than that are
                // in use at a time, as a rule, and what has been in use is forgotten with the rest.
                self.clear();
            }
        }
        self.place(at, rule);
    }

    /// The first entry of the search for `at` that may be taken, and what it holds.
    fn place_for(&self, at: usize) -> (usize, usize) {
        let mask = self.rules.entries.len() - 1;
        let mut i = self.rules.home(at);
        while self.rules.entries[i & mask].at < GONE {
            i += 1;
        }
        (i & mask, self.rules.entries[i & mask].at)
    }

    fn place(&mut self, at: usize, rule: PackedRule) {
        let (place, held) = self.place_for(at);
        self.rules.entries[place] = Entry { at, rule };
        (self.used, self.gone) = match held {
            GONE => (self.used, self.gone - 1),
            _ => (self.used + 1, self.gone),
        };
        self.note_block(at);
    }

    fn note_block(&mut self, at: usize) {
        let bit = block_bit(at >> BLOCK_SHIFT);
        self.blocks[bit / 64] |= 1 << (bit % 64);
    }

    /// Makes room, by more entries or by those that are gone.
    fn grow(&mut self) {
        let size = self.rules.entries.len();
        let size = if self.len() * 4 < size { size } else { (size * 4).min(LARGEST_SIZE) };
        let mut larger = RuleCache::with_size(size, true);
        for entry in self.rules.entries.iter().filter(|entry| entry.at < GONE) {
            larger.place(entry.at, entry.rule);
        }
        (larger.code, larger.version) = (self.code, self.version);
        mem::swap(&mut larger.checkpoints, &mut self.checkpoints);
        *self = larger;
    }
}

impl Entry {
    /// Forgets its rule. Yields one: the number of entries that are gone by that.
    fn forget(&mut self) -> usize {
        *self = Entry { at: GONE, rule: PackedRule::NONE };
        1
    }
}

/// The golden ratio's part of a word, as Knuth's multiplicative hash takes it.
const GOLDEN: usize = (0x9e37_79b9_7f4a_7c15_u64 >> (u64::BITS - usize::BITS)) as usize;

/// The bit of a block.
fn block_bit(block: usize) -> usize {
    block.wrapping_mul(GOLDEN) >> (usize::BITS - BLOCK_BITS)
}

impl Rules {
    #[inline]
    fn home(&self, at: usize) -> usize {
        at.wrapping_mul(GOLDEN) >> self.shift
    }

    /// The entry for a pc, if it has been met.
    fn place(&self, at: usize) -> Option<usize> {
        let mask = self.entries.len() - 1;
        let mut i = self.home(at);
        while self.entries[i & mask].at != at {
            if self.entries[i & mask].at == FREE {
                return None;
            }
            i += 1;
        }
        Some(i & mask)
    }

    /// The rule for a pc, if it has been met.
    #[inline(always)]
    pub(crate) fn find(&self, at: usize) -> Option<PackedRule> {
        let mask = self.entries.len() - 1;
        let mut i = self.home(at);
        loop {
            // At most half of the entries are taken, so the search meets the pc or a free entry.
            let entry = self.entries[i & mask];
            if entry.at == at {
                return Some(entry.rule);
            }
            if entry.at == FREE {
                return None;
            }
            i += 1;
        }
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn rule(number: usize) -> PackedRule {
        PackedRule::fixed(8 * (number + 1)).expect("a small frame")
    }

    #[test]
    fn each_search_in_a_cache_that_does_not_grow_ends() {
        let mut cache = RuleCache::fixed(64);
        for number in 0..10_000 {
            cache.insert(0x1000 + 7 * number, rule(number % 64));
            let free = cache.rules.entries.iter().filter(|entry| entry.at == FREE).count();
            assert!(free * 2 >= cache.rules.entries.len(), "{free} free after {number}");
            assert_eq!(cache.find(0x1000 + 7 * number), Some(rule(number % 64)));
        }
    }

    proptest! {
        /// A cache knows no rule of a range that has gone, and loses no other one for that.
        #[test]
        fn a_cache_loses_what_has_gone_and_nothing_else(
            steps in prop::collection::vec((0..4_u8, 0..3000_usize, 0..1200_usize), 1..500),
            size in prop::option::of(prop_oneof![Just(40), 3000..5000_usize]),
        ) {
            let mut cache = size.map_or_else(RuleCache::new, RuleCache::fixed);
            let is_large_enough = size != Some(40);
            let (mut changes, mut version) = (Changes::default(), 1);
            let mut known = HashMap::new();
            for (step, at, len) in steps {
                // Some close together, some far apart.
                let place = |at: usize| if at.is_multiple_of(2) { at } else { at << 9 };
                match step {
                    0 => {
                        version += 1;
                        let range = place(at)..place(at) + len;
                        known.retain(|at, _| !range.contains(at));
                        changes.add(version, range);
                    }
                    1 => version += 1,
                    _ => {
                        let at = place(at);
                        cache.belongs_to(1, version, &changes);
                        match (cache.find(at), known.get(&at)) {
                            (Some(found), Some(expected)) => prop_assert_eq!(found, *expected),
                            (Some(_), None) => prop_assert!(false, "{:#x} has gone", at),
                            (None, Some(_)) if is_large_enough => {
                                prop_assert!(false, "{:#x} is lost", at);
                            }
                            (None, _) => {
                                cache.insert(at, rule(len));
                                known.insert(at, rule(len));
                            }
                        }
                    }
                }
            }
            cache.belongs_to(1, version, &changes);
            if is_large_enough {
                prop_assert_eq!(cache.len(), known.len());
            }
            for (at, expected) in &known {
                let found = cache.find(*at);
                prop_assert!(found == Some(*expected) || found.is_none() && !is_large_enough);
            }
            // An older version, or other code.
            let older = known.len().is_multiple_of(2);
            let (code, version) = if older { (1, version - 1) } else { (2, version) };
            cache.belongs_to(code, version, &changes);
            prop_assert!(cache.is_empty());
        }
    }
}
