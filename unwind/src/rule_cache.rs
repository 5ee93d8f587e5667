//! The rules of the pcs that traces have met: an open-addressed table.
//!
//! No look-up depends on the one before, so the processor does several at a time. (Links from a pc
//! to the one that came after it were slower where they were wrong, and no faster where they were
//! right.)

use crate::rule::PackedRule;

/// Marks a free entry: no code lies at the last address.
const FREE: usize = usize::MAX;
const FIRST_SIZE: usize = 1 << 10;
const LARGEST_SIZE: usize = 1 << 20;
/// The number of frames after which saved registers are searched for.
pub(crate) const LATELY: usize = 256;

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

/// Packed rules by pc, for the traces of one thread. It serves one [`Code`](crate::Code) at a time.
/// A trace with another `Code` empties it, and so does a trace after code was registered or
/// unregistered.
#[derive(Clone, Debug)]
pub struct RuleCache {
    rules: Rules,
    used: usize,
    grows: bool,
    version: u64,
    /// Room for a trace's latest frames, before the search for their saved registers.
    lately: Box<[(PackedRule, usize); LATELY]>,
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
            grows,
            version: 0,
            lately: Box::new([(PackedRule::NONE, 0); LATELY]),
        }
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.rules.entries) + size_of_val(&*self.lately)
    }

    /// How many pcs it holds.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(crate) fn grows(&self) -> bool {
        self.grows
    }

    /// Empties the cache unless it was filled from this version of the tables.
    pub(crate) fn belongs_to(&mut self, version: u64) {
        if self.version != version {
            self.version = version;
            if self.used != 0 {
                self.rules.entries.fill(Entry { at: FREE, rule: PackedRule::NONE });
                self.used = 0;
            }
        }
    }

    /// The rules, and the room for frames.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&Rules, &mut [(PackedRule, usize); LATELY]) {
        (&self.rules, &mut self.lately)
    }

    /// The rule for a pc, if it has been met.
    pub(crate) fn find(&self, at: usize) -> Option<PackedRule> {
        self.rules.find(at)
    }

    /// Remembers the rule for a pc that is not yet in the cache.
    pub(crate) fn insert(&mut self, at: usize, rule: PackedRule) {
        if at == FREE {
            return;
        }
        if (self.used + 1) * 2 > self.rules.entries.len() {
            if self.grows && self.rules.entries.len() < LARGEST_SIZE {
                self.grow();
            } else {
                // The rule that stood there is forgotten. The slot stays taken, so searches still
                // run past it.
                let home = self.rules.home(at);
                self.rules.entries[home] = Entry { at, rule };
                return;
            }
        }
        self.place(at, rule);
    }

    fn place(&mut self, at: usize, rule: PackedRule) {
        let mask = self.rules.entries.len() - 1;
        let mut i = self.rules.home(at);
        while self.rules.entries[i & mask].at != FREE {
            i += 1;
        }
        self.rules.entries[i & mask] = Entry { at, rule };
        self.used += 1;
    }

    fn grow(&mut self) {
        let mut larger = RuleCache::with_size(self.rules.entries.len() * 4, true);
        for entry in self.rules.entries.iter().filter(|entry| entry.at != FREE) {
            larger.place(entry.at, entry.rule);
        }
        larger.version = self.version;
        *self = larger;
    }
}

impl Rules {
    #[inline]
    fn home(&self, at: usize) -> usize {
        at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift
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
