//! Models of the buffers: each word is handed over once, and in time.

use super::*;
use loom::thread;
use stackmark_stack::sync::leave_out;

/// A sink for which every object is unmarked. The lock is loom's own: `LeftOut::Lock` does not
/// leave it out.
struct Recorder(loom::sync::Mutex<Vec<usize>>);

impl Recorder {
    fn words(&self) -> Vec<usize> {
        let mut words = self.0.lock().unwrap().clone();
        words.sort_unstable();
        words
    }
}

impl Sink for Recorder {
    fn is_unmarked(&self, _word: usize) -> bool {
        true
    }
    fn take(&self, words: Vec<usize>) {
        self.0.lock().unwrap().extend(words);
    }
}

struct Modelled {
    barrier: Arc<WriteBarrier>,
    sink: Arc<Recorder>,
    /// The thread of the model is inside, where the collector waits for it.
    inside: loom::sync::Mutex<bool>,
    changed: loom::sync::Condvar,
}

impl Modelled {
    /// The mutator goes where the collector does not wait for it, as when it returns to native
    /// code.
    fn go_outside(&self) {
        *self.inside.lock().unwrap() = false;
        self.changed.notify_all();
    }

    fn wait_for_the_world(&self) {
        let mut inside = self.inside.lock().unwrap();
        while !*inside {
            inside = self.changed.wait(inside).unwrap();
        }
    }

    fn start_the_world(&self) {
        *self.inside.lock().unwrap() = true;
        self.changed.notify_all();
    }

    /// The collector stops the world.
    fn wait_until_outside(&self) {
        let mut inside = self.inside.lock().unwrap();
        while *inside {
            inside = self.changed.wait(inside).unwrap();
        }
    }
}

/// `mutate` runs on a thread with a buffer, `collect` on another.
fn model(
    mutate: impl Fn(&Modelled, BarrierBuffer) + Send + Sync + Copy + 'static,
    collect: impl Fn(&Modelled) + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let sink = Arc::new(Recorder(loom::sync::Mutex::new(Vec::new())));
        let modelled = Arc::new(Modelled {
            barrier: WriteBarrier::new(Kind::Insertion, sink.clone()),
            sink,
            inside: loom::sync::Mutex::new(true),
            changed: loom::sync::Condvar::new(),
        });
        modelled.barrier.turn_on();
        let (buffer, theirs) = (modelled.barrier.buffer(), modelled.clone());
        let mutator = thread::spawn(move || mutate(&theirs, buffer));
        collect(&modelled);
        mutator.join().unwrap();
    });
}

/// The collector empties the buffer while the mutator fills it, hands it over and fills it again.
fn buffers_taken_while_they_are_filled() {
    model(
        |m, buffer| {
            // Not dropped: without locks the model panics, and dropping would take locks then.
            let buffer = std::mem::ManuallyDrop::new(buffer);
            (1..=3).for_each(|word| buffer.shade(word));
            buffer.shade_overwritten(4);
            m.go_outside();
        },
        |m| {
            m.barrier.take_buffers();
            m.wait_until_outside();
            m.barrier.take_buffers();
            assert_eq!(m.sink.words(), [1, 2, 3], "each word once");
        },
    );
}

#[test]
fn loom_no_word_is_lost_or_taken_twice() {
    buffers_taken_while_they_are_filled();
}

#[test]
#[should_panic]
fn loom_without_locks_it_is_noticed() {
    leave_out(LeftOut::Lock);
    buffers_taken_while_they_are_filled();
}

/// The stopped world does not wait for a thread that ends in native code. What the thread has
/// shaded before is not on its way to the workers when the collector has taken the buffers.
fn buffer_dropped_while_the_world_is_stopped() {
    model(
        |m, buffer| {
            buffer.shade(1);
            m.go_outside();
            drop(buffer);
        },
        |m| {
            m.wait_until_outside();
            m.barrier.take_buffers();
            assert_eq!(m.sink.words(), [1]);
            m.barrier.turn_off(false);
        },
    );
}

#[test]
fn loom_the_words_of_a_thread_that_ends_come_in_time() {
    buffer_dropped_while_the_world_is_stopped();
}

#[test]
#[should_panic]
fn loom_a_buffer_that_leaves_the_list_before_its_words_is_noticed() {
    leave_out(LeftOut::HandOver);
    buffer_dropped_while_the_world_is_stopped();
}

/// A thread that stays in native code keeps its buffer. The collector takes what is in it. What the
/// thread stores after the barrier has gone off is not shaded.
#[test]
fn loom_the_buffer_of_a_thread_in_native_code_is_taken() {
    model(
        |m, buffer| {
            buffer.shade(1);
            m.go_outside();
            m.wait_for_the_world();
            buffer.shade(2);
            drop(buffer);
            assert_eq!(m.sink.words(), [1]);
        },
        |m| {
            m.wait_until_outside();
            m.barrier.take_buffers();
            assert_eq!(m.sink.words(), [1]);
            m.barrier.turn_off(false);
            m.start_the_world();
        },
    );
}
