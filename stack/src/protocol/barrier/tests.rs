//! The properties of a list of barriers.

use super::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};

const STUBS: u32 = 8;

/// A stack of return slots, one in every 8 bytes, oldest first, and the table.
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
    ) {
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
                        let (depth, number) = ((frame + 1) * 8, (frames - frame) as i64);
                        list.place(&mut m, &table, Barrier { depth, stub, frame: number });
                    }
                }
            }
            let depths: Vec<_> = list.unhit().iter().map(|b| b.depth).collect();
            prop_assert!(depths.is_sorted(), "oldest first");
            let youngest = true_returns.len() * 8;
            prop_assert!(depths.iter().all(|d| *d <= youngest), "none in a frame that was left");
        }
        list.leave(&pool, 0);
        list.settle_limbo(&pool);
        prop_assert_eq!(pool.available(), STUBS as usize);
    }
}

proptest! {
    /// Barriers of several scans, thinned out from a stack pointer at `from`.
    #[test]
    fn thinning_out_keeps_the_barriers_that_bound_a_rescan(
        frames in prop::collection::btree_set(1..60usize, 0..STUBS as usize),
        above in 0..20usize,
        foreign in any::<bool>(),
    ) {
        let model = Model::default();
        model.slots.borrow_mut().extend(1..=60);
        let (mut m, table) = (&model, &model);
        let pool = StubPool::new(0..STUBS);
        let mut list = BarrierList::default();
        for frame in &frames {
            let stub = pool.take().expect("as many as frames");
            list.place(&mut m, &table, Barrier { depth: frame * 8, stub, frame: *frame as i64 });
        }
        let before: Vec<_> = frames.iter().map(|frame| frame * 8).collect();
        let from = before.last().unwrap_or(&0) + above * 8;
        let removed = list.thin_out(&mut m, &table, &pool, (from, 0), foreign);
        let kept: Vec<_> = list.unhit().iter().map(|b| b.depth).collect();
        prop_assert_eq!(kept.len() + removed as usize, before.len());
        prop_assert!(kept.iter().all(|depth| before.contains(depth)));
        prop_assert_eq!([kept.first(), kept.last()], [before.first(), before.last()]);
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
                from - next > 2 * (from - younger),
                "{} is not needed between {} and {}", between, younger, next
            );
        }
        for depth in (8..=480).step_by(8) {
            let b = list.unhit().iter().find(|b| b.depth == depth);
            let word = b.map_or(depth / 8, |b| (&table).hijacked_word(b.stub));
            prop_assert_eq!(m.read(depth), word, "the slot at {}", depth);
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
}
