//! Models of the slot: its thread readies and runs goroutines, and another one takes.

use super::*;
use crate::protocol::sync::leave_out;
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// A goroutine. Its cell shows whether two threads have it at once.
struct Goroutine {
    cell: UnsafeCell<usize>,
    /// A plain atomic, which loom does not see: it orders nothing.
    ran: AtomicUsize,
}

fn run(goroutine: Arc<Goroutine>) {
    // SAFETY: loom checks that no other thread is there.
    goroutine.cell.with_mut(|cell| unsafe { *cell += 1 });
    goroutine.ran.fetch_add(1, SeqCst);
}

/// The slot's thread makes two goroutines ready and runs what it finds. Another one takes.
fn model() {
    let slot = loom::sync::Arc::new(NextSlot::default());
    let goroutines: Vec<_> = (0..2)
        .map(|_| Arc::new(Goroutine { cell: UnsafeCell::new(0), ran: AtomicUsize::new(0) }))
        .collect();
    // The twin gives references back that it has not got: two more keep the memory in place.
    for goroutine in &goroutines {
        std::mem::forget([goroutine.clone(), goroutine.clone()]);
    }
    let other = {
        let slot = slot.clone();
        thread::spawn(move || {
            slot.take().into_iter().for_each(run);
            slot.take().into_iter().for_each(run);
        })
    };
    for goroutine in &goroutines {
        // SAFETY: no thread has it yet; what is written here is visible to the one that takes it.
        goroutine.cell.with_mut(|cell| unsafe { *cell += 1 });
        slot.put(goroutine.clone()).into_iter().for_each(run);
    }
    slot.take().into_iter().for_each(run);
    other.join().unwrap();
    slot.take().into_iter().for_each(run);
    for goroutine in &goroutines {
        assert_eq!(goroutine.ran.load(SeqCst), 1, "each runs once");
        assert_eq!(Arc::strong_count(goroutine), 3, "no reference is left");
    }
}

#[test]
fn loom_a_goroutine_that_runs_next_is_taken_once() {
    loom::model(model);
}

#[test]
#[should_panic]
fn loom_twin_without_an_exchange_a_goroutine_is_taken_twice() {
    leave_out(LeftOut::NextExchange);
    loom::model(model);
}
