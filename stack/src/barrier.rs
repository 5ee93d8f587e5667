//! The barriers of one goroutine and the pool of stubs: placing, hitting, leapfrogging, removing, recycling.
//!
//! Plain Rust without raw memory: slots are reached through [`Slots`], the table of saved return addresses through
//! [`Table`], so that models run this very code. All of it happens under the goroutine's `scan_lock`. (Go took no lock on
//! the hit path; its issue 18206, a return while another thread removes the barrier, was never solved.)
//!
//! Invariants:
//!
//! 1. The list holds the barriers that have not been hit, oldest first; each slot at most once. The last one is the
//!    *lowest unhit* barrier: frames older than its owner are frozen.
//! 2. The table's word is written before the slot, so that whoever sees the stub finds the return address.
//! 3. Slots are written only by the goroutine itself or by its holder.
//! 4. A stub's index is given back only when no slot that the goroutine may still return through, or that an unwinder of
//!    its own thread may be looking at, can hold the stub: after a hit has restored the slot; after a removal while the
//!    goroutine is not InForeign; when it has left the frame.
//! 5. A slot is named by its depth (stack_hi - address), so a move of the stack changes nothing here.

use crate::sync::{AtomicU64, Mutex, Ordering};

/// The return slots of one stack, by depth.
pub trait Slots {
    /// The word in the slot.
    fn read(&self, depth: usize) -> usize;
    /// Replaces the word.
    fn write(&mut self, depth: usize, word: usize);
}

/// Saved return addresses and the words that stand for stubs.
pub trait Table {
    /// Saves the return address of a stub.
    fn save(&self, stub: u32, return_address: usize);
    /// The return address saved for a stub.
    fn saved(&self, stub: u32) -> usize;
    /// What a slot holds when the stub has been placed in it.
    fn hijacked_word(&self, stub: u32) -> usize;
}

/// The table and the stubs of the program's image.
#[derive(Clone, Copy, Debug)]
pub struct ImageTable;

impl Table for ImageTable {
    fn save(&self, stub: u32, return_address: usize) {
        // Release: invariant 2, for unwinders on other threads that read the slot without our lock.
        stackmark_asm::barrier::saved(stub as usize).store(return_address, std::sync::atomic::Ordering::Release);
    }
    fn saved(&self, stub: u32) -> usize {
        stackmark_asm::barrier::saved(stub as usize).load(std::sync::atomic::Ordering::Acquire)
    }
    fn hijacked_word(&self, stub: u32) -> usize {
        stackmark_asm::barrier::hijacked_word(stub as usize)
    }
}

/// A placed barrier that has not been hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Depth of the hijacked slot.
    pub depth: usize,
    /// Index of the stub in it.
    pub stub: u32,
    /// How many frames younger than or owning the slot the scan that placed it had visited: what lies beyond is frozen.
    pub frames: u64,
}

/// What a hit or an unwinding found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Barriers returned through.
    pub hit: u32,
    /// Barriers whose frames were left without returning.
    pub leapfrogged: u32,
}

/// A stub was returned through that the goroutine's list does not name: memory was overwritten, or two goroutines share
/// a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stub {stub} was hit at depth {depth:#x}, but the lowest unhit barrier is {lowest:?}")]
pub struct UnknownHit {
    /// The stub.
    pub stub: u32,
    /// Depth of the slot that it was found in.
    pub depth: usize,
    /// What should have been hit.
    pub lowest: Option<Barrier>,
}

/// The barriers of one goroutine.
#[derive(Debug, Default)]
pub struct BarrierList {
    /// Oldest first (invariant 1).
    unhit: Vec<Barrier>,
    /// Barriers being placed by a scan, youngest first, until [`BarrierList::commit`].
    placing: Vec<Barrier>,
    /// Stubs of removed barriers that may not be given back yet (invariant 4).
    limbo: Vec<u32>,
}

impl BarrierList {
    /// The lowest barrier that has not been hit.
    pub fn lowest(&self) -> Option<Barrier> {
        self.unhit.last().copied()
    }

    /// The barriers that have not been hit, oldest first.
    pub fn unhit(&self) -> &[Barrier] {
        &self.unhit
    }

