//! The machines and the world: ragged handshakes and stops, by one Dekker handshake per machine.
//!
//! A machine is *inside* while it runs managed code or native code that is atomic to the collector.
//!
//! Invariants:
//!
//! 1. A machine goes inside by: store `inside`, light fence, load `stopping`. A stopper does: store
//!    `stopping`, heavy fence, load `inside`. So either the machine sees that it must wait, or the
//!    stopper sees that it must wait for the machine.
//! 2. A machine inside passes [`World::safepoint`] soon after it is asked to. The caller of
//!    [`World::stop`] or [`World::handshake`] does the asking. The machine waits at the safepoint
//!    while the world is stopped.
//! 3. A ragged handshake ends when every machine has been outside or at a safepoint since it began,
//!    each at a moment of its own.

use crate::protocol::request::Signal;
use crate::protocol::sync::{
    AtomicBool, AtomicU64, AtomicUsize, Condvar, LeftOut, Mutex, Ordering, heavy_fence, left_out,
    light_fence, spin,
};
use std::ops::Deref;
use std::time::Duration;

/// The world's view of one machine.
#[derive(Debug)]
pub(crate) struct Gate {
    inside: AtomicBool,
    /// The last handshake that this machine has answered.
    answered: AtomicU64,
}

impl Gate {
    /// A machine that is outside.
    pub(crate) fn new() -> Self {
        Gate { inside: AtomicBool::new(false), answered: AtomicU64::new(0) }
    }

    /// Whether the machine is inside.
    pub(crate) fn is_inside(&self) -> bool {
        // Acquire: pairs with the Release of `exit`. What the machine did before it went outside is
        // visible to the thread that sees it outside.
        self.inside.load(Ordering::Acquire)
    }
}

