//! What buffers and the remembered set hand over.

use std::sync::Arc;

use stackmark_stack::sync::Mutex;

use super::{CAPACITY, Kind, Sink, WriteBarrier};

#[derive(Default)]
struct Taken(Mutex<Vec<usize>>);

impl Sink for Taken {
    fn is_unmarked(&self, word: usize) -> bool {
        word.is_multiple_of(2)
    }
    fn take(&self, words: Vec<usize>) {
        self.0.lock().extend(words);
    }
}

#[test]
fn every_word_shaded_while_it_is_on_arrives_once() {
    let taken = Arc::new(Taken::default());
    let barrier = WriteBarrier::new(Kind::Insertion, taken.clone());
    let (one, other) = (barrier.buffer(), barrier.buffer());
    one.shade(2);
    barrier.turn_on();
    // SAFETY: the byte lives as long as the barrier.
    assert_ne!(unsafe { std::ptr::read_volatile(barrier.flag_address() as *const u8) }, 0);
    (0..2 * CAPACITY * 3).for_each(|word| one.shade(word));
    other.shade(100_000);
    barrier.take_buffers();
    assert_eq!(taken.0.lock().len(), CAPACITY * 3 + 1);
    other.shade(100_002);
    drop(other);
    let mut words = std::mem::take(&mut *taken.0.lock());
    words.sort_unstable();
    let expected = (0..2 * CAPACITY * 3).step_by(2).chain([100_000, 100_002]);
    assert!(words.into_iter().eq(expected));
    assert_eq!(barrier.buffers.lock().len(), 1);
    barrier.turn_off(false);
    one.shade(4);
    barrier.take_buffers();
    assert!(taken.0.lock().is_empty());
}

#[test]
fn between_cycles_stores_into_young_objects_are_left_out_and_the_others_wait() {
    let taken = Arc::new(Taken::default());
    let barrier = WriteBarrier::new(Kind::Hybrid, taken.clone());
    let buffer = barrier.buffer();
    barrier.turn_off(true);
    // SAFETY: the byte lives as long as the barrier.
    assert_ne!(unsafe { std::ptr::read_volatile(barrier.flag_address() as *const u8) }, 0);
    // Even words refer to young objects.
    buffer.store(2, 8);
    buffer.store(4, 7);
    buffer.store(5, 7);
    buffer.shade(6);
    buffer.shade_overwritten(10);
    barrier.shade_overwritten(12);
    for _ in 0..100 * CAPACITY {
        buffer.store(14, 9);
    }
    assert!(taken.0.lock().is_empty(), "nothing is marked before a cycle begins");
    assert!(barrier.remembered.lock().len() < 9 * CAPACITY, "the same words are kept once");
    barrier.turn_on();
    assert!(barrier.take_buffers() && !barrier.take_buffers());
    let mut words = std::mem::take(&mut *taken.0.lock());
    words.sort_unstable();
    words.dedup();
    assert_eq!(words, [4, 6, 14]);
    buffer.store(2, 8);
    barrier.take_buffers();
    assert_eq!(*taken.0.lock(), [2], "while marking every store counts");
}

#[test]
fn a_cycle_that_visits_everything_forgets_the_remembered_set() {
    let taken = Arc::new(Taken::default());
    let barrier = WriteBarrier::new(Kind::Insertion, taken.clone());
    barrier.turn_off(true);
    let buffer = barrier.buffer();
    (0..CAPACITY).for_each(|_| buffer.store(4, 7));
    assert_eq!(barrier.remembered.lock().len(), CAPACITY);
    barrier.turn_on();
    barrier.forget_remembered();
    assert!(!barrier.take_buffers());
}
