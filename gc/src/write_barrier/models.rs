//! Models of the barrier between cycles and at the beginning of one. A goroutine has the only
//! reference to an object. While a cycle begins it stores the reference into another object and
//! forgets it.

use super::*;
use crate::collector::model::{ModelCollector, bounded};
use loom::sync::Arc as LoomArc;
use loom::thread;
use stackmark_stack::sync::{AtomicUsize, Ordering::Relaxed, leave_out};

/// An object that is stored, and the one that it is stored into.
const HIDDEN: usize = 2;
const HOLDER: usize = 3;

struct Modelled {
    collector: Arc<ModelCollector>,
    field: AtomicUsize,
}

/// The last cycle has ended, and stores are remembered.
fn modelled(hidden_is_old: bool, holder_is_old: bool) -> LoomArc<Modelled> {
    let collector = ModelCollector::new(Kind::Insertion);
    collector.heap.set_marked(HIDDEN, hidden_is_old);
    collector.heap.set_marked(HOLDER, holder_is_old);
    collector.barrier.turn_off(true);
    collector.stack.store(HIDDEN, Relaxed);
    LoomArc::new(Modelled { collector, field: AtomicUsize::new(0) })
}

impl Modelled {
    fn hide(&self) {
        let (world, barrier) = (&self.collector.world, &self.collector.barrier);
        let buffer = barrier.buffer();
        world.enter();
        world.safepoint();
        if barrier.is_on() {
            buffer.store(HIDDEN, HOLDER);
        }
        // Relaxed: as plain stores of managed code.
        self.field.store(HIDDEN, Relaxed);
        self.collector.stack.store(0, Relaxed);
        world.safepoint();
        world.exit();
    }
}

/// `major`: the cycle clears all marks and traces everything; else only what is unmarked.
fn a_cycle_begins_while_a_goroutine_hides_an_object(
    hidden_is_old: bool,
    holder_is_old: bool,
    major: bool,
) {
    bounded(3, move || {
        let m = modelled(hidden_is_old, holder_is_old);
        let goroutine = m.clone();
        let thread = thread::spawn(move || goroutine.hide());
        let collector = &m.collector;
        collector.open(major);
        // Some other root refers to the holder.
        if !collector.heap.is_marked(HOLDER) {
            collector.heap.set_marked(HOLDER, true);
            collector.heap.set_marked(m.field.load(Relaxed), true);
        }
        collector.close();
        thread.join().unwrap();
        assert!(!collector.heap.is_freed(HIDDEN), "the object is hidden");
    });
}

macro_rules! model_and_twin {
    ($model:ident, $twin:ident without $left_out:ident, $body:expr) => {
        #[test]
        fn $model() {
            $body();
        }

        #[test]
        #[should_panic]
        fn $twin() {
            leave_out(LeftOut::$left_out);
            $body();
        }
    };
}

model_and_twin!(
    loom_a_minor_cycle_finds_what_is_stored_into_an_old_object,
    loom_twin_of_stores_between_cycles_that_are_not_remembered without Recorded,
    || a_cycle_begins_while_a_goroutine_hides_an_object(false, true, false)
);

model_and_twin!(
    loom_a_minor_cycle_finds_what_is_stored_into_a_young_object,
    loom_twin_of_a_minor_cycle_that_begins_without_a_handshake without Handshake,
    || a_cycle_begins_while_a_goroutine_hides_an_object(false, false, false)
);

model_and_twin!(
    loom_a_major_cycle_finds_an_old_object_in_an_old_one,
    loom_twin_of_marks_that_are_cleared_after_the_handshake without ClearFirst,
    || a_cycle_begins_while_a_goroutine_hides_an_object(true, true, true)
);

#[test]
fn loom_a_thread_that_ends_takes_no_words_with_it() {
    for marking in [false, true] {
        loom::model(move || {
            let m = modelled(false, true);
            let (barrier, heap) = (&m.collector.barrier, &m.collector.heap);
            if marking {
                barrier.turn_on();
            }
            let buffer = barrier.buffer();
            buffer.store(HIDDEN, HOLDER);
            let thread = thread::spawn(move || drop(buffer));
            barrier.turn_on();
            barrier.take_buffers();
            heap.drain();
            assert!(heap.is_marked(HIDDEN), "the words are neither here nor there");
            thread.join().unwrap();
        });
    }
}

#[test]
fn loom_a_major_cycle_finds_a_young_object_whatever_holds_it() {
    for holder_is_old in [false, true] {
        a_cycle_begins_while_a_goroutine_hides_an_object(false, holder_is_old, true);
    }
}
