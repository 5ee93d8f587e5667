//! A heap's cycles are its collector's: no other code has the right to run them.
use stackmark::heap::{CycleRight, Heap, Marked};
use stackmark::mark_sweep::MarkSweep;

fn main() {}

fn cycle(heap: &MarkSweep, word: usize) {
    let right = CycleRight(());
    heap.begin_cycle(&right);
    heap.mark(heap.resolve(word).unwrap(), &right);
    heap.end_cycle(Marked::default(), &right);
    heap.finish_sweep(&right);
}
