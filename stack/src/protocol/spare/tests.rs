//! What the list says of its nodes, one step after another.

use super::*;
use proptest::prelude::*;
use std::sync::Arc;

fn make<T>(list: &SpareList<T>, value: T) -> NonNull<Node<T>> {
    list.make(value).expect("an address of this system")
}

#[test]
fn addresses_that_are_too_long_or_not_aligned_are_not_packed() {
    let end = 1_u64 << ADDRESS_BITS;
    let packable = |address: u64| usize::try_from(address).is_ok_and(is_packable);
    assert!(packable(0) && packable(64) && packable(end - 64));
    assert!(!packable(end) && !packable(end + 64) && !packable(1 << 63));
    assert!(!packable(8) && !packable(32) && !packable(end - 32));
}

proptest! {
    #[test]
    fn a_head_gives_its_address_back_whatever_its_tag(
        node in 0..1u64 << (ADDRESS_BITS - ALIGN_BITS),
        tag in any::<u32>(),
    ) {
        let (node, tag) = ((node << 6) as usize, u64::from(tag));
        let head = pack(node, tag);
        prop_assert_eq!(address(head), node);
        prop_assert_ne!(head, pack(node, tag + 1));
        prop_assert_eq!(head, pack(node, tag + (1 << TAG_BITS)));
    }

    /// `true` takes a node, `false` gives back the one that was taken first.
    #[test]
    fn the_last_node_given_is_taken_first_and_counts_are_exact(
        steps in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let list = SpareList::new();
        let (mut spare, mut taken) = (Vec::new(), Vec::new());
        let mut made = 0;
        for takes in steps {
            if takes {
                let node = list.take();
                prop_assert_eq!(node, spare.pop());
                taken.push(node.unwrap_or_else(|| {
                    made += 1;
                    make(&list, made)
                }));
            } else if !taken.is_empty() {
                let node = taken.remove(0);
                // SAFETY: taken, and not used any more.
                unsafe { list.give(node) };
                spare.push(node);
            }
            prop_assert_eq!(list.count(), (made, spare.len()));
            prop_assert_eq!(list.is_empty(), spare.is_empty());
        }
    }
}

/// Invariant 2: a thread that has read the head before sees that the node was away.
#[test]
fn a_node_that_comes_back_makes_another_head() {
    let list = SpareList::new();
    for value in 0..2 {
        // SAFETY: just made.
        unsafe { list.give(make(&list, value)) };
    }
    let before = list.head.load(Ordering::Relaxed);
    let [first, second] = [list.take(), list.take()].map(|node| node.expect("there are two"));
    // SAFETY: taken, and not used any more.
    unsafe { list.give(first) };
    let after = list.head.load(Ordering::Relaxed);
    assert_eq!(address(before), address(after));
    assert_ne!(before, after);
    assert_eq!((list.take(), list.take()), (Some(first), None));
    assert_ne!(first, second);
}

/// While other threads change the list, a walk may come from a node to one that was put in later,
/// and so in a circle.
#[test]
fn a_count_ends_when_it_has_counted_as_many_as_there_are() {
    let list = SpareList::new();
    let nodes = [(); 2].map(|()| make(&list, ()));
    // SAFETY: just made.
    nodes.iter().for_each(|node| unsafe { list.give(*node) });
    // SAFETY: nodes live as long as the list.
    unsafe { nodes[0].as_ref() }.next.store(nodes[1].as_ptr() as usize, Ordering::Relaxed);
    assert_eq!(list.count(), (2, 2));
}

#[test]
fn the_list_frees_every_node_taken_or_not() {
    let value = Arc::new(());
    let list = SpareList::new();
    let nodes = [(); 3].map(|()| make(&list, Arc::clone(&value)));
    // SAFETY: just made.
    unsafe { list.give(nodes[1]) };
    assert_eq!(Arc::strong_count(&value), 4);
    drop(list);
    assert_eq!(Arc::strong_count(&value), 1);
}