    /// Hijacks the slot at `depth`, which holds `return_address`. Called from young to old, between [`BarrierList::remove_all`]
    /// and [`BarrierList::commit`].
    pub fn place(&mut self, slots: &mut impl Slots, table: &impl Table, barrier: Barrier) {
        debug_assert!(self.unhit.is_empty() && self.placing.last().is_none_or(|b| b.depth > barrier.depth));
        let return_address = slots.read(barrier.depth);
        table.save(barrier.stub, return_address);
        slots.write(barrier.depth, table.hijacked_word(barrier.stub));
        self.placing.push(barrier);
    }

    /// Ends placing: the list is whole again.
    pub fn commit(&mut self) {
        self.unhit.extend(self.placing.drain(..).rev());
    }

    /// The goroutine returns through `stub` in the slot at `depth`: the slot gets its return address back.
    ///
    /// # Errors
    /// [`UnknownHit`]; nothing has been changed then but leapfrogged barriers settled.
    pub fn hit(
        &mut self,
        slots: &mut impl Slots,
        table: &impl Table,
        pool: &StubPool,
        depth: usize,
        stub: u32,
    ) -> Result<Settled, UnknownHit> {
        let leapfrogged = self.leave(pool, depth).leapfrogged;
        match self.unhit.last() {
            Some(b) if b.depth == depth && b.stub == stub => {
                slots.write(depth, table.saved(stub));
                self.unhit.pop();
                pool.give(stub);
                self.settle_limbo(pool);
                Ok(Settled { hit: 1, leapfrogged })
            }
            lowest => Err(UnknownHit { stub, depth, lowest: lowest.copied() }),
        }
    }

    /// The goroutine has left all frames with return slots deeper than `depth` without returning through them: their
    /// barriers are settled. The slots are dead memory and stay as they are.
    pub fn leave(&mut self, pool: &StubPool, depth: usize) -> Settled {
        let mut leapfrogged = 0;
        while let Some(b) = self.unhit.last().filter(|b| b.depth > depth) {
            pool.give(b.stub);
            self.unhit.pop();
            leapfrogged += 1;
        }
        Settled { hit: 0, leapfrogged }
    }

    /// Restores every slot. `sp_depth` is the depth of the goroutine's stack pointer: barriers deeper than that were
    /// leapfrogged. `foreign`: the goroutine is InForeign, its own thread may be walking these frames.
    pub fn remove_all(
        &mut self,
        slots: &mut impl Slots,
        table: &impl Table,
        pool: &StubPool,
        sp_depth: usize,
        foreign: bool,
    ) -> Settled {
        let settled = self.leave(pool, sp_depth);
        for b in self.unhit.drain(..) {
            // A slot that no longer holds its stub is left alone and its index stays taken.
            if slots.read(b.depth) == table.hijacked_word(b.stub) {
                slots.write(b.depth, table.saved(b.stub));
                if foreign {
                    self.limbo.push(b.stub);
                } else {
                    pool.give(b.stub);
                }
            }
        }
        if !foreign {
            self.settle_limbo(pool);
        }
        settled
    }

    /// The goroutine has run managed code, or has ended: stubs in limbo may be used again.
    pub fn settle_limbo(&mut self, pool: &StubPool) {
        for stub in self.limbo.drain(..) {
            pool.give(stub);
        }
    }
}

/// The stubs that are not in use.
#[derive(Debug)]
pub struct StubPool {
    free: Mutex<Vec<u32>>,
    /// How often somebody went away empty-handed. Relaxed everywhere: a statistic.
    exhausted: AtomicU64,
}

impl StubPool {
    /// A pool of these stubs.
    pub fn new(stubs: impl IntoIterator<Item = u32>) -> Self {
        StubPool { free: Mutex::new(stubs.into_iter().collect()), exhausted: AtomicU64::new(0) }
    }

    /// A free stub, or `None`, which is counted.
    pub fn take(&self) -> Option<u32> {
        let stub = self.free.lock().pop();
        if stub.is_none() {
            self.exhausted.fetch_add(1, Ordering::Relaxed);
        }
        stub
    }

    fn give(&self, stub: u32) {
        self.free.lock().push(stub);
    }

    /// How many stubs are free.
    pub fn available(&self) -> usize {
        self.free.lock().len()
    }

    /// How often the pool was empty.
    pub fn exhausted(&self) -> u64 {
        self.exhausted.load(Ordering::Relaxed)
    }
}
