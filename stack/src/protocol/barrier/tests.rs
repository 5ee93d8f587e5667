//! The properties of a list of barriers.

use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;

const STUBS: u32 = 8;

/// A stack of return slots, one in every 8 bytes, oldest first, and the table.
#[derive(Default)]
struct Model {
    slots: RefCell<Vec<usize>>,
    table: RefCell<HashMap<u32, usize>>,
}

/// Bits of half a word.
const HALF: u32 = usize::BITS / 2;
/// Return addresses are smaller.
const STUB_WORD: usize = 1 << (HALF - 1);

/// A signed word names its slot in the upper half.
fn signed_word(depth: usize, address: usize) -> usize {
    depth << HALF | address
}

impl Slots for &Model {
    fn read(&self, depth: usize, signed: bool) -> usize {
        let word = self.slots.borrow()[depth / 8 - 1];
        assert_eq!(word >> HALF, if signed { depth } else { 0 }, "the signature at {depth}");
        word & ((1 << HALF) - 1)
    }
    fn write(&mut self, depth: usize, address: usize, signed: bool) {
        let word = if signed { signed_word(depth, address) } else { address };
        self.slots.borrow_mut()[depth / 8 - 1] = word;
    }
}

impl Table for &Model {
    fn save(&self, stub: u32, return_address: usize) {
        self.table.borrow_mut().insert(stub, return_address);
    }
    fn saved(&self, stub: u32) -> usize {
        self.table.borrow()[&stub]
    }
    fn hijacked_word(&self, stub: u32) -> usize {
        STUB_WORD + stub as usize
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Calls this many frames.
    Call(u8),
    /// Returns from this many frames, one by one.
    Return(u8),
    /// Leaves this many frames at once.
    Unwind(u8),
    /// Scans: replaces the barriers by one in every `every`-th frame.
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
    fn every_return_reaches_its_caller_and_no_stub_is_lost(
        steps in prop::collection::vec(step(), 1..60),
        signing in any::<u64>(),
    ) {
        let signs = |depth: usize| signing >> (depth / 8 % 64) & 1 != 0;
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
                    model.slots.borrow_mut().push(0);
                    let depth = true_returns.len() * 8;
                    m.write(depth, next, signs(depth));
                    next += 1;
                },
                Step::Return(n) => for _ in 0..n {
                    let Some(want) = true_returns.pop() else { break };
                    let depth = (true_returns.len() + 1) * 8;
                    let found = m.read(depth, signs(depth));
                    let target = if found >= STUB_WORD {
                        let stub = (found - STUB_WORD) as u32;
                        list.hit(&mut m, &table, &pool, depth, stub).expect("a known barrier");
                        m.read(depth, false)
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
                    for (i, want) in true_returns.iter().enumerate() {
                        let depth = (i + 1) * 8;
                        prop_assert_eq!(m.read(depth, signs(depth)), *want, "all slots are whole");
                    }
                    for frame in (0..frames).rev().step_by(every.into()) {
                        let Some(stub) = list.take(&pool, false) else { break };
                        let (depth, number) = ((frame + 1) * 8, (frames - frame) as i64);
                        let signed = signs(depth);
                        list.place(&mut m, &table, Barrier { depth, stub, frame: number, signed });
                    }
                }
            }
            let depths: Vec<_> = list.unhit().iter().map(|b| b.depth).collect();
            prop_assert!(depths.is_sorted(), "oldest first");
            let youngest = true_returns.len() * 8;
            prop_assert!(depths.iter().all(|d| *d <= youngest), "none in a frame that was left");
        }
        list.end(&pool);
        prop_assert_eq!(pool.available(), STUBS as usize);
    }
}