impl AsRef<Gate> for Gate {
    fn as_ref(&self) -> &Gate {
        self
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    /// The number of stoppers that want the world to stand still.
    stopping: AtomicUsize,
    /// The number of the last handshake begun.
    handshake: AtomicU64,
    /// The number of waiters. While it is not 0, a machine that goes outside notifies.
    watched: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

/// A thread that waits for machines.
pub(crate) trait Waiter<M> {
    /// Asks a machine that is inside to pass a safepoint. Called repeatedly, under the lock that
    /// machines take to go outside.
    fn ask(&mut self, machine: &M, signal: Signal);

    /// Called between two looks once the waiter has stopped spinning, under no lock.
    fn between_looks(&mut self) {}
}

impl<M, F: FnMut(&M, Signal)> Waiter<M> for F {
    fn ask(&mut self, machine: &M, signal: Signal) {
        self(machine, signal);
    }
}

/// How long a waiter sleeps before it asks the machines again. A request can reach a goroutine that
/// is just leaving the machine, and be lost.
const ASK_AGAIN: Duration = Duration::from_millis(1);

impl World {
    /// A world in which machines may run.
    pub(crate) fn new() -> Self {
        World {
            stopping: AtomicUsize::new(0),
            handshake: AtomicU64::new(0),
            watched: AtomicUsize::new(0),
            lock: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    /// Goes inside; waits while the world is stopped.
    #[inline]
    pub(crate) fn enter(&self, gate: &Gate) {
        if !self.try_enter(gate) {
            self.enter_again(gate);
        }
    }

    /// Goes inside after [`World::try_enter`] has failed.
    #[cold]
    pub(crate) fn enter_again(&self, gate: &Gate) {
        loop {
            self.exit(gate);
            self.wait_while_stopped();
            if self.try_enter(gate) {
                return;
            }
        }
    }

    /// Goes inside. False if the world is stopped: then the machine must go outside again.
    #[inline]
    pub(crate) fn try_enter(&self, gate: &Gate) -> bool {
        gate.inside.store(true, Ordering::Relaxed);
        // Invariant 1: pairs with the heavy fences in `stop` and `handshake`.
        if !left_out(LeftOut::WorldFence) {
            light_fence();
        }
        if self.stopping.load(Ordering::Acquire) != 0 {
            return false;
        }
        // Invariant 3: the machine was outside just now. Acquire and Release as in `safepoint`.
        let handshake = self.handshake.load(Ordering::Acquire);
        if gate.answered.load(Ordering::Relaxed) != handshake {
            gate.answered.store(handshake, Ordering::Release);
        }
        true
    }

    /// Goes outside.
    #[inline]
    pub(crate) fn exit(&self, gate: &Gate) {
        // Release: everything that the machine did inside is visible to the stopper.
        gate.inside.store(false, Ordering::Release);
        // Pairs with the heavy fence in `wait_for`: either the machine sees `watched`, or the
        // waiter sees the machine outside.
        light_fence();
        if self.watched.load(Ordering::Relaxed) != 0 {
            self.notify();
        }
    }

    /// A safepoint of a machine that is inside: answers handshakes, waits
    /// while the world is stopped.
    pub(crate) fn safepoint(&self, gate: &Gate) {
        // Acquire: what the initiator wrote before the handshake (the write barrier's flag) holds
        // from here on.
        let handshake = self.handshake.load(Ordering::Acquire);
        if gate.answered.load(Ordering::Relaxed) != handshake {
            // Release: what the machine did before its answer is visible to the initiator.
            gate.answered.store(handshake, Ordering::Release);
            self.notify();
        }
        if self.stopping.load(Ordering::Acquire) != 0 {
            self.exit(gate);
            self.enter(gate);
        }
    }

    /// Returns when each machine in `list` has been outside or at a safepoint since the call. Has
    /// `waiter` ask each machine that has not been yet. Calls `list` after the handshake has begun:
    /// a machine that attaches later sees its number.
    pub(crate) fn handshake<M: Deref<Target: AsRef<Gate>>>(
        &self,
        list: impl FnOnce() -> Vec<M>,
        waiter: &mut impl Waiter<M>,
    ) {
        if left_out(LeftOut::Handshake) {
            return;
        }
        // AcqRel: publishes what the caller wrote before to the Acquire loads of the machines.
        let number = self.handshake.fetch_add(1, Ordering::AcqRel) + 1;
        heavy_fence();
        let mut waiting = list();
        self.wait_for(waiter, |waiter, signal| {
            waiting.retain(|machine| {
                let gate: &Gate = (**machine).as_ref();
                let waiting = gate.is_inside() && gate.answered.load(Ordering::Acquire) < number;
                if waiting {
                    waiter.ask(machine, signal);
                }
                waiting
            });
            waiting.is_empty()
        });
    }

    /// Returns when all machines in `list` are outside. They stay outside until [`World::start`].
    /// `list` and `waiter` are as for [`World::handshake`].
    pub(crate) fn stop<M: Deref<Target: AsRef<Gate>>>(
        &self,
        list: impl FnOnce() -> Vec<M>,
        waiter: &mut impl Waiter<M>,
    ) {
        self.stopping.fetch_add(1, Ordering::AcqRel);
        // Invariant 1: pairs with the light fence in `try_enter`.
        heavy_fence();
        let mut waiting = list();
        self.wait_for(waiter, |waiter, signal| {
            // A machine that was outside may be inside for a moment, until `try_enter` fails. So no
            // machine leaves the list before all are outside at once.
            waiting.iter_mut().fold(true, |done, machine| {
                let gate: &Gate = (**machine).as_ref();
                if gate.is_inside() {
                    waiter.ask(machine, signal);
                }
                done && !gate.is_inside()
            })
        });
    }

    /// Lets the machines run again.
    pub(crate) fn start(&self) {
        // Release: what the stopper did is visible to machines that go inside.
        self.stopping.fetch_sub(1, Ordering::Release);
        self.notify();
    }

    /// Whether the machine has a safepoint to pass.
    pub(crate) fn wants(&self, gate: &Gate) -> bool {
        // Acquire: pairs with the AcqRel of `stop` and `handshake`. The caller has fenced.
        self.stopping.load(Ordering::Acquire) != 0
            || self.handshake.load(Ordering::Acquire) != gate.answered.load(Ordering::Relaxed)
    }

    #[cold]
    fn wait_while_stopped(&self) {
        if spin(|| self.stopping.load(Ordering::Acquire) == 0) {
            return;
        }
        let mut guard = self.lock.lock();
        while self.stopping.load(Ordering::Acquire) != 0 {
            guard = self.changed.wait(guard);
        }
    }

    /// Waits until `done` returns true. Its second argument says how to ask the machines inside.
    fn wait_for<M, W: Waiter<M>>(
        &self,
        waiter: &mut W,
        mut done: impl FnMut(&mut W, Signal) -> bool,
    ) {
        if spin(|| done(waiter, Signal::Hint)) {
            return;
        }
        self.watched.fetch_add(1, Ordering::Relaxed);
        // Pairs with the light fence in `exit`.
        heavy_fence();
        loop {
            let guard = self.lock.lock();
            if done(waiter, Signal::Fenced) {
                break;
            }
            drop(self.changed.wait_for(guard, ASK_AGAIN));
            waiter.between_looks();
        }
        self.watched.fetch_sub(1, Ordering::Relaxed);
    }

    fn notify(&self) {
        drop(self.lock.lock());
        self.changed.notify_all();
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, stackmark_loom))]
mod loom_models {
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
            m.world.stop(|| vec![&m.gates[0]], &mut |_: &_, _| {});
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
            m.world.handshake(|| vec![&m.gates[0]], &mut |_: &_, _| {});
            // SAFETY: as above.
            m.heap.with_mut(|heap| unsafe { *heap += 10 });
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
            m.world.handshake(|| vec![&m.gates[0]], &mut |_: &_, _| {});
            // The object with the field is visited, and black from now on.
            let in_field = field.load(Ordering::Relaxed) == OBJECT;
            // The second round: the goroutine's stack is scanned while it stands still.
            m.world.stop(|| vec![&m.gates[0]], &mut |_: &_, _| {});
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
                other.world.stop(|| vec![&other.gates[0]], &mut |_: &_, _| {});
                // SAFETY: loom checks that no machine is there.
                other.heap.with(|heap| unsafe { assert!(*heap <= 1) });
                other.world.start();
            });
            m.world.stop(|| vec![&m.gates[0]], &mut |_: &_, _| {});
            // SAFETY: as above.
            m.heap.with(|heap| unsafe { assert!(*heap <= 1) });
            m.world.start();
            stops.join().unwrap();
            runs.join().unwrap();
        });
    }
}
