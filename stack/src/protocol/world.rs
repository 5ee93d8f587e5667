//! The machines and the world: ragged handshakes and stops, by one Dekker handshake per machine.
//!
//! A machine is *inside* while it runs managed code or native code that is atomic to the collector.
//!
//! Invariants:
//!
//! 1. A machine goes inside by: store `inside`, light fence, load `wanted`. A stopper does: add
//!    itself to `wanted`, heavy fence, load `inside`. So either the machine sees that it must wait,
//!    or the stopper sees that it must wait for the machine.
//! 2. A machine inside passes [`World::safepoint`] soon after it is asked to. The caller of
//!    [`World::stop`] or [`World::handshake`] does the asking. The machine waits at the safepoint
//!    while the world is stopped.
//! 3. A waiter counts itself in `watched` before the same heavy fence. So a machine that goes
//!    outside sees that it must notify, or the waiter sees it outside: one fence serves both. A
//!    waiter does not sleep before that fence.
//! 4. A ragged handshake ends when every machine has been outside or at a safepoint since it began,
//!    each at a moment of its own.
//! 5. Handshakes and stops have numbers, in one order: each adds to `wanted`. A machine that has
//!    *answered* one at a safepoint has read it from `wanted`, and later reads show no older value.
//!    So an answer needs no fence: whether the waiter sees it or not, it is true. A machine that
//!    has answered a stop goes outside and stays there. Only that a machine is outside without an
//!    answer is known by the fence of invariant 1 alone. A waiter makes it when it meets such a
//!    machine, or has waited for answers for some time.

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
    /// The last handshake or stop that this machine has answered, as it is in `wanted`.
    answered: AtomicU64,
}

impl Gate {
    /// A machine that is outside.
    pub(crate) fn new() -> Self {
        Gate { inside: AtomicBool::new(false), answered: AtomicU64::new(0) }
    }

    /// Whether the machine has answered the handshake or stop with this number.
    fn has_answered(&self, number: u64) -> bool {
        // Acquire: pairs with the Release stores of `answered`.
        self.answered.load(Ordering::Acquire) >= number
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
    /// The number of stoppers that want the world to stand still, and from [`EVENT`] on that of the
    /// last handshake or stop begun. In one word, so that a machine that goes inside compares once.
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
    /// Followed by a heavy fence before the waiter sleeps: invariant 3.
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

/// One handshake or stop in [`World::wanted`]. Stoppers are threads, fewer than this.
const EVENT: u64 = 1 << 16;

/// The number of stoppers in `wanted`.
#[inline]
fn stoppers(wanted: u64) -> u64 {
    wanted % EVENT
}

/// The last handshake or stop in `wanted`, as machines answer it.
#[inline]
fn event_of(wanted: u64) -> u64 {
    wanted - stoppers(wanted)
}

/// What a waiter finds. The greatest of all machines counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// Nothing to wait for.
    Done,
    /// A machine inside.
    Inside,
    /// A machine outside that has not answered. Without a fence it may be about to go inside, and
    /// not know what is wanted.
    Outside,
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
        // Invariant 1: pairs with the heavy fence in `wait_for`.
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
        // Invariant 3: pairs with the heavy fence in `wait_for`.
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
        let wanted = self.wanted.load(Ordering::Acquire);
        let is_new = gate.answered.load(Ordering::Relaxed) != event_of(wanted);
        if is_new {
            // Release: what the machine did before its answer is visible to the initiator.
            gate.answered.store(event_of(wanted), Ordering::Release);
        }
        // By the same load: the answer to a stop is that the machine goes outside.
        if stoppers(wanted) != 0 {
            self.exit(gate);
            self.enter(gate);
        } else if is_new {
            self.notify();
        }
    }

    /// Returns when each machine in `list` has been outside or at a safepoint since the call. Has
    /// `waiter` ask each machine that has not been yet. Calls `list` after the handshake has begun:
    /// a machine that attaches later sees its number. Returns whether it has taken a heavy fence.
    pub(crate) fn handshake<M: Deref<Target: AsRef<Gate>>>(
        &self,
        list: impl FnOnce() -> Vec<M>,
        waiter: &mut impl Waiter<M>,
    ) -> bool {
        if left_out(LeftOut::Handshake) {
            return false;
        }
        // Release: publishes what the caller wrote before to the Acquire loads of the machines.
        let number = event_of(self.wanted.fetch_add(EVENT, Ordering::Release)) + EVENT;
        let _watches = Watches::new(self);
        let mut waiting = list();
        self.wait_for(waiter, |waiter, fenced| {
            let mut found = Found::Done;
            waiting.retain(|machine| {
                let gate: &Gate = (**machine).as_ref();
                let here = if gate.has_answered(number) {
                    Found::Done
                } else if gate.is_inside() {
                    waiter.ask(machine);
                    Found::Inside
                } else if fenced {
                    Found::Done
                } else {
                    Found::Outside
                };
                found = found.max(here);
                here != Found::Done
            });
            found
        })
    }

    /// Returns when all machines in `list` are outside. They stay outside until [`World::start`].
    /// `list`, `waiter` and the result are as for [`World::handshake`].
    pub(crate) fn stop<M: Deref<Target: AsRef<Gate>>>(
        &self,
        list: impl FnOnce() -> Vec<M>,
        waiter: &mut impl Waiter<M>,
    ) -> bool {
        // Acquire: pairs with the Release of `start`. What an earlier stopper did is visible, also
        // where there is no machine to wait for, and so no fence.
        let number = event_of(self.wanted.fetch_add(EVENT + 1, Ordering::Acquire)) + EVENT;
        let _watches = Watches::new(self);
        let waiting = list();
        self.wait_for(waiter, |waiter, fenced| {
            // A machine that was outside may be inside for a moment, until `try_enter` fails. So no
            // machine leaves the list before all are outside at once.
            waiting.iter().fold(Found::Done, |found, machine| {
                let gate: &Gate = (**machine).as_ref();
                // Looked at before `inside`: by then the machine has answered, and an older value
                // of `inside` is not read any more.
                let answered = gate.has_answered(number);
                let inside = gate.is_inside();
                if inside && !answered {
                    waiter.ask(machine);
                }
                found.max(match inside {
                    true => Found::Inside,
                    false if answered || fenced => Found::Done,
                    false => Found::Outside,
                })
            })
        })
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

    /// Waits until `look` finds that it is done. It asks the machines inside, and is told whether
    /// a heavy fence has come before. The caller [`Watches`], after it has written what it wants.
    /// Returns whether there was a heavy fence.
    fn wait_for<M, W: Waiter<M>>(
        &self,
        waiter: &mut W,
        mut look: impl FnMut(&mut W, bool) -> Found,
    ) -> bool {
        let mut found = Found::Inside;
        spin(|| {
            found = look(waiter, left_out(LeftOut::OutsideFence));
            found != Found::Inside
        });
        if found == Found::Done {
            return false;
        }
        // Invariants 1, 3 and 5: pairs with the light fences in `try_enter` and `exit`.
        heavy_fence();
        if found == Found::Outside && spin(|| look(waiter, true) == Found::Done) {
            return true;
        }
        loop {
            let guard = self.lock.lock();
            if look(waiter, true) == Found::Done {
                break;
            }
            drop(self.changed.wait_for(guard, ASK_AGAIN));
            waiter.between_looks();
        }
        true
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
