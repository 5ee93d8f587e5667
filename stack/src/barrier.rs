//! The barriers of one goroutine and the pool of stubs: placing, hitting, leapfrogging, removing,
//! recycling.
//!
//! Plain Rust without raw memory: slots are reached through [`Slots`], the table of saved return
//! addresses through [`Table`], so that models run this very code. All of it happens under the
//! goroutine's `scan_lock`. (Go took no lock on the hit path; its issue 18206, a return while
//! another thread removes the barrier, was never solved.)
//!
//! Invariants:
//!
//! 1. The list holds the barriers that have not been hit, oldest first; each slot at most once. The
//!    last one is the *lowest unhit* barrier: frames older than its owner are frozen.
//! 2. The table's word is written before the slot, so that whoever sees the stub finds the return
//!    address.
//! 3. Slots are written only by the goroutine itself or by its holder.
//! 4. A stub's index is given back only when no slot that the goroutine may still return through,
//!    or that an unwinder of its own thread may be looking at, can hold the stub: after a hit has
//!    restored the slot; after a removal while the goroutine is not InForeign; when it has left the
//!    frame.
//! 5. A slot is named by its depth (stack_hi - address), so a move of the stack changes nothing
//!    here.

use crate::sync::{AtomicU64, LeftOut, Mutex, Ordering, left_out};

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
pub(crate) struct ImageTable;

impl Table for ImageTable {
    fn save(&self, stub: u32, return_address: usize) {
        // SAFETY: the list has taken the stub from the pool, and no slot holds it yet (invariant 2).
        let word = unsafe { stackmark_asm::barrier::saved(stub as usize) };
        // Release: invariant 2, for unwinders on other threads that read the slot without our lock.
        word.store(return_address, std::sync::atomic::Ordering::Release);
    }
    fn saved(&self, stub: u32) -> usize {
        // SAFETY: only loads.
        let word = unsafe { stackmark_asm::barrier::saved(stub as usize) };
        word.load(std::sync::atomic::Ordering::Acquire)
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
    /// How many frames younger than or owning the slot the scan that placed it had visited: what
    /// lies beyond is frozen.
    pub frames: u64,
}

/// What a hit or an unwinding found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Barriers returned through.
    pub hit: u32,
    /// Barriers whose frames were left without returning.
    pub leapfrogged: u32,
    /// Barriers taken out of slots that may still be returned through.
    pub removed: u32,
}

