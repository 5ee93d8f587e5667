//! The machines and the world: ragged handshakes and stops, by one Dekker handshake per machine.
//!
//! A machine is *inside* while it runs managed code or native code that is atomic to the collector.
//!
//! Invariants:
//!
//! 1. A machine goes inside by: store `inside`, light fence, load `wanted`. A stopper does: add
//!    itself to `wanted`, heavy fence, load `inside`. So either the machine sees that it must wait, or the
//!    stopper sees that it must wait for the machine.
//! 2. A machine inside passes [`World::safepoint`] soon after it is asked to. The caller of
//!    [`World::stop`] or [`World::handshake`] does the asking. The machine waits at the safepoint
//!    while the world is stopped.
//! 3. A waiter counts itself in `watched` before the same heavy fence. So a machine that goes
//!    outside sees that it must notify, or the waiter sees it outside: one fence serves both.
//! 4. A ragged handshake ends when every machine has been outside or at a safepoint since it began,
//!    each at a moment of its own.

use crate::protocol::sync::{
    AtomicBool, AtomicU64, AtomicUsize, Condvar, LeftOut, Mutex, Ordering, heavy_fence, left_out,
    light_fence, spin,
};
use std::hint::cold_path;
use std::ops::Deref;
use std::time::Duration;

/// The world's view of one machine.
#[derive(Debug)]
pub(crate) struct Gate {
    inside: AtomicBool,
    /// The last handshake that this machine has answered, as `wanted` was without stoppers.
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
    /// The number of stoppers that want the world to stand still, and from [`HANDSHAKE`] on that of
    /// the last handshake begun. In one word, so that a machine that goes inside compares once.
    wanted: AtomicU64,
    /// The number of waiters (invariant 3). While it is not 0, a machine that goes outside
    /// notifies. Relaxed everywhere: the fences order it.
    watched: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

/// A thread that waits for machines.
pub(crate) trait Waiter<M> {
    /// Asks a machine that is inside to pass a safepoint. Called repeatedly, so a request that is
    /// lost does not matter. Once the waiter has stopped spinning, it is called under the lock that
    /// machines take to go outside.
    fn ask(&mut self, machine: &M);

    /// Called between two looks once the waiter has stopped spinning, under no lock.
    fn between_looks(&mut self) {}
}

impl<M, F: FnMut(&M)> Waiter<M> for F {
    fn ask(&mut self, machine: &M) {
        self(machine);
    }
}

/// A waiter for machines, as long as the value lives.
struct Watches<'w>(&'w World);

impl<'w> Watches<'w> {
    /// Followed by a heavy fence: invariant 3.
    fn new(world: &'w World) -> Self {
        world.watched.fetch_add(1, Ordering::Relaxed);
        Watches(world)
    }
}

