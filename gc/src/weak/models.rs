//! Models of weak references that are looked at while a cycle clears them.

use super::*;
use crate::collector::model::{ModelCollector, bounded};
use crate::write_barrier::Kind;
use loom::thread;
use stackmark_stack::sync::{LeftOut, Ordering::Relaxed, leave_out};

const OBJECT: usize = 1;
const KEY: usize = 2;
const CHILD: usize = 3;

/// Native code, for which the stopped world does not wait, asks for a handle on an object that
/// nothing else holds.
fn an_upgrade_meets_the_end_of_a_cycle() {
    an_upgrade_meets(|m| m.collect());
}

fn an_upgrade_meets(cycle: fn(&ModelCollector) -> Vec<(Handle, Callback)>) {
    bounded(3, move || {
        let m = ModelCollector::new(Kind::Insertion);
        let reference = m.weak.create(OBJECT);
        let upgrades = thread::spawn(move || reference.upgrade());
        cycle(&m);
        let handle = upgrades.join().unwrap();
        if let Some(handle) = &handle {
            assert_eq!(handle.get(), OBJECT);
            assert!(!m.heap.is_freed(OBJECT), "the handle came too late");
        }
    });
}

#[test]
fn loom_an_upgrade_meets_the_end_of_a_cycle() {
    an_upgrade_meets_the_end_of_a_cycle();
}

#[test]
#[should_panic(expected = "the handle came too late")]
fn loom_twin_of_a_barrier_that_goes_off_before_weak_references_are_cleared() {
    leave_out(LeftOut::OffLast);
    an_upgrade_meets_the_end_of_a_cycle();
}

#[test]
fn loom_an_upgrade_meets_the_clearing_of_weak_references_while_the_world_runs() {
    an_upgrade_meets(|m| m.collect_in_two_stops());
}

/// Native code asks two references to an object that nothing else holds, one after the other.
fn two_references_to_an_object_agree() {
    bounded(2, || {
        let m = ModelCollector::new(Kind::Insertion);
        let references = [m.weak.create(OBJECT), m.weak.create(OBJECT)];
        let asks = thread::spawn(move || references.each_ref().map(WeakReference::upgrade));
        m.collect_in_two_stops();
        let [first, second] = asks.join().unwrap();
        assert!(first.is_some() || second.is_none(), "a dead object has come back");
    });
}

#[test]
fn loom_two_references_to_an_object_agree() {
    two_references_to_an_object_agree();
}

#[test]
#[should_panic(expected = "a dead object has come back")]
fn loom_twin_of_an_upgrade_that_does_not_look_at_the_mark() {
    leave_out(LeftOut::WeakMark);
    two_references_to_an_object_agree();
}

/// While the world runs at the end of a cycle, a goroutine gets the value of a weak map, and takes
/// the only reference to a third object out of it.
fn a_goroutine_empties_the_value_of_a_weak_map() {
    bounded(2, || {
        let m = ModelCollector::new(Kind::Insertion);
        let _key = m.handles.create(KEY);
        m.heap.refer(OBJECT, CHILD);
        let map = m.weak.map();
        map.insert(KEY, OBJECT);
        let goroutine = m.clone();
        let runs = thread::spawn(move || {
            goroutine.world.enter();
            let value = map.get(KEY).expect("the key is alive");
            goroutine.stack.store(goroutine.heap.reference(value), Relaxed);
            goroutine.heap.refer(value, 0);
            goroutine.world.safepoint();
            goroutine.world.exit();
            map
        });
        m.collect_in_two_stops();
        let map = runs.join().unwrap();
        assert_eq!(map.get(KEY), Some(OBJECT));
        assert!(!m.heap.is_freed(OBJECT), "the map holds a freed object");
        assert!(!m.heap.is_freed(m.stack.load(Relaxed)), "the stack holds a freed object");
    });
}

#[test]
fn loom_a_goroutine_empties_the_value_of_a_weak_map() {
    a_goroutine_empties_the_value_of_a_weak_map();
}

#[test]
#[should_panic(expected = "the stack holds a freed object")]
fn loom_twin_of_a_table_that_is_not_locked_until_values_are_traced() {
    leave_out(LeftOut::TableHeld);
    a_goroutine_empties_the_value_of_a_weak_map();
}

/// A goroutine, whose stack is scanned once, gets the reference.
#[test]
fn loom_a_goroutine_gets_a_weak_reference_while_a_cycle_runs() {
    for two_stops in [false, true] {
        goroutine_gets(Kind::Insertion, two_stops);
        goroutine_gets(Kind::Hybrid, two_stops);
    }
}

fn goroutine_gets(kind: Kind, two_stops: bool) {
    bounded(2, move || {
        let m = ModelCollector::new(kind);
        let reference = m.weak.create(OBJECT);
        let goroutine = m.clone();
        let runs = thread::spawn(move || {
            goroutine.world.enter();
            let word = reference.get().unwrap_or(0);
            goroutine.stack.store(word, Relaxed);
            goroutine.world.safepoint();
            goroutine.world.exit();
            // Not dropped before the cycle: entries are cleared, not only unused.
            reference
        });
        if two_stops {
            m.collect_in_two_stops();
        } else {
            m.collect();
        }
        drop(runs.join().unwrap());
        let word = m.stack.load(Relaxed);
        assert!(word == 0 || !m.heap.is_freed(word), "the stack holds a freed object");
    });
}

/// A callback is due once, with its object, whether native code has got a handle or not. Then the
/// object is alive until the next cycle.
#[test]
fn loom_a_callback_is_due_unless_native_code_holds_the_object() {
    bounded(2, || {
        let m = ModelCollector::new(Kind::Insertion);
        let reference = m.weak.create(OBJECT);
        m.weak.on_unreachable(OBJECT, |_| {});
        let upgrades = thread::spawn(move || reference.upgrade());
        let due = m.collect();
        let handle = upgrades.join().unwrap();
        assert!(!m.heap.is_freed(OBJECT), "a handle or the callback keeps it");
        assert_eq!(due.is_empty(), handle.is_some(), "one of the two has it");
        if due.is_empty() {
            drop(handle);
            assert_eq!(m.collect().len(), 1, "the callback is due when the handle is gone");
        }
    });
}

/// Native code adds an entry to a weak map and drops its own handle on the value.
#[test]
fn loom_the_value_of_a_weak_map_outlives_the_handle_on_it() {
    bounded(2, || {
        let m = ModelCollector::new(Kind::Insertion);
        let _key = m.handles.create(KEY);
        let value = m.handles.create(OBJECT);
        let reference = m.weak.create(OBJECT);
        let map = Arc::new(m.weak.map());
        let inserts = map.clone();
        let thread = thread::spawn(move || {
            inserts.insert(KEY, OBJECT);
            drop(value);
        });
        m.collect();
        thread.join().unwrap();
        assert_eq!(map.get(KEY), Some(OBJECT));
        assert!(!m.heap.is_freed(OBJECT), "the map holds a freed object");
        assert!(reference.upgrade().is_some(), "the object is alive");
    });
}