/// A stub was returned through that the goroutine's list does not name: memory was overwritten, or
/// two goroutines share a stack.
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

    /// Hijacks the slot at the barrier's depth, which holds a return address.
    pub fn place(&mut self, slots: &mut impl Slots, table: &impl Table, barrier: Barrier) {
        let at = self.unhit.partition_point(|b| b.depth < barrier.depth);
        debug_assert!(
            self.unhit.get(at).is_none_or(|b| b.depth != barrier.depth),
            "one barrier per slot"
        );
        let return_address = slots.read(barrier.depth);
        if left_out(LeftOut::SavedFirst) {
            slots.write(barrier.depth, table.hijacked_word(barrier.stub));
        }
        table.save(barrier.stub, return_address);
        slots.write(barrier.depth, table.hijacked_word(barrier.stub));
        self.unhit.insert(at, barrier);
    }

    /// The goroutine returns through `stub` in the slot at `depth`: the slot gets its return
    /// address back.
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
                Ok(Settled { hit: 1, leapfrogged, removed: 0 })
            }
            lowest => Err(UnknownHit { stub, depth, lowest: lowest.copied() }),
        }
    }

    /// The goroutine has left all frames with return slots deeper than `depth` without returning
    /// through them: their barriers are settled. The slots are dead memory and stay as they are.
    pub fn leave(&mut self, pool: &StubPool, depth: usize) -> Settled {
        let mut settled = Settled::default();
        while let Some(b) = self.unhit.last().filter(|b| b.depth > depth) {
            pool.give(b.stub);
            self.unhit.pop();
            settled.leapfrogged += 1;
        }
        settled
    }

    /// Restores every slot. `sp_depth` is the depth of the goroutine's stack pointer: barriers
    /// deeper than that were leapfrogged. `foreign`: the goroutine is InForeign, its own thread may
    /// be walking these frames.
    pub fn remove_all(
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
        settled
    }

    /// Restores the slots at `depth` and deeper; tells how many. For the goroutine itself.
    pub fn remove_younger(
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

    /// Removes barriers that several scans have left closer together than is needed: the lowest
    /// stays, and no gap gets longer than the distance from `from`, a stack pointer's depth, to its
    /// younger end. Tells how many it has removed.
    pub fn thin_out(
        &mut self,
        slots: &mut impl Slots,
        table: &impl Table,
        pool: &StubPool,
        from: usize,
        foreign: bool,
    ) -> u32 {
        let Some(mut kept) = self.lowest() else { return 0 };
        let mut removed = 0;
        for i in (1..self.unhit.len().saturating_sub(1)).rev() {
            let (b, next) = (self.unhit[i], self.unhit[i - 1]);
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

    /// How many stubs this list has taken from the pool and not given back.
    pub fn stubs(&self) -> usize {
        self.unhit.len() + self.limbo.len()
    }

    /// The barriers at `depth` and older ones are `more` frames farther from where frames are
    /// counted from. Wraps around.
    pub fn count_from(&mut self, depth: usize, more: u64) {
        for b in self.unhit.iter_mut().filter(|b| b.depth <= depth) {
            b.frames = b.frames.wrapping_add(more);
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
        // A slot that no longer holds its stub is left alone and its index stays taken.
        if slots.read(b.depth) == table.hijacked_word(b.stub) {
            slots.write(b.depth, table.saved(b.stub));
            if foreign && !left_out(LeftOut::Limbo) {
                self.limbo.push(b.stub);
            } else {
                pool.give(b.stub);
            }
        }
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
    size: usize,
    /// So many are kept for frontiers and lowest barriers.
    reserve: usize,
    /// How often somebody went away empty-handed. Relaxed everywhere: a statistic.
    exhausted: AtomicU64,
}

impl StubPool {
    /// A pool of these stubs.
    pub fn new(stubs: impl IntoIterator<Item = u32>) -> Self {
        let free: Vec<_> = stubs.into_iter().collect();
        let size = free.len();
        StubPool { free: Mutex::new(free), size, reserve: size / 8, exhausted: AtomicU64::new(0) }
    }

    /// A free stub, or `None`, which is counted.
    pub fn take(&self) -> Option<u32> {
        self.take_beyond(0)
    }

    /// As [`StubPool::take`], for a barrier that can wait: leaves the last eighth of the stubs
    /// alone.
    pub fn take_if_plenty(&self) -> Option<u32> {
        self.take_beyond(self.reserve)
    }

    fn take_beyond(&self, reserve: usize) -> Option<u32> {
        let mut free = self.free.lock();
        let stub = if free.len() > reserve { free.pop() } else { None };
        if stub.is_none() {
            self.exhausted.fetch_add(1, Ordering::Relaxed);
        }
        stub
    }

    fn give(&self, stub: u32) {
        self.free.lock().push(stub);
    }

    /// How many stubs there are, free or not.
    pub fn size(&self) -> usize {
        self.size
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

#[cfg(all(test, stackmark_loom))]
mod loom_models {
    use super::*;
    use crate::status::{Status, StatusWord};
    use crate::sync::{AtomicUsize, leave_out};
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    const STUB_WORD: usize = 1 << 20;
    const WORD: usize = 8;

    /// The table and the return slots of one stack, all of them plain cells or relaxed atomics:
    /// whatever order there is comes from the protocol.
    struct Stack {
        table: Vec<AtomicUsize>,
        slots: Vec<UnsafeCell<usize>>,
    }

    impl Table for Stack {
        fn save(&self, stub: u32, return_address: usize) {
            self.table[stub as usize].store(return_address, Ordering::Relaxed);
        }
        fn saved(&self, stub: u32) -> usize {
            self.table[stub as usize].load(Ordering::Relaxed)
        }
        fn hijacked_word(&self, stub: u32) -> usize {
            STUB_WORD + stub as usize
        }
    }

    struct View<'s>(&'s Stack);

    impl Slots for View<'_> {
        fn read(&self, depth: usize) -> usize {
            // SAFETY: loom checks that nobody writes.
            self.0.slots[depth / WORD].with(|slot| unsafe { *slot })
        }
        fn write(&mut self, depth: usize, word: usize) {
            // SAFETY: loom checks that nobody else is there.
            self.0.slots[depth / WORD].with_mut(|slot| unsafe { *slot = word })
        }
    }

    struct Modelled {
        status: StatusWord,
        scan: Mutex<BarrierList>,
        stack: Stack,
        /// Depth of the goroutine's stack pointer.
        sp: UnsafeCell<usize>,
        pool: StubPool,
    }

    fn return_address(frame: usize) -> usize {
        1000 + frame
    }

    /// A goroutine with `frames` frames; frame 0 is the oldest. With barriers in the slots of
    /// `barriers`.
    fn modelled(status: Status, frames: usize, barriers: &[usize]) -> Arc<Modelled> {
        let slots = (0..frames).map(|frame| UnsafeCell::new(return_address(frame))).collect();
        let stack = Stack { table: (0..4).map(|_| AtomicUsize::new(0)).collect(), slots };
        let pool = StubPool::new(0..4);
        let mut list = BarrierList::default();
        place(&mut list, &stack, &pool, barriers);
        let sp = UnsafeCell::new(frames * WORD);
        Arc::new(Modelled {
            status: StatusWord::new(status),
            scan: Mutex::new(list),
            stack,
            sp,
            pool,
        })
    }

    fn place(list: &mut BarrierList, stack: &Stack, pool: &StubPool, frames: &[usize]) {
        for &frame in frames.iter().rev() {
            let stub = pool.take().expect("enough stubs");
            list.place(&mut View(stack), stack, Barrier { depth: frame * WORD, stub, frames: 0 });
        }
    }

    impl Modelled {
        /// The goroutine returns from `frame`: as the ret instruction and the stub do.
        fn return_from(&self, frame: usize) {
            let depth = frame * WORD;
            let found = View(&self.stack).read(depth);
            let target = if found >= STUB_WORD {
                let stub = (found - STUB_WORD) as u32;
                let mut list = self.scan.lock();
                list.hit(&mut View(&self.stack), &self.stack, &self.pool, depth, stub)
                    .expect("a known barrier");
                View(&self.stack).read(depth)
            } else {
                found
            };
            assert_eq!(target, return_address(frame));
            // SAFETY: loom checks that nobody else is there.
            self.sp.with_mut(|sp| unsafe { *sp = depth });
        }

        /// A holder removes all barriers and places others, in the frames that are still there.
        fn renew(&self, barriers: &[usize]) {
            let Ok(mut held) = self.status.hold(&self.scan) else { return };
            let foreign = held.status == Status::Foreign;
            // SAFETY: loom checks that nobody writes.
            let sp = self.sp.with(|sp| unsafe { *sp });
            let list = &mut *held.state;
            list.remove_all(&mut View(&self.stack), &self.stack, &self.pool, sp, foreign);
            let there: Vec<_> =
                barriers.iter().copied().filter(|frame| frame * WORD < sp).collect();
            place(list, &self.stack, &self.pool, &there);
        }
    }

    fn bounded(bound: usize, model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(bound);
        builder.check(model);
    }

    #[test]
    fn loom_a_return_meets_the_removal_of_its_barrier() {
        a_return_meets_a_removal();
    }

    #[test]
    #[should_panic]
    fn loom_twin_of_a_return_and_a_removal_without_holding() {
        leave_out(LeftOut::Held);
        a_return_meets_a_removal();
    }

    /// Go's issue 18206: the goroutine comes back from native code while another thread removes its
    /// barriers.
    fn a_return_meets_a_removal() {
        bounded(3, || {
            let m = modelled(Status::Foreign, 3, &[0, 1, 2]);
            let goroutine = m.clone();
            let thread = thread::spawn(move || {
                goroutine.status.start_running(Status::Foreign, &goroutine.scan);
                for frame in (0..3).rev() {
                    goroutine.return_from(frame);
                }
                goroutine.status.stop(Status::Dead);
            });
            m.renew(&[]);
            thread.join().unwrap();
            let mut list = m.scan.lock();
            assert_eq!(list.lowest(), None);
            list.settle_limbo(&m.pool);
            assert_eq!(m.pool.available(), 4, "every stub came back");
        });
    }

    #[test]
    fn loom_a_return_meets_the_renewal_of_barriers() {
        bounded(3, || {
            let m = modelled(Status::Parked, 2, &[1]);
            let goroutine = m.clone();
            let thread = thread::spawn(move || {
                goroutine.status.ready();
                goroutine.status.start_running(Status::Runnable, &goroutine.scan);
                goroutine.return_from(1);
                goroutine.status.stop(Status::Parked);
                goroutine.status.ready();
                goroutine.status.start_running(Status::Runnable, &goroutine.scan);
                goroutine.return_from(0);
                goroutine.status.stop(Status::Dead);
            });
            m.renew(&[0]);
            thread.join().unwrap();
        });
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::{Cell, RefCell};

    const STUBS: u32 = 8;

    /// A stack of return slots, one every 8 bytes, oldest first, and the table.
    #[derive(Default)]
    struct Model {
        slots: RefCell<Vec<usize>>,
        table: [Cell<usize>; STUBS as usize],
    }

    impl Slots for &Model {
        fn read(&self, depth: usize) -> usize {
            self.slots.borrow()[depth / 8 - 1]
        }
        fn write(&mut self, depth: usize, word: usize) {
            self.slots.borrow_mut()[depth / 8 - 1] = word;
        }
    }

    impl Table for &Model {
        fn save(&self, stub: u32, return_address: usize) {
            self.table[stub as usize].set(return_address);
        }
        fn saved(&self, stub: u32) -> usize {
            self.table[stub as usize].get()
        }
        fn hijacked_word(&self, stub: u32) -> usize {
            1_000_000 + stub as usize
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Calls so many frames deep.
        Call(u8),
        /// Returns from so many frames, one by one.
        Return(u8),
        /// Leaves so many frames at once.
        Unwind(u8),
        /// Scans: renews the barriers, at every so many frames.
        Scan { every: u8, foreign: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..20u8).prop_map(Step::Call),
            (1..12u8).prop_map(Step::Return),
            (1..6u8).prop_map(Step::Unwind),
            ((1..6u8), any::<bool>()).prop_map(|(every, foreign)| Step::Scan { every, foreign }),
        ]
    }

    proptest! {
        #[test]
        fn every_return_reaches_its_caller_and_no_stub_is_lost(steps in prop::collection::vec(step(), 1..60)) {
            let model = Model::default();
            let (mut m, table) = (&model, &model);
            let pool = StubPool::new(0..STUBS);
            let mut list = BarrierList::default();
            let mut true_returns: Vec<usize> = Vec::new();
            let mut next = 1;
            for step in steps {
                match step {
                    Step::Call(n) => for _ in 0..n {
                        true_returns.push(next);
                        model.slots.borrow_mut().push(next);
                        next += 1;
                    },
                    Step::Return(n) => for _ in 0..n {
                        let Some(want) = true_returns.pop() else { break };
                        let depth = (true_returns.len() + 1) * 8;
                        let found = m.read(depth);
                        let target = if found >= 1_000_000 {
                            let stub = (found - 1_000_000) as u32;
                            list.hit(&mut m, &table, &pool, depth, stub).expect("a known barrier");
                            m.read(depth)
                        } else { found };
                        prop_assert_eq!(target, want);
                        model.slots.borrow_mut().pop();
                    },
                    Step::Unwind(n) => {
                        let keep = true_returns.len().saturating_sub(n.into());
                        true_returns.truncate(keep);
                        model.slots.borrow_mut().truncate(keep);
                        list.leave(&pool, keep * 8);
                    }
                    Step::Scan { every, foreign } => {
                        let frames = true_returns.len();
                        list.remove_all(&mut m, &table, &pool, frames * 8, foreign);
                        prop_assert_eq!(&*model.slots.borrow(), &true_returns, "all slots are whole");
                        for frame in (0..frames).rev().step_by(every.into()) {
                            let Some(stub) = pool.take() else { break };
                            let barrier = Barrier { depth: (frame + 1) * 8, stub, frames: (frames - frame) as u64 };
                            list.place(&mut m, &table, barrier);
                        }
                    }
                }
                let depths: Vec<_> = list.unhit().iter().map(|b| b.depth).collect();
                prop_assert!(depths.is_sorted(), "oldest first");
                prop_assert!(depths.iter().all(|d| *d <= true_returns.len() * 8), "none in a frame that was left");
            }
            list.leave(&pool, 0);
            list.settle_limbo(&pool);
            prop_assert_eq!(pool.available(), STUBS as usize);
        }
    }

    #[test]
    fn a_stub_that_the_list_does_not_name_is_an_error() {
        let model = Model::default();
        model.slots.borrow_mut().extend([1, 2]);
        let (mut m, table, pool) = (&model, &model, StubPool::new(0..STUBS));
        let mut list = BarrierList::default();
        let error = list.hit(&mut m, &table, &pool, 16, 3).unwrap_err();
        assert_eq!(error, UnknownHit { stub: 3, depth: 16, lowest: None });
        assert!(error.to_string().contains("stub 3"));
    }
}