impl Drop for Watches<'_> {
    fn drop(&mut self) {
        self.0.watched.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One handshake in [`World::wanted`].
const HANDSHAKE: u64 = 1 << 16;

/// The number of stoppers in `wanted`.
#[inline]
fn stoppers(wanted: u64) -> u64 {
    wanted % HANDSHAKE
}

/// The last handshake in `wanted`, as machines answer it.
#[inline]
fn handshake_of(wanted: u64) -> u64 {
    wanted - stoppers(wanted)
}

/// How long a waiter sleeps before it asks the machines again. A request can reach a goroutine that
/// is just leaving the machine, and be lost.
const ASK_AGAIN: Duration = Duration::from_millis(1);

impl World {
    /// A world in which machines may run.
    pub(crate) fn new() -> Self {
        World {
            wanted: AtomicU64::new(0),
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
        // Acquire: pairs with the Release of `start`, and as in `safepoint`.
        let wanted = self.wanted.load(Ordering::Acquire);
        if gate.answered.load(Ordering::Relaxed) != wanted {
            cold_path();
            if stoppers(wanted) != 0 {
                return false;
            }
            // Invariant 4: the machine was outside just now. Release as in `safepoint`.
            gate.answered.store(wanted, Ordering::Release);
        }
        true
    }

    /// Goes outside.
    #[inline]
    pub(crate) fn exit(&self, gate: &Gate) {
        // Release: everything that the machine did inside is visible to the stopper.
        gate.inside.store(false, Ordering::Release);
        // Invariant 3: pairs with the heavy fences in `stop` and `handshake`.
        light_fence();
        if self.watched.load(Ordering::Relaxed) != 0 {
            cold_path();
            self.notify();
        }
    }

    /// A safepoint of a machine that is inside: answers handshakes, waits
    /// while the world is stopped.
    pub(crate) fn safepoint(&self, gate: &Gate) {
        // Acquire: what the initiator wrote before the handshake (the write barrier's flag) holds
        // from here on.
        let handshake = handshake_of(self.wanted.load(Ordering::Acquire));
        if gate.answered.load(Ordering::Relaxed) != handshake {
            // Release: what the machine did before its answer is visible to the initiator.
            gate.answered.store(handshake, Ordering::Release);
            self.notify();
        }
        if self.is_stopping() {
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
        // Release: publishes what the caller wrote before to the Acquire loads of the machines.
        let number = handshake_of(self.wanted.fetch_add(HANDSHAKE, Ordering::Release)) + HANDSHAKE;
        let _watches = Watches::new(self);
        heavy_fence();
        let mut waiting = list();
        self.wait_for(waiter, |waiter| {
            waiting.retain(|machine| {
                let gate: &Gate = (**machine).as_ref();
                let waiting = gate.is_inside() && gate.answered.load(Ordering::Acquire) < number;
                if waiting {
                    waiter.ask(machine);
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
        // Relaxed: the fence orders it.
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let _watches = Watches::new(self);
        // Invariant 1: pairs with the light fence in `try_enter`. It also pairs with the Release of
        // `start`: what an earlier stopper did is visible.
        heavy_fence();
        let mut waiting = list();
        self.wait_for(waiter, |waiter| {
            // A machine that was outside may be inside for a moment, until `try_enter` fails. So no
            // machine leaves the list before all are outside at once.
            waiting.iter_mut().fold(true, |done, machine| {
                let gate: &Gate = (**machine).as_ref();
                if gate.is_inside() {
                    waiter.ask(machine);
                }
                done && !gate.is_inside()
            })
        });
    }

    /// Lets the machines run again.
    pub(crate) fn start(&self) {
        // Release: what the stopper did is visible to machines that go inside.
        self.wanted.fetch_sub(1, Ordering::Release);
        self.notify();
    }

    /// Whether the machine has a safepoint to pass.
    pub(crate) fn wants(&self, gate: &Gate) -> bool {
        // Relaxed: the caller has fenced, and the safepoint orders.
        self.wanted.load(Ordering::Relaxed) != gate.answered.load(Ordering::Relaxed)
    }

    /// Whether a stopper wants the world to stand still. Relaxed: the caller looks again, or goes
    /// outside and inside, and that orders.
    fn is_stopping(&self) -> bool {
        stoppers(self.wanted.load(Ordering::Relaxed)) != 0
    }

    /// Waits while the world is stopped, outside.
    #[cold]
    pub(crate) fn wait_while_stopped(&self) {
        if spin(|| !self.is_stopping()) {
            return;
        }
        let mut guard = self.lock.lock();
        while self.is_stopping() {
            guard = self.changed.wait(guard);
        }
    }

    /// Waits until `done` returns true. It asks the machines inside. The caller [`Watches`].
    fn wait_for<M, W: Waiter<M>>(&self, waiter: &mut W, mut done: impl FnMut(&mut W) -> bool) {
        if spin(|| done(waiter)) {
            return;
        }
        loop {
            let guard = self.lock.lock();
            if done(waiter) {
                break;
            }
            drop(self.changed.wait_for(guard, ASK_AGAIN));
            waiter.between_looks();
        }
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

#[cfg(stackmark_loom)]
pub(super) mod one_machine;

#[cfg(all(test, stackmark_loom))]
mod models;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