proptest! {
    /// Barriers of several scans, thinned out from a stack pointer at `from`.
    #[test]
    fn thinning_out_keeps_the_barriers_that_bound_a_rescan(
        frames in prop::collection::btree_set(1..60usize, 0..STUBS as usize),
        above in 0..20usize,
        down_to in prop_oneof![Just(0), (0..62usize).prop_map(|frame| frame * 8)],
        foreign in any::<bool>(),
    ) {
        let model = Model::default();
        model.slots.borrow_mut().extend(1..=60);
        let (mut m, table) = (&model, &model);
        let pool = StubPool::new(0..STUBS);
        let mut list = BarrierList::default();
        for frame in &frames {
            let stub = pool.take().expect("as many as frames");
            let barrier =
                Barrier { depth: frame * 8, stub, frame: *frame as i64, signed: false };
            list.place(&mut m, &table, barrier);
        }
        let before: Vec<_> = frames.iter().map(|frame| frame * 8).collect();
        let from = before.last().unwrap_or(&0) + above * 8;
        let removed = list.thin_out(&mut m, &table, &pool, (from, down_to), foreign);
        let kept: Vec<_> = list.unhit().iter().map(|b| b.depth).collect();
        prop_assert_eq!(kept.len() + removed as usize, before.len());
        prop_assert!(kept.iter().all(|depth| before.contains(depth)));
        prop_assert_eq!([kept.first(), kept.last()], [before.first(), before.last()]);
        let stay = before.iter().filter(|depth| **depth < down_to);
        prop_assert!(stay.into_iter().all(|depth| kept.contains(depth)), "down to {}", down_to);
        for pair in kept.windows(2) {
            let (next, younger) = (pair[0], pair[1]);
            let between = before.iter().any(|depth| (next + 1..younger).contains(depth));
            prop_assert!(
                !between || from - next <= 2 * (from - younger),
                "too much is removed between {} and {}", younger, next
            );
        }
        for triple in kept.windows(3) {
            let (next, between, younger) = (triple[0], triple[1], triple[2]);
            prop_assert!(
                between < down_to || from - next > 2 * (from - younger),
                "{} is not needed between {} and {}", between, younger, next
            );
        }
        for depth in (8..=480).step_by(8) {
            let b = list.unhit().iter().find(|b| b.depth == depth);
            let word = b.map_or(depth / 8, |b| (&table).hijacked_word(b.stub));
            prop_assert_eq!(m.read(depth, false), word, "the slot at {}", depth);
        }
        let (stubs, available) = (list.stubs(), pool.available());
        prop_assert_eq!(stubs + available, STUBS as usize);
        prop_assert_eq!(stubs, kept.len() + if foreign { removed as usize } else { 0 });
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

    // The lowest barrier is another one: by its stub, then by its slot.
    let stub = pool.take().expect("all are free");
    let lowest = Barrier { depth: 16, stub, frame: 1, signed: false };
    list.place(&mut m, &table, lowest);
    let other = (lowest.stub + 1) % STUBS;
    let error = list.hit(&mut m, &table, &pool, 16, other).unwrap_err();
    assert_eq!(error, UnknownHit { stub: other, depth: 16, lowest: Some(lowest) });
    let error = list.hit(&mut m, &table, &pool, 24, lowest.stub).unwrap_err();
    assert_eq!(error, UnknownHit { stub: lowest.stub, depth: 24, lowest: Some(lowest) });
    assert_eq!(m.read(16, false), (&table).hijacked_word(lowest.stub), "the slot stays as it is");
    list.hit(&mut m, &table, &pool, 16, lowest.stub).expect("the lowest one");
}

#[test]
fn each_barrier_that_is_left_counts_but_not_the_one_in_the_slot_returned_to() {
    let model = Model::default();
    model.slots.borrow_mut().extend(1..=5);
    let (mut m, table, pool) = (&model, &model, StubPool::new(0..STUBS));
    let mut list = BarrierList::default();
    for depth in [8, 16, 24, 32, 40] {
        let stub = pool.take().expect("there are more than slots");
        list.place(&mut m, &table, Barrier { depth, stub, frame: 0, signed: false });
    }
    assert_eq!(list.leave(&pool, 16), Settled { leapfrogged: 3, ..Settled::default() });
    assert_eq!(list.unhit().iter().map(|b| b.depth).collect::<Vec<_>>(), [8, 16]);
    assert_eq!(list.stubs() + pool.available(), STUBS as usize);
    assert_eq!(list.end(&pool), Settled { leapfrogged: 2, ..Settled::default() });
    assert_eq!((list.stubs(), pool.available()), (0, STUBS as usize));
}

/// A list with `barriers` barriers, one in every slot of 8 bytes, that it has taken from the pool.
fn placed(model: &Model, pool: &StubPool, barriers: usize) -> BarrierList {
    model.slots.borrow_mut().extend(1..=barriers);
    let (mut m, mut list) = (model, BarrierList::default());
    for at in 1..=barriers {
        let stub = list.take(pool, false).expect("there are more than slots");
        let barrier = Barrier { depth: at * 8, stub, frame: 0, signed: false };
        list.place(&mut m, &model, barrier);
    }
    list
}

#[test]
fn the_last_stubs_that_were_hit_are_at_hand_for_the_next_barriers() {
    let (model, pool) = (Model::default(), StubPool::new(0..64));
    let mut list = placed(&model, &pool, 40);
    assert_eq!((list.stubs(), pool.available()), (40, 24));
    let mut last = 0;
    for at in (1..=40).rev() {
        last = list.lowest().expect("one is left").stub;
        list.hit(&mut &model, &&model, &pool, at * 8, last).expect("the lowest one");
        assert_eq!(list.stubs() + pool.available(), 64);
        assert!(list.stubs() < at + AT_HAND, "few are at hand");
    }
    let at_hand = list.stubs();
    assert!(at_hand > 0);
    assert_eq!(list.take(&pool, true), Some(last), "not the pool's");
    assert_eq!((list.stubs(), pool.available()), (at_hand - 1, 64 - at_hand));
    // A whole scan leaves none at hand.
    list.remove_all(&mut &model, &&model, &pool, 0, false);
    assert_eq!((list.stubs(), pool.available()), (0, 63));
    assert_eq!(list.end(&pool), Settled::default());
}

#[test]
fn a_pool_that_runs_short_gets_each_stub_back_at_once_until_it_has_plenty() {
    let (model, pool) = (Model::default(), StubPool::new(0..64));
    let mut list = placed(&model, &pool, 57);
    assert!(pool.is_short(), "less than an eighth is left");
    for (at, available) in (50..=57).rev().zip(7..) {
        assert!(pool.available() >= available, "{} at {at}", pool.available());
        let stub = list.lowest().expect("one is left").stub;
        list.hit(&mut &model, &&model, &pool, at * 8, stub).expect("the lowest one");
    }
    // Two eighths are there once these are back, too.
    assert!(pool.is_short());
    list.leave(&pool, 47 * 8);
    assert!(!pool.is_short());
    list.end(&pool);
    assert_eq!((list.stubs(), pool.available()), (0, 64));
    placed(&Model::default(), &pool, 56);
    assert!(!pool.is_short(), "just an eighth is left");
}

#[test]
fn a_pool_keeps_an_eighth_for_barriers_that_cannot_wait_and_counts_what_it_refuses() {
    let pool = StubPool::new(0..16);
    assert_eq!((pool.size(), pool.available(), pool.exhausted()), (16, 16, 0));
    for taken in 0..14 {
        assert!(pool.take_if_plenty().is_some(), "{taken} are taken");
    }
    assert_eq!((pool.size(), pool.available(), pool.exhausted()), (16, 2, 0));
    assert_eq!(pool.take_if_plenty(), None);
    assert_eq!(pool.exhausted(), 1);
    assert!(pool.take().is_some() && pool.take().is_some());
    assert_eq!(pool.take(), None);
    assert_eq!((pool.size(), pool.available(), pool.exhausted()), (16, 0, 2));
}

#[test]
fn stubs_of_barriers_removed_in_a_foreign_call_come_back_with_the_next_hit() {
    let (model, pool) = (Model::default(), StubPool::new(0..STUBS));
    let mut list = placed(&model, &pool, 3);
    let settled = list.remove_all(&mut &model, &&model, &pool, 24, true);
    assert_eq!(settled, Settled { removed: 3, ..Settled::default() });
    let available = pool.available();
    assert_eq!((list.stubs(), available), (3, STUBS as usize - 3), "a walk may read them");
    let stub = list.take(&pool, false).expect("there are more");
    let barrier = Barrier { depth: 8, stub, frame: 0, signed: false };
    list.place(&mut &model, &&model, barrier);
    list.hit(&mut &model, &&model, &pool, 8, stub).expect("the only one");
    // But for the one that was hit, which is at hand.
    assert_eq!((list.stubs(), pool.available()), (1, STUBS as usize - 1));
}

#[test]
fn barriers_are_thinned_out_down_to_a_depth() {
    let (model, pool) = (Model::default(), StubPool::new(0..STUBS));
    let mut list = placed(&model, &pool, 8);
    let removed = list.thin_out(&mut &model, &&model, &pool, (1000, 32), false);
    assert_eq!(removed, 4);
    assert_eq!(list.unhit().iter().map(|b| b.depth).collect::<Vec<_>>(), [8, 16, 24, 64]);
}
