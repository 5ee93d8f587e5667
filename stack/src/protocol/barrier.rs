//! The barriers of one goroutine and the pool of stubs: placing, hitting,
//! leapfrogging, removing and recycling.
//!
//! Plain Rust without raw memory: [`Slots`] stands for the return slots and [`Table`] for the saved
//! return addresses, so that models run this very code. All of it runs under the goroutine's
//! `scan_lock`. (Go took no lock on the hit path. Its issue 18206, a return while another thread
//! removes the barrier, was never solved.)
//!
//! Invariants:
//!
//! 1. The list has the unhit barriers, oldest first, and names each slot at most once. The last one
//!    is the *lowest unhit* barrier. Frames older than its owner are frozen.
//! 2. The table's word is written before the slot. So a thread that reads the stub in the slot
//!    finds the return address in the table.
//! 3. Only the goroutine itself or its holder writes slots.
//! 4. A stub is given back to the pool only when no live slot can hold it. A slot is live if the
//!    goroutine may return through it, or if an unwinder on its thread may have read it. So a stub
//!    is given back after a hit has restored the slot, when the goroutine has left the frame, or
//!    after a removal while the goroutine is not InForeign. A stub removed under a goroutine
//!    InForeign waits in *limbo* until the goroutine runs managed code or ends.
//!    A free stub is in the pool, or *at hand*: a goroutine keeps the last few that it has hit, for
//!    its next barriers, while the pool has plenty ([`BarrierList::take`]).
//! 5. A slot is named by its depth: stack_hi - address. So a move of the stack changes no barrier.
//! 6. The table has plain addresses. A slot of a frame that signs its return address holds a signed
//!    word, whether that is a stub or not, until the goroutine returns through it.

use crate::protocol::sync::{AtomicBool, AtomicU64, LeftOut, Mutex, Ordering, left_out};
use std::collections::VecDeque;

/// The return slots of one stack, by depth. A frame that is left by a return with a signed address
/// has a word in its slot that is `signed` (arm64 PAC).
pub(crate) trait Slots {
    /// The address in the slot. Of a signed word the signature is checked.
    fn read(&self, depth: usize, signed: bool) -> usize;
    /// Replaces the word in the slot by this address, which is signed if the word is to be.
    fn write(&mut self, depth: usize, address: usize, signed: bool);
    /// Tells the system's unwinder of a stub that the slot is about to hold, or holds since the
    /// stack has moved. The table has its return address.
    fn describe(&self, _table: &impl Table, _depth: usize, _stub: u32) {}
}

/// Saved return addresses and the words that stand for stubs.
pub(crate) trait Table {
    /// Saves the return address of a stub.
    fn save(&self, stub: u32, return_address: usize);
    /// The return address saved for a stub.
    fn saved(&self, stub: u32) -> usize;
    /// What a slot holds when the stub has been placed in it.
    fn hijacked_word(&self, stub: u32) -> usize;
}

/// Why a barrier was not placed in a frame's return slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// The frame is that of `callback`, whose slot is copied into `g.sched.pc`.
    Callback = 0,
    /// The frame is that of `call_system`, the innermost one or one under a callback.
    SystemCall = 1,
    /// The frame is that of `goroutine_entry`, or returns to it.
    Entry = 2,
    /// The frame returns to a pc that is no safepoint of managed code, or its function may
    /// move its return address.
    NoSafepoint = 3,
    /// The slot already holds a stub.
    Stub = 4,
    /// The stack is a thread's own, and no memory near it is free for what the system's unwinder
    /// is told of its barriers.
    NoRecord = 5,
}

/// The names of the refusals, in the order of `Counters::refused`.
pub const REFUSALS: [&str; 6] =
    ["callback", "system_call", "entry", "no_safepoint", "stub", "no_record"];

/// A placed barrier that has not been hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Barrier {
    /// Depth of the hijacked slot.
    pub(crate) depth: usize,
    /// Index of the stub in it.
    pub(crate) stub: u32,
    /// The number of the frame that owns the slot, counted from the young end. Older frames are
    /// frozen. Frames that come later have numbers below 1.
    pub(crate) frame: i64,
    /// The frame signs its return address.
    pub(crate) signed: bool,
}

