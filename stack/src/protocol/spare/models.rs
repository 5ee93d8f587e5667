//! Models of the list of spares.

use super::*;
use loom::{cell::UnsafeCell, sync::Arc, thread};

fn bounded(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(model);
}

fn list(nodes: u32) -> Arc<SpareList<UnsafeCell<u32>>> {
    let list = SpareList::new();
    for number in 0..nodes {
        let node = list.make(UnsafeCell::new(number)).expect("an address of this system");
        // SAFETY: just made.
        unsafe { list.give(node) };
    }
    Arc::new(list)
}

/// Takes a node, uses it alone, and puts it back.
fn take_and_give(list: &SpareList<UnsafeCell<u32>>) -> bool {
    let Some(node) = list.take() else { return false };
    // SAFETY: taken; loom checks that no other thread is there.
    unsafe {
        node.as_ref().value.with_mut(|value| *value += 1);
        list.give(node);
    }
    true
}

#[test]
fn loom_a_spare_is_taken_by_one_thread_at_a_time() {
    bounded(3, || {
        let list = list(2);
        let other = list.clone();
        let thread = thread::spawn(move || {
            // Twice: a node leaves the list and comes back under the other thread's eyes.
            assert!(take_and_give(&other));
            assert!(take_and_give(&other));
        });
        assert!(take_and_give(&list));
        thread.join().unwrap();
        let both = [list.take(), list.take()].map(|node| node.expect("none is lost"));
        assert_ne!(both[0], both[1]);
        assert!(list.take().is_none());
    });
}

/// A thread counts the spares while another makes one more.
#[test]
fn loom_spares_are_counted_while_one_is_made() {
    bounded(3, || {
        let list = list(1);
        let other = list.clone();
        let thread = thread::spawn(move || {
            let node = other.make(UnsafeCell::new(1)).expect("an address of this system");
            // SAFETY: just made.
            unsafe { other.give(node) };
        });
        let (made, spare) = list.count();
        assert!(spare <= made && made <= 2);
        thread.join().unwrap();
        assert_eq!(list.count(), (2, 2));
    });
}

#[test]
fn loom_three_threads_and_two_spares() {
    bounded(2, || {
        let list = list(2);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let list = list.clone();
                thread::spawn(move || take_and_give(&list))
            })
            .collect();
        take_and_give(&list);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(list.take().is_some() && list.take().is_some() && list.take().is_none());
    });
}
