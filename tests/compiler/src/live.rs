//! Which values live where, and which of them may share a word of the frame.

use std::collections::BTreeSet;

use crate::ir::{Block, Body, Value};

/// Values, by number.
pub(crate) type Set = BTreeSet<usize>;

/// What is known of a function's values.
pub(crate) struct Liveness {
    /// The word of the frame of each value; values that are never alive together share one.
    pub(crate) words: Vec<u32>,
    /// How many there are.
    pub(crate) count: u32,
    /// What lives across each call: for the operations of each block.
    pub(crate) across: Vec<Vec<Set>>,
}

/// Values of which `in_register` is true have no word.
///
/// # Panics
/// If a value is read where it may not have been written.
pub(crate) fn liveness(name: &str, body: &Body, in_register: impl Fn(usize) -> bool) -> Liveness {
    let mut entering = vec![Set::new(); body.blocks.len()];
    loop {
        let before = entering.clone();
        for block in body.order.iter().rev() {
            entering[block.0] = entering_block(body, *block, &entering, &mut |_, _, _| {});
        }
        if entering == before {
            break;
        }
    }
    let params: Set = body.params.iter().map(|param| param.0).collect();
    let unset: Vec<&usize> = entering[0].difference(&params).collect();
    assert!(unset.is_empty(), "{name} reads values {unset:?} that are not set on every path");
    let mut across: Vec<Vec<Set>> =
        body.blocks.iter().map(|block| vec![Set::new(); block.ops.len()]).collect();
    let mut beside = vec![Set::new(); body.values.len()];
    let mut meet = |written: &[Value], live: &Set| {
        for a in written.iter().map(|value| value.0) {
            for b in live.iter().copied().chain(written.iter().map(|value| value.0)) {
                if a != b {
                    beside[a].insert(b);
                    beside[b].insert(a);
                }
            }
        }
    };
    meet(&body.params, &entering[0]);
    for block in &body.order {
        let code = &body.blocks[block.0];
        entering_block(body, *block, &entering, &mut |op, behind, live| {
            meet(&code.ops[op].writes(), behind);
            across[block.0][op] = live.clone();
        });
    }
    let mut words = vec![u32::MAX; body.values.len()];
    for value in (0..body.values.len()).filter(|value| !in_register(*value)) {
        let taken: BTreeSet<u32> = beside[value].iter().map(|other| words[*other]).collect();
        words[value] = (0..).find(|word| !taken.contains(word)).expect("one of so many");
    }
    let count = words.iter().filter(|word| **word != u32::MAX).max().map_or(0, |word| word + 1);
    Liveness { words, count, across }
}

/// What is alive where a block begins. Tells for each operation what is alive behind it, and what
/// is alive across it.
fn entering_block(
    body: &Body,
    block: Block,
    entering: &[Set],
    tell: &mut dyn FnMut(usize, &Set, &Set),
) -> Set {
    let code = &body.blocks[block.0];
    let end = code.end.as_ref().expect("each block ends");
    let mut live: Set = end.next().iter().flat_map(|next| &entering[next.0]).copied().collect();
    live.extend(end.reads().iter().map(|value| value.0));
    for (index, op) in code.ops.iter().enumerate().rev() {
        let behind = live.clone();
        for value in op.writes() {
            live.remove(&value.0);
        }
        if let Some(landing) = op.landing() {
            live.extend(&entering[landing.0]);
        }
        tell(index, &behind, &live);
        live.extend(op.reads().iter().map(|value| value.0));
    }
    live
}
