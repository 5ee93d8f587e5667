//! The rules of the pcs that traces have met.
//!
//! An open-addressed table with a link from each entry to the one that was needed after it. While the links are right,
//! the processor runs ahead of the return addresses that it has yet to load, which then only confirm the guess; where
//! they are mostly wrong, in mixed stacks, they are switched off for a while, because a wrong guess costs more than
//! the probe.

use crate::rule::Rule;

/// Marks a free entry: no code lies at the last address.
const FREE: usize = usize::MAX;
const FIRST_SIZE: usize = 1 << 10;
const LARGEST_SIZE: usize = 1 << 20;
/// How many probes go by before links are tried again.
const PAUSE: u32 = 4096;
/// What a wrong link costs, in right ones; and how many right ones are remembered.
const WRONG: i32 = 6;
const TRUST: i32 = 48;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
struct Entry {
    at: usize,
    rule: Rule,
}

/// Packed rules by pc, for the traces of one thread. It serves one [`Code`](crate::Code) at a time: traces of another,
/// or after code was registered or unregistered, begin with an empty one.
#[derive(Clone, Debug)]
pub struct TraceCache {
    entries: Box<[Entry]>,
    /// Which entry came after this one.
    links: Box<[u32]>,
    used: usize,
    shift: u32,
    /// The entry that the last look-up found.
    current: usize,
    /// Positive while links are used; then how much they are trusted. Otherwise how long they are not.
    trust: i32,
    pause: u32,
    grows: bool,
    version: u64,
}

impl Default for TraceCache {
    fn default() -> TraceCache {
        TraceCache::new()
    }
}

impl TraceCache {
    /// A cache that grows with the number of pcs, up to 24 MiB.
    pub fn new() -> TraceCache {
        TraceCache::with_size(FIRST_SIZE, true)
    }

    /// A cache for `count` pcs that never grows: traces with it allocate nothing and take no lock, as is needed in signal
    /// handlers. They do not read the CFI of images that has not been read: see
    /// [`Snapshot::read_images`](crate::Snapshot::read_images).
    pub fn fixed(count: usize) -> TraceCache {
        TraceCache::with_size((count.min(LARGEST_SIZE / 2) * 2).next_power_of_two().max(64), false)
    }

    fn with_size(size: usize, grows: bool) -> TraceCache {
        TraceCache {
            entries: vec![Entry { at: FREE, rule: Rule::NONE }; size].into_boxed_slice(),
            links: vec![0; size].into_boxed_slice(),
            used: 0,
            shift: usize::BITS - size.trailing_zeros(),
            current: 0,
            trust: TRUST,
            pause: 0,
            grows,
            version: 0,
        }
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + size_of_val(&*self.links)
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
                self.entries.fill(Entry { at: FREE, rule: Rule::NONE });
                self.used = 0;
            }
        }
    }

    fn home(&self, at: usize) -> usize {
        home(at, self.shift)
    }

    /// Where look-ups go on from the last one.
    #[inline]
    pub(crate) fn cursor(&mut self) -> Cursor<'_> {
        let current = self.current & (self.entries.len() - 1);
        let Entry { at, rule } = self.entries[current];
        let memo = Memo { current, trust: self.trust, pause: self.pause };
        Cursor { entries: &self.entries, links: &mut self.links, shift: self.shift, at, rule, memo }
    }

    /// Notes where a cursor has come to.
    #[inline]
    pub(crate) fn remember(&mut self, memo: Memo) {
        Memo { current: self.current, trust: self.trust, pause: self.pause } = memo;
    }

    /// Remembers the rule for a pc that is not yet in the cache.
    pub(crate) fn insert(&mut self, at: usize, rule: Rule) {
        if at == FREE {
            return;
        }
        if (self.used + 1) * 2 > self.entries.len() {
            if self.grows && self.entries.len() < LARGEST_SIZE {
                self.grow();
            } else {
                // What stood there is forgotten; whatever is searched for past it is found all the same.
                let home = self.home(at);
                self.entries[home] = Entry { at, rule };
                self.current = home;
                return;
            }
        }
        self.place(at, rule);
    }

    fn place(&mut self, at: usize, rule: Rule) {
        let mask = self.entries.len() - 1;
        let mut i = self.home(at);
        while self.entries[i & mask].at != FREE {
            i += 1;
        }
        self.entries[i & mask] = Entry { at, rule };
        self.current = i & mask;
        self.used += 1;
    }

    fn grow(&mut self) {
        let mut larger = TraceCache::with_size(self.entries.len() * 4, true);
        for entry in self.entries.iter().filter(|entry| entry.at != FREE) {
            larger.place(entry.at, entry.rule);
        }
        larger.version = self.version;
        *self = larger;
    }
}

#[inline]
fn home(at: usize, shift: u32) -> usize {
    at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift
}

/// What a cursor leaves behind in its cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memo {
    current: usize,
    trust: i32,
    pause: u32,
}

/// A run of look-ups, whose state can stay in registers.
pub(crate) struct Cursor<'c> {
    entries: &'c [Entry],
    links: &'c mut [u32],
    shift: u32,
    /// The entry that the last look-up has found.
    at: usize,
    rule: Rule,
    memo: Memo,
}

impl Cursor<'_> {
    pub(crate) fn memo(self) -> Memo {
        self.memo
    }

    /// The rule for a pc, if it has been met.
    #[inline(always)]
    pub(crate) fn find(&mut self, at: usize) -> Option<Rule> {
        // A recursion stands where it has stood.
        if self.at == at {
            return Some(self.rule);
        }
        if self.memo.trust > 0 {
            let next = self.links[self.memo.current & (self.links.len() - 1)] as usize & (self.entries.len() - 1);
            let entry = self.entries[next];
            if entry.at == at {
                self.memo = Memo { current: next, trust: (self.memo.trust + 1).min(TRUST), pause: self.memo.pause };
                (self.at, self.rule) = (entry.at, entry.rule);
                return Some(entry.rule);
            }
            return self.find_elsewhere(at);
        }
        self.memo.pause = self.memo.pause.wrapping_sub(1);
        if self.memo.pause == 0 {
            self.memo.trust = WRONG * 2;
        }
        self.search(at)
    }

    /// The link was wrong.
    #[inline]
    fn find_elsewhere(&mut self, at: usize) -> Option<Rule> {
        self.memo.trust -= WRONG;
        if self.memo.trust <= 0 {
            self.memo.pause = PAUSE;
        }
        let from = self.memo.current;
        let found = self.search(at);
        self.links[from & (self.entries.len() - 1)] = self.memo.current as u32;
        found
    }

    #[inline]
    fn search(&mut self, at: usize) -> Option<Rule> {
        let mask = self.entries.len() - 1;
        let mut i = home(at, self.shift) & mask;
        loop {
            // At most half of the entries are taken, so that the search meets the pc or a free entry.
            let entry = self.entries[i];
            if entry.at == at {
                self.memo.current = i;
                (self.at, self.rule) = (entry.at, entry.rule);
                return Some(entry.rule);
            }
            if entry.at == FREE {
                return None;
            }
            i = (i + 1) & mask;
        }
    }
}