/// What became of barriers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Barriers returned through.
    pub(crate) hit: u32,
    /// Barriers whose frames were left without a return through them.
    pub(crate) leapfrogged: u32,
    /// Barriers removed from slots that the goroutine may still return through.
    pub(crate) removed: u32,
}

/// The goroutine returned through a stub that its list does not name: memory was overwritten, or
/// two goroutines share a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stub {stub} was hit at depth {depth:#x}, but the lowest unhit barrier is {lowest:?}")]
pub(crate) struct UnknownHit {
    /// The stub.
    pub(crate) stub: u32,
    /// Depth of the slot that held it.
    pub(crate) depth: usize,
    /// The barrier that should have been hit.
    pub(crate) lowest: Option<Barrier>,
}

/// The barriers of one goroutine.
#[derive(Debug, Default)]
pub(crate) struct BarrierList {
    /// Oldest first (invariant 1).
    unhit: VecDeque<Barrier>,
    /// Stubs of removed barriers that may not be given back yet (invariant 4).
    limbo: Vec<u32>,
    at_hand: AtHand,
}

/// How many free stubs a goroutine keeps at most.
const AT_HAND: usize = 16;

/// Free stubs that a goroutine keeps, so that most hits need not lock the pool.
#[derive(Debug, Default)]
struct AtHand {
    stubs: [u32; AT_HAND],
    count: usize,
}

