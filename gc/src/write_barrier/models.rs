//! Models of the barrier between cycles and at the beginning of one. A goroutine has the only
//! reference to an object. While a cycle begins it stores the reference into another object and
//! forgets it.

use super::*;
use loom::sync::Arc as LoomArc;
use loom::thread;
use stackmark_stack::sync::{AtomicBool, AtomicUsize, Ordering::Relaxed, leave_out};

/// An object that is stored, and the one that it is stored into.
const HIDDEN: usize = 2;
const HOLDER: usize = 4;

struct Modelled {
    barrier: Arc<WriteBarrier>,
    heap: Arc<Marks>,
    field: AtomicUsize,
    root: AtomicUsize,
    /// A handshake has begun; the goroutine has answered it.
    asked: AtomicBool,
    answered: AtomicBool,
}

/// The heap: which of the two objects are marked, and the words taken.
struct Marks {
    hidden: AtomicBool,
    holder: AtomicBool,
    taken: Mutex<Vec<usize>>,
}

impl Marks {
    fn of(&self, word: usize) -> &AtomicBool {
        if word == HIDDEN { &self.hidden } else { &self.holder }
    }
}

impl Sink for Marks {
    fn is_unmarked(&self, word: usize) -> bool {
        !self.of(word).load(Relaxed)
    }
    fn take(&self, words: Vec<usize>) {
        self.taken.lock().extend(words);
    }
}

fn modelled(hidden_is_old: bool, holder_is_old: bool) -> LoomArc<Modelled> {
    let (hidden, holder) = (AtomicBool::new(hidden_is_old), AtomicBool::new(holder_is_old));
    let heap = Arc::new(Marks { hidden, holder, taken: Mutex::default() });
    let barrier = WriteBarrier::new(Kind::Insertion, heap.clone());
    barrier.turn_off(true);
    LoomArc::new(Modelled {
        barrier,
        heap,
        field: AtomicUsize::new(0),
        root: AtomicUsize::new(HIDDEN),
        asked: AtomicBool::new(false),
        answered: AtomicBool::new(false),
    })
}

impl Modelled {
    fn safepoint(&self) {
        if self.asked.load(Acquire) {
            self.answered.store(true, Release);
        }
    }

    /// What the goroutine does from its first safepoint to its last.
    fn hide(&self) {
        let buffer = self.barrier.buffer();
        self.safepoint();
        if self.barrier.is_on() {
            buffer.store(HIDDEN, HOLDER);
        }
        // Relaxed: as plain stores of managed code.
        self.field.store(HIDDEN, Relaxed);
        self.root.store(0, Relaxed);
        self.asked.load(Acquire);
        // It stands still from here on.
        self.answered.store(true, Release);
    }

    fn handshake(&self) {
        if left_out(LeftOut::Handshake) {
            return;
        }
        self.asked.store(true, Release);
        while !self.answered.load(Acquire) {
            thread::yield_now();
        }
    }
}

/// `major`: the cycle clears all marks and traces everything; else only what is unmarked.
fn a_cycle_begins_while_a_goroutine_hides_an_object(
    hidden_is_old: bool,
    holder_is_old: bool,
    major: bool,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let m = modelled(hidden_is_old, holder_is_old);
        let goroutine = m.clone();
        let thread = thread::spawn(move || goroutine.hide());
        let clear = || {
            if major {
                [&m.heap.hidden, &m.heap.holder].iter().for_each(|mark| mark.store(false, Relaxed));
            }
        };
        if !left_out(LeftOut::ClearFirst) {
            clear();
        }
        m.barrier.turn_on();
        m.handshake();
        if left_out(LeftOut::ClearFirst) {
            clear();
        }
        if major {
            m.barrier.forget_remembered();
        }
        // Some other root refers to the holder.
        let traced = !m.heap.holder.load(Relaxed);
        m.heap.holder.store(true, Relaxed);
        let in_field = traced && m.field.load(Relaxed) == HIDDEN;
        // The goroutine's stack is visited when it stands still. Mark termination takes the
        // buffers.
        thread.join().unwrap();
        let on_stack = m.root.load(Relaxed) == HIDDEN;
        m.barrier.take_buffers();
        let shaded = m.heap.taken.lock().contains(&HIDDEN);
        let marked = m.heap.hidden.load(Relaxed);
        assert!(in_field || on_stack || shaded || marked, "the object is hidden");
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
            if marking {
                m.barrier.turn_on();
            }
            let buffer = m.barrier.buffer();
            buffer.store(HIDDEN, HOLDER);
            let thread = thread::spawn(move || drop(buffer));
            m.barrier.turn_on();
            m.barrier.take_buffers();
            assert!(m.heap.taken.lock().contains(&HIDDEN), "the words are neither here nor there");
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
