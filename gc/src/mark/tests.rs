//! Marking of whole graphs by any number of threads.

use std::sync::{Arc, Weak};

use super::Marker;
use crate::heap::{BY_COLLECTOR, Heap, Marked};
use crate::mark_sweep::{Descriptor, MarkSweep, Options};
use crate::write_barrier::Sink;

/// Bytes of a word.
const WORD: usize = size_of::<usize>();
/// Bytes of the smallest cell.
const CELL: usize = 8;

/// A heap with a list, a wide tree in one large array and garbage; the roots and how many
/// objects they reach.
fn graph() -> (Arc<MarkSweep>, Vec<usize>, u64, u64) {
    let heap = MarkSweep::new(&Options { limit: 256 << 20, poison: true, ..Options::default() })
        .expect("a heap");
    let allocator = heap.allocator().expect("an allocator");
    let references = heap.register(Descriptor::references()).expect("a descriptor");
    let new = |bytes| allocator.hand_out(references, bytes).expect("room").as_ptr() as usize;
    let store = |object: usize, word: usize, value: usize| {
        // SAFETY: within an object that was just allocated.
        unsafe { ((object + word * WORD) as *mut usize).write(value) }
    };
    let mut list = 0;
    for _ in 0..50_000 {
        let node = new(2 * WORD);
        new(2 * WORD);
        store(node, 0, list);
        store(node, 1, node + WORD);
        list = node;
    }
    let wide = new(100_000 * WORD);
    for i in 0..100_000 {
        store(wide, i, new(CELL) + i % CELL);
    }
    let bytes = 50_000 * 2 * WORD + 100_000 * WORD + 100_000 * CELL;
    (heap, vec![list, 12345, wide + 50_000 * WORD], 150_001, bytes as u64)
}

#[test]
fn any_number_of_workers_marks_exactly_what_is_reachable() {
    for workers in [1, 2, 5] {
        let (heap, roots, objects, bytes) = graph();
        let mut marker = Marker::start(Arc::clone(&heap), Weak::new(), workers).expect("threads");
        for _ in 0..3 {
            heap.begin_cycle(BY_COLLECTOR);
            marker.open();
            marker.state().shade(&roots);
            marker.drain();
            marker.state().take(roots.clone());
            marker.drain();
            let marked = marker.close();
            assert_eq!(marked, Marked { objects, bytes });
            heap.end_cycle(marked, BY_COLLECTOR);
            heap.finish_sweep(BY_COLLECTOR);
            assert_eq!(heap.counts().live_bytes, bytes);
        }
    }
}

#[test]
fn helpers_mark_with_the_workers() {
    let (heap, roots, objects, bytes) = graph();
    let mut marker = Marker::start(Arc::clone(&heap), Weak::new(), 1).expect("threads");
    let state = Arc::clone(marker.state());
    assert_eq!(state.help(1 << 20, || false), 0);
    let mut helped = 0;
    for _ in 0..20 {
        heap.begin_cycle(BY_COLLECTOR);
        marker.open();
        std::thread::scope(|scope| {
            let help = || {
                state.shade(&roots);
                (0..1000).map(|_| state.help(1 << 10, || false)).sum::<u64>()
            };
            let helpers = [scope.spawn(help), scope.spawn(help)];
            helped += helpers.map(|helper| helper.join().expect("no panic")).iter().sum::<u64>();
        });
        marker.drain();
        let marked = marker.close();
        assert_eq!(marked, Marked { objects, bytes });
        heap.end_cycle(marked, BY_COLLECTOR);
        heap.finish_sweep(BY_COLLECTOR);
    }
    assert_ne!(helped, 0);
}

#[test]
fn words_that_arrive_before_the_cycle_wait_for_it() {
    let (heap, roots, objects, _) = graph();
    let mut marker = Marker::start(Arc::clone(&heap), Weak::new(), 2).expect("threads");
    marker.state().take(roots.clone());
    assert!(marker.state().is_unmarked(roots[0]));
    heap.begin_cycle(BY_COLLECTOR);
    marker.open();
    marker.drain();
    assert!(!marker.state().is_unmarked(roots[0]) && !marker.state().is_unmarked(12345));
    assert_eq!(marker.close().objects, objects);
}