impl AtHand {
    #[inline]
    fn push(&mut self, stub: u32, pool: &StubPool) {
        let short = pool.is_short();
        if self.count == self.stubs.len() || short {
            self.give_back(pool);
        }
        self.stubs[self.count] = stub;
        self.count += 1;
        if short {
            self.give_back(pool);
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<u32> {
        self.count = self.count.checked_sub(1)?;
        Some(self.stubs[self.count])
    }

    #[cold]
    fn give_back(&mut self, pool: &StubPool) {
        pool.give_all(&self.stubs[..self.count]);
        self.count = 0;
    }
}

impl BarrierList {
    /// The lowest barrier that has not been hit.
    #[inline]
    pub(crate) fn lowest(&self) -> Option<Barrier> {
        self.unhit.back().copied()
    }

    /// The barriers that have not been hit, oldest first.
    pub(crate) fn unhit(&self) -> &VecDeque<Barrier> {
        &self.unhit
    }

    /// Places the barrier: its stub's word replaces the return address in its slot.
    pub(crate) fn place(&mut self, slots: &mut impl Slots, table: &impl Table, barrier: Barrier) {
        let at = self.unhit.partition_point(|b| b.depth < barrier.depth);
        debug_assert!(
            self.unhit.get(at).is_none_or(|b| b.depth != barrier.depth),
            "one barrier per slot"
        );
        let Barrier { depth, stub, signed, .. } = barrier;
        let return_address = slots.read(depth, signed);
        if left_out(LeftOut::SavedFirst) {
            slots.write(depth, table.hijacked_word(stub), signed);
        }
        table.save(stub, return_address);
        slots.describe(table, depth, stub);
        slots.write(depth, table.hijacked_word(stub), signed);
        self.unhit.insert(at, barrier);
    }

    /// The stack has moved: the system's unwinder is told anew of each barrier.
    pub(crate) fn describe(&self, slots: &impl Slots, table: &impl Table) {
        self.unhit.iter().for_each(|b| slots.describe(table, b.depth, b.stub));
    }

    /// The goroutine returns through `stub` in the slot at `depth`. Puts the return address back
    /// into the slot, not signed: the function has checked the signature of the stub, and the stub
    /// goes on at what the slot holds. Also returns the barrier.
    ///
    /// # Errors
    /// [`UnknownHit`]; leapfrogged barriers are settled even then.
    #[inline]
    pub(crate) fn hit(
        &mut self,
        slots: &mut impl Slots,
        table: &impl Table,
        pool: &StubPool,
        depth: usize,
        stub: u32,
    ) -> Result<(Settled, Barrier), UnknownHit> {
        let leapfrogged = self.leave(pool, depth).leapfrogged;
        match self.unhit.pop_back() {
            Some(b) if b.depth == depth && b.stub == stub => {
                slots.write(depth, table.saved(stub), false);
                self.at_hand.push(stub, pool);
                if !self.limbo.is_empty() {
                    self.settle_limbo(pool);
                }
                Ok((Settled { hit: 1, leapfrogged, removed: 0 }, b))
            }
            lowest => {
                self.unhit.extend(lowest);
                Err(UnknownHit { stub, depth, lowest })
            }
        }
    }

    /// Takes a free stub: one at hand, or one of the pool. `None`, which the pool counts, if there
    /// is none. A barrier that can `wait` gets none of the last eighth of all stubs in the pool.
    #[inline]
    pub(crate) fn take(&mut self, pool: &StubPool, can_wait: bool) -> Option<u32> {
        self.at_hand.pop().or_else(|| if can_wait { pool.take_if_plenty() } else { pool.take() })
    }

    /// The goroutine has left all frames with return slots deeper than `depth` without returning
    /// through them. Settles their barriers. The slots are dead memory and stay as they are.
    #[inline]
    pub(crate) fn leave(&mut self, pool: &StubPool, depth: usize) -> Settled {
        let mut settled = Settled::default();
        while let Some(b) = self.unhit.back().filter(|b| b.depth > depth) {
            self.at_hand.push(b.stub, pool);
            self.unhit.pop_back();
            settled.leapfrogged += 1;
        }
        settled
    }

    /// Removes all barriers and restores their slots. `sp_depth` is the depth of the goroutine's
    /// stack pointer: deeper barriers were leapfrogged. `foreign` says that the goroutine is
    /// InForeign: its own thread may be walking these frames. No stub stays at hand.
    pub(crate) fn remove_all(
        &mut self,
        slots: &mut impl Slots,
        table: &impl Table,
        pool: &StubPool,
        sp_depth: usize,
        foreign: bool,
    ) -> Settled {
        let mut settled = self.leave(pool, sp_depth);
        settled.removed = self.unhit.len() as u32;
        for b in std::mem::take(&mut self.unhit) {
            self.remove(slots, table, pool, b, foreign);
        }
        if !foreign {
            self.settle_limbo(pool);
        }
        self.at_hand.give_back(pool);
        settled
    }

    /// The goroutine has ended. Settles its barriers. It has no stub any more.
    pub(crate) fn end(&mut self, pool: &StubPool) -> Settled {
        let settled = self.leave(pool, 0);
        self.settle_limbo(pool);
        self.at_hand.give_back(pool);
        settled
    }

    /// Removes the barriers at `depth` and deeper. Returns how many. Called on
    /// the goroutine's own thread.
    pub(crate) fn remove_younger(
        &mut self,
        slots: &mut impl Slots,
        table: &impl Table,
        pool: &StubPool,
        depth: usize,
    ) -> u32 {
        let at = self.unhit.partition_point(|b| b.depth < depth);
        let younger = self.unhit.split_off(at);
        let removed = younger.len() as u32;
        for b in younger {
            self.remove(slots, table, pool, b, false);
        }
        removed
    }

    /// Removes barriers that several scans have left closer together than is needed. `from` is the
    /// depth of a stack pointer. The lowest and the oldest barrier stay, and those at less depth
    /// than `down_to`. A barrier between a kept one at depth `k` and the next older one at depth
    /// `n` goes if `from - n <= 2 * (from - k)`. Returns how many are removed.
    pub(crate) fn thin_out(
        &mut self,
        slots: &mut impl Slots,
        table: &impl Table,
        pool: &StubPool,
        (from, down_to): (usize, usize),
        foreign: bool,
    ) -> u32 {
        let Some(mut kept) = self.lowest() else { return 0 };
        let mut removed = 0;
        for i in (1..self.unhit.len().saturating_sub(1)).rev() {
            let (b, next) = (self.unhit[i], self.unhit[i - 1]);
            if b.depth < down_to {
                break;
            }
            if from - next.depth <= 2 * (from - kept.depth) {
                self.unhit.remove(i);
                self.remove(slots, table, pool, b, foreign);
                removed += 1;
            } else {
                kept = b;
            }
        }
        removed
    }

    /// The number of stubs that this list has taken from the pool and not given back.
    pub(crate) fn stubs(&self) -> usize {
        self.unhit.len() + self.limbo.len() + self.at_hand.count
    }

    /// Adds `more` to the numbers of frames whose barriers are younger than `depth`: the scan that
    /// has placed them counted from elsewhere.
    pub(crate) fn renumber_younger(&mut self, depth: usize, more: i64) {
        for b in self.unhit.iter_mut().rev().take_while(|b| b.depth > depth) {
            b.frame += more;
        }
    }

    fn remove(
        &mut self,
        slots: &mut impl Slots,
        table: &impl Table,
        pool: &StubPool,
        b: Barrier,
        foreign: bool,
    ) {
        // A slot that no longer holds its stub is left alone, and the stub stays taken.
        if slots.read(b.depth, b.signed) == table.hijacked_word(b.stub) {
            slots.write(b.depth, table.saved(b.stub), b.signed);
            if foreign && !left_out(LeftOut::Limbo) {
                self.limbo.push(b.stub);
            } else {
                pool.give(b.stub);
            }
        }
    }

    /// Gives the stubs in limbo back to the pool: the goroutine has run managed code, or has ended.
    pub(crate) fn settle_limbo(&mut self, pool: &StubPool) {
        for stub in self.limbo.drain(..) {
            pool.give(stub);
        }
    }
}

/// The stubs that are not in use.
#[derive(Debug)]
pub(crate) struct StubPool {
    free: Mutex<Vec<u32>>,
    size: usize,
    /// The number of stubs that are kept for frontiers and lowest barriers.
    reserve: usize,
    /// Fewer stubs than the reserve were left, and there are not twice as many yet. Written under
    /// the lock. Relaxed everywhere: a hint.
    short: AtomicBool,
    /// How often a taker found no stub. Relaxed everywhere: a statistic.
    exhausted: AtomicU64,
}

impl StubPool {
    /// A pool of these stubs.
    pub(crate) fn new(stubs: impl IntoIterator<Item = u32>) -> Self {
        let free: Vec<_> = stubs.into_iter().collect();
        let size = free.len();
        StubPool {
            free: Mutex::new(free),
            size,
            reserve: size / 8,
            short: AtomicBool::new(false),
            exhausted: AtomicU64::new(0),
        }
    }

    /// Takes a free stub. `None`, which is counted, if there is none.
    pub(crate) fn take(&self) -> Option<u32> {
        self.take_beyond(0)
    }

    /// As [`StubPool::take`], for a barrier that can wait: leaves the last eighth
    /// of all stubs in the pool.
    pub(crate) fn take_if_plenty(&self) -> Option<u32> {
        self.take_beyond(self.reserve)
    }

    fn take_beyond(&self, reserve: usize) -> Option<u32> {
        let mut free = self.free.lock();
        let stub = if free.len() > reserve { free.pop() } else { None };
        if stub.is_none() {
            self.exhausted.fetch_add(1, Ordering::Relaxed);
        }
        if free.len() < self.reserve {
            self.short.store(true, Ordering::Relaxed);
        }
        stub
    }

    fn give(&self, stub: u32) {
        self.give_all(&[stub]);
    }

    fn give_all(&self, stubs: &[u32]) {
        if stubs.is_empty() {
            return;
        }
        let mut free = self.free.lock();
        free.extend_from_slice(stubs);
        if self.is_short() && free.len() >= 2 * self.reserve {
            self.short.store(false, Ordering::Relaxed);
        }
    }

    /// Whether goroutines had better keep no stubs at hand.
    #[inline]
    fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// How many stubs there are, free or not.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// How many stubs are free.
    pub(crate) fn available(&self) -> usize {
        self.free.lock().len()
    }

    /// How often a taker found no stub.
    pub(crate) fn exhausted(&self) -> u64 {
        self.exhausted.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, stackmark_loom))]
pub(super) mod models;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
