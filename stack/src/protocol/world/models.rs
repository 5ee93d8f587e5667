//! Models of handshakes and stops.

use super::*;
use crate::protocol::sync::leave_out;
use loom::{cell::UnsafeCell, sync::Arc, thread};

struct Modelled {
    world: World,
    gates: [Gate; 2],
    /// What machines touch inside and the stopper touches while the world is stopped.
    heap: UnsafeCell<u32>,
    /// What the initiator writes before a handshake. Machines read it inside.
    barrier_on: AtomicBool,
}

fn modelled() -> Arc<Modelled> {
    Arc::new(Modelled {
        world: World::new(),
        gates: [Gate::new(), Gate::new()],
        heap: UnsafeCell::new(0),
        barrier_on: AtomicBool::new(false),
    })
}

fn bounded(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(model);
}

#[test]
fn loom_nobody_runs_while_the_world_is_stopped() {
    the_world_stops();
}

#[test]
#[should_panic]
fn loom_twin_of_a_stop_without_fences() {
    leave_out(LeftOut::WorldFence);
    the_world_stops();
}

#[test]
#[should_panic]
fn loom_twin_of_a_stop_that_takes_a_machine_to_be_outside() {
    leave_out(LeftOut::OutsideFence);
    the_world_stops();
}

fn the_world_stops() {
    bounded(3, || {
        let m = modelled();
        let machine = m.clone();
        let thread = thread::spawn(move || {
            machine.world.enter(&machine.gates[0]);
            // SAFETY: loom checks that no other thread is there.
            machine.heap.with_mut(|heap| unsafe { *heap += 1 });
            machine.world.safepoint(&machine.gates[0]);
            // SAFETY: as above.
            machine.heap.with_mut(|heap| unsafe { *heap += 1 });
            machine.world.exit(&machine.gates[0]);
        });
        m.world.stop(|| vec![&m.gates[0]], &mut |_: &_| {});
        // SAFETY: as above.
        m.heap.with_mut(|heap| unsafe { *heap += 10 });
        m.world.start();
        thread.join().unwrap();
        // SAFETY: as above.
        m.heap.with(|heap| unsafe { assert_eq!(*heap, 12) });
    });
}

#[test]
fn loom_a_handshake_makes_everyone_see_what_was_written_before() {
    everyone_sees_what_was_written_before();
}

#[test]
#[should_panic]
fn loom_twin_of_a_handshake_that_takes_a_machine_to_be_outside() {
    leave_out(LeftOut::OutsideFence);
    everyone_sees_what_was_written_before();
}

fn everyone_sees_what_was_written_before() {
    bounded(3, || {
        let m = modelled();
        let machine = m.clone();
        let thread = thread::spawn(move || {
            machine.world.enter(&machine.gates[0]);
            for _ in 0..2 {
                if !machine.barrier_on.load(Ordering::Relaxed) {
                    // Managed code that has not answered yet: what the initiator does after
                    // the handshake does not run at the same time.
                    // SAFETY: loom checks that no other thread is there.
                    machine.heap.with_mut(|heap| unsafe { *heap += 1 });
                }
                machine.world.safepoint(&machine.gates[0]);
            }
            machine.world.exit(&machine.gates[0]);
        });
        m.barrier_on.store(true, Ordering::Relaxed);
        m.world.handshake(|| vec![&m.gates[0]], &mut |_: &_| {});
        // SAFETY: as above.
        m.heap.with_mut(|heap| unsafe { *heap += 10 });
        thread.join().unwrap();
    });
}

/// A machine answers by going outside and inside again. What it did inside before is visible
/// to the initiator, which sees it inside.
#[test]
fn loom_an_answer_on_the_way_in_shows_what_the_machine_did_before() {
    bounded(3, || {
        let m = modelled();
        let machine = m.clone();
        let thread = thread::spawn(move || {
            for _ in 0..2 {
                machine.world.enter(&machine.gates[0]);
                if !machine.barrier_on.load(Ordering::Relaxed) {
                    // SAFETY: loom checks that no other thread is there.
                    machine.heap.with_mut(|heap| unsafe { *heap += 1 });
                }
                machine.world.exit(&machine.gates[0]);
            }
        });
        m.barrier_on.store(true, Ordering::Relaxed);
        m.world.handshake(|| vec![&m.gates[0]], &mut |_: &_| {});
        // SAFETY: as above.
        m.heap.with_mut(|heap| unsafe { *heap += 10 });
        thread.join().unwrap();
    });
}

/// A stopper sees what an earlier one did, though there is no machine.
#[test]
fn loom_a_stopper_sees_what_an_earlier_one_did() {
    bounded(3, || {
        let m = modelled();
        let other = m.clone();
        let done = Arc::new(AtomicBool::new(false));
        let is_done = done.clone();
        let thread = thread::spawn(move || {
            other.world.stop(Vec::<&Gate>::new, &mut |_: &_| {});
            // SAFETY: loom checks that no other thread is there.
            other.heap.with_mut(|heap| unsafe { *heap += 1 });
            other.world.start();
            is_done.store(true, Ordering::Relaxed);
        });
        if done.load(Ordering::Relaxed) {
            m.world.stop(Vec::<&Gate>::new, &mut |_: &_| {});
            // SAFETY: as above.
            m.heap.with(|heap| unsafe { assert_eq!(*heap, 1) });
            m.world.start();
        }
        thread.join().unwrap();
    });
}

