//! Models of handles that are copied, set and dropped while a cycle runs.

use super::*;
use crate::collector::model::{ModelCollector, bounded};
use crate::write_barrier::Kind;
use loom::thread;
use stackmark_stack::sync::{LeftOut, leave_out};

const OBJECT: usize = 1;
const OTHER: usize = 2;

/// Native code copies a handle while other native code sets it to another object.
fn a_copy_meets_a_store_and_a_cycle() {
    bounded(2, || {
        let m = ModelCollector::new(Kind::Insertion);
        let kept = m.handles.create(OTHER);
        let handle = Arc::new(m.handles.create(OBJECT));
        let [copied, set] = [handle.clone(), handle.clone()];
        let copies = thread::spawn(move || (*copied).clone());
        let sets = thread::spawn(move || set.set(OTHER));
        m.collect();
        let copy = copies.join().unwrap();
        sets.join().unwrap();
        assert!(!m.heap.is_freed(copy.get()), "a handle holds a freed object");
        assert!(!m.heap.is_freed(handle.get()) && !m.heap.is_freed(kept.get()));
    });
}

#[test]
fn loom_a_copy_meets_a_store_and_a_cycle() {
    a_copy_meets_a_store_and_a_cycle();
}

#[test]
#[should_panic]
fn loom_twin_of_a_copy_without_locks() {
    leave_out(LeftOut::Lock);
    a_copy_meets_a_store_and_a_cycle();
}

/// A goroutine, whose stack is scanned once, takes a reference out of a handle. Native code sets
/// the handle to null, or drops it, before it is visited.
fn a_reference_passes_from_a_handle_to_a_scanned_stack(kind: Kind, dropped: bool) {
    bounded(2, move || {
        let m = ModelCollector::new(kind);
        let handle = Arc::new(m.handles.create(OBJECT));
        let (goroutine, loaded) = (m.clone(), handle.clone());
        let runs = thread::spawn(move || {
            goroutine.world.enter();
            goroutine.world.safepoint();
            goroutine.stack.store(loaded.get(), Relaxed);
            // One of the two drops the handle.
            drop(loaded);
            goroutine.world.exit();
        });
        let drops = thread::spawn(move || {
            if !dropped {
                handle.set(0);
            }
        });
        m.open(true);
        m.visit_roots();
        m.close();
        runs.join().unwrap();
        drops.join().unwrap();
        let word = m.stack.load(Relaxed);
        // A goroutine that has taken it later has taken it from the handle.
        assert!(!m.heap.is_freed(word) || word == 0, "the stack holds a freed object");
    });
}

#[test]
fn loom_a_reference_passes_from_a_handle_to_a_scanned_stack() {
    for kind in [Kind::Insertion, Kind::Hybrid] {
        for dropped in [false, true] {
            a_reference_passes_from_a_handle_to_a_scanned_stack(kind, dropped);
        }
    }
}

/// Two threads make handles while a cycle runs: each entry is one handle's.
#[test]
fn loom_handles_are_made_and_dropped_while_a_cycle_runs() {
    bounded(2, || {
        let m = ModelCollector::new(Kind::Insertion);
        let threads = [OBJECT, OTHER].map(|word| {
            let m = m.clone();
            thread::spawn(move || {
                // A goroutine has the word meanwhile: the caller's promise.
                let handle = m.handles.create(word);
                drop(m.handles.create(word));
                handle
            })
        });
        m.open(true);
        m.visit_roots();
        let handles = threads.map(|thread| thread.join().unwrap());
        m.close();
        assert_eq!([handles[0].get(), handles[1].get()], [OBJECT, OTHER]);
        assert_eq!(m.handles.live(), 2);
        assert!(handles.iter().all(|handle| !m.heap.is_freed(handle.get())));
    });
}