/// A cycle begins. The goroutine hides the object that its only root refers to: it stores the
/// reference into a black object and clears the root. Either the goroutine shades the object,
/// or the collector finds it in one of the two places.
fn a_cycle_begins_while_a_goroutine_hides_an_object() {
    const OBJECT: usize = 7;
    bounded(3, || {
        let m = modelled();
        let (root, field) = (Arc::new(UnsafeCell::new(OBJECT)), Arc::new(AtomicUsize::new(0)));
        let shaded = Arc::new(AtomicBool::new(false));
        let (machine, own_root, own_field, shades) =
            (m.clone(), root.clone(), field.clone(), shaded.clone());
        let thread = thread::spawn(move || {
            machine.world.enter(&machine.gates[0]);
            machine.world.safepoint(&machine.gates[0]);
            if machine.barrier_on.load(Ordering::Relaxed) {
                shades.store(true, Ordering::Relaxed);
            }
            own_field.store(OBJECT, Ordering::Relaxed);
            // SAFETY: loom checks that no other thread is there.
            own_root.with_mut(|root| unsafe { *root = 0 });
            machine.world.exit(&machine.gates[0]);
        });
        // The first round: the write barrier is on everywhere.
        m.barrier_on.store(true, Ordering::Relaxed);
        m.world.handshake(|| vec![&m.gates[0]], &mut |_: &_| {});
        // The object with the field is visited, and black from now on.
        let in_field = field.load(Ordering::Relaxed) == OBJECT;
        // The second round: the goroutine's stack is scanned while it stands still.
        m.world.stop(|| vec![&m.gates[0]], &mut |_: &_| {});
        // SAFETY: as above.
        let on_stack = root.with(|root| unsafe { *root == OBJECT });
        m.world.start();
        thread.join().unwrap();
        assert!(in_field || on_stack || shaded.load(Ordering::Relaxed), "the object is hidden");
    });
}

#[test]
fn loom_no_object_hides_behind_a_goroutine_that_has_not_heard() {
    a_cycle_begins_while_a_goroutine_hides_an_object();
}

#[test]
#[should_panic]
fn loom_twin_of_a_cycle_that_begins_with_one_round() {
    leave_out(LeftOut::Handshake);
    a_cycle_begins_while_a_goroutine_hides_an_object();
}

#[test]
fn loom_two_stoppers_and_a_machine() {
    bounded(2, || {
        let m = modelled();
        let (machine, other) = (m.clone(), m.clone());
        let runs = thread::spawn(move || {
            machine.world.enter(&machine.gates[0]);
            // SAFETY: loom checks that no other thread is there.
            machine.heap.with_mut(|heap| unsafe { *heap += 1 });
            machine.world.exit(&machine.gates[0]);
        });
        let stops = thread::spawn(move || {
            other.world.stop(|| vec![&other.gates[0]], &mut |_: &_| {});
            // SAFETY: loom checks that no machine is there.
            other.heap.with(|heap| unsafe { assert!(*heap <= 1) });
            other.world.start();
        });
        m.world.stop(|| vec![&m.gates[0]], &mut |_: &_| {});
        // SAFETY: as above.
        m.heap.with(|heap| unsafe { assert!(*heap <= 1) });
        m.world.start();
        stops.join().unwrap();
        runs.join().unwrap();
    });
}

/// The machines of a world whose list changes.
struct Changing {
    world: World,
    machines: Mutex<Vec<Arc<Gate>>>,
    heap: UnsafeCell<u32>,
    barrier_on: AtomicBool,
}

impl Changing {
    fn new() -> Arc<Changing> {
        Arc::new(Changing {
            world: World::new(),
            machines: Mutex::new(Vec::new()),
            heap: UnsafeCell::new(0),
            barrier_on: AtomicBool::new(false),
        })
    }

    fn list(&self) -> Vec<Arc<Gate>> {
        self.machines.lock().clone()
    }

    /// A thread is attached, runs managed code, and is detached.
    fn come_and_go(&self, run: impl FnOnce()) {
        let gate = Arc::new(Gate::new());
        self.machines.lock().push(gate.clone());
        self.world.enter(&gate);
        run();
        self.world.exit(&gate);
        self.machines.lock().retain(|machine| !Arc::ptr_eq(machine, &gate));
    }
}

/// A machine that is not in the list yet, or not any more, is outside while the world is stopped,
/// and what it has done is visible.
#[test]
fn loom_a_thread_is_attached_and_detached_while_the_world_stops() {
    bounded(3, || {
        let m = Changing::new();
        let thread = m.clone();
        let thread = thread::spawn(move || {
            thread.come_and_go(|| {
                // SAFETY: loom checks that no other thread is there.
                thread.heap.with_mut(|heap| unsafe { *heap += 1 });
            });
        });
        m.world.stop(|| m.list(), &mut |_: &_| {});
        // SAFETY: as above.
        m.heap.with_mut(|heap| unsafe { *heap += 10 });
        m.world.start();
        thread.join().unwrap();
        // SAFETY: as above.
        m.heap.with(|heap| unsafe { assert_eq!(*heap, 11) });
    });
}

/// A machine that attaches after the list was taken has seen what the initiator wrote.
#[test]
fn loom_a_thread_is_attached_while_a_handshake_runs() {
    bounded(3, || {
        let m = Changing::new();
        let thread = m.clone();
        let thread = thread::spawn(move || {
            thread.come_and_go(|| {
                if !thread.barrier_on.load(Ordering::Relaxed) {
                    // SAFETY: loom checks that no other thread is there.
                    thread.heap.with_mut(|heap| unsafe { *heap += 1 });
                }
            });
        });
        m.barrier_on.store(true, Ordering::Relaxed);
        m.world.handshake(|| m.list(), &mut |_: &_| {});
        // SAFETY: as above.
        m.heap.with_mut(|heap| unsafe { *heap += 10 });
        thread.join().unwrap();
    });
}
