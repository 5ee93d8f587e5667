//! The thread that owns the stopped world. The library gives the stopped world to a closure, and
//! MMTk stops and resumes by two calls: this thread keeps the closure open between them, and lends
//! the world to MMTk's workers.

use parking_lot::{Condvar, Mutex, RwLock};
use stackmark_stack::{CycleDriver, CycleStopped, NextCycle, ScanError, ScanScope};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Why the world is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A collection within one pause, which has the places of roots.
    Cycle { scope: ScanScope, next: NextCycle },
    /// The first pause of one that marks while the world runs.
    Begin,
    /// The last pause of such a one, or one without roots of stacks.
    Bare,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Running,
    Asked(Stop),
    Stopped,
    Resuming,
}

/// The stopped world while it is lent.
struct Lent(NonNull<CycleStopped<'static>>);

// SAFETY: `World::lend` waits until the pointer is gone from the lock before it lets the world go
// on. A `CycleStopped` may be used and shared on any thread: see `is_shared`.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

fn is_shared<T: Send + Sync>() {}

/// Whether the world runs, and its owner's side of that.
pub(crate) struct World {
    state: Mutex<State>,
    changed: Condvar,
    lent: RwLock<Option<Lent>>,
    /// Whether the present cycle was to be short, and is whole: the last one did not allow it.
    is_whole: AtomicBool,
    /// How many pauses have ended. Counted in the stopped world.
    resumed: (Mutex<u64>, Condvar),
}

impl World {
    /// Starts the owner's thread. `marks` is called on it, with the world in each state: with true
    /// before a stop that begins to mark, and with false in the stop that ends it.
    ///
    /// # Panics
    /// If the system has no thread.
    pub(crate) fn start(
        driver: CycleDriver,
        failed: fn(&ScanError) -> !,
        marks: impl Fn(bool) + Send + 'static,
    ) -> Arc<World> {
        is_shared::<CycleStopped<'static>>();
        let world = Arc::new(World {
            state: Mutex::new(State::Running),
            changed: Condvar::new(),
            lent: RwLock::new(None),
            is_whole: AtomicBool::new(false),
            resumed: (Mutex::new(0), Condvar::new()),
        });
        let own = world.clone();
        let thread = std::thread::Builder::new().name("stackmark-mmtk".into());
        thread.spawn(move || own.serve(driver, failed, &marks)).expect("a thread");
        world
    }

    /// Serves one stop after the other, until the process ends: MMTk is never given up.
    fn serve(&self, mut driver: CycleDriver, failed: fn(&ScanError) -> !, marks: &dyn Fn(bool)) {
        let (mut cycle, mut marking) = (0, false);
        loop {
            let stop = self.asked();
            let mut begin = |scope| {
                cycle += 1;
                // The last cycle may not allow a short one.
                let begun = driver.begin_scanning(cycle, scope);
                let begun_whole = !begun && driver.begin_scanning(cycle, ScanScope::Whole);
                assert!(begun || begun_whole, "a whole scan can always begin");
                // Relaxed: the state's lock orders it.
                self.is_whole.store(begun_whole, Relaxed);
            };
            match stop {
                Stop::Cycle { scope, .. } => begin(scope),
                Stop::Begin => {
                    // On this thread, as its counterpart: the last pause may be ending only now.
                    marks(true);
                    begin(ScanScope::Whole);
                }
                Stop::Bare => {}
            }
            driver.stop_world(|stopped| {
                if stop == Stop::Bare && marking {
                    // Before MMTk's workers flush what the mutators have gathered.
                    stopped.finish_scans().unwrap_or_else(|error| failed(&error));
                }
                self.lend(stopped);
                match stop {
                    Stop::Cycle { next, .. } => stopped.end_scanning(next),
                    Stop::Begin => marking = true,
                    Stop::Bare if marking => {
                        marks(false);
                        marking = false;
                        stopped.end_scanning(NextCycle::IsWhole);
                    }
                    Stop::Bare => {}
                }
                // In the stopped world: no mutator is between its look at the number and its wait.
                *self.resumed.0.lock() += 1;
                self.resumed.1.notify_all();
            });
            self.set(State::Running);
        }
    }

    fn set(&self, state: State) {
        *self.state.lock() = state;
        self.changed.notify_all();
    }

    fn asked(&self) -> Stop {
        let mut state = self.state.lock();
        loop {
            if let State::Asked(stop) = *state {
                return stop;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Lends the stopped world until [`World::resume`].
    fn lend(&self, stopped: &mut CycleStopped<'_>) {
        *self.lent.write() = Some(Lent(NonNull::from(stopped).cast()));
        let mut state = self.state.lock();
        *state = State::Stopped;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| *state != State::Resuming);
        drop(state);
        // Waits for the last use.
        *self.lent.write() = None;
    }

    /// Stops the world, and returns when it stands. Returns whether the cycle is whole that was to
    /// be short.
    pub(crate) fn stop(&self, stop: Stop) -> bool {
        let mut state = self.state.lock();
        // The owner may still be starting the world after the last pause.
        self.changed.wait_while(&mut state, |state| *state != State::Running);
        *state = State::Asked(stop);
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| *state != State::Stopped);
        self.is_whole.load(Relaxed)
    }

    /// Lets the world go on.
    ///
    /// # Panics
    /// If the world is not stopped by [`World::stop`].
    pub(crate) fn resume(&self) {
        let mut state = self.state.lock();
        assert_eq!(*state, State::Stopped, "MMTk resumes a world that it has not stopped");
        *state = State::Resuming;
        self.changed.notify_all();
    }

    /// Calls `f` with the stopped world. Several threads may do so.
    ///
    /// # Panics
    /// If the world is not stopped.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&CycleStopped<'_>) -> R) -> R {
        let lent = self.lent.read();
        let lent = lent.as_ref().expect("MMTk asks for roots in the stopped world");
        // SAFETY: the owner keeps the closure open while the lock is held, and uses nothing of the
        // stopped world meanwhile; other threads only read.
        f(unsafe { lent.0.as_ref() })
    }

    /// As [`World::with`]; no other thread has the stopped world meanwhile.
    ///
    /// # Panics
    /// As [`World::with`].
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(&mut CycleStopped<'_>) -> R) -> R {
        let mut lent = self.lent.write();
        let lent = lent.as_mut().expect("MMTk asks for roots in the stopped world");
        // SAFETY: as in `with`, and the lock is held for writing.
        f(unsafe { lent.0.as_mut() })
    }

    /// How many pauses have ended.
    pub(crate) fn pauses(&self) -> u64 {
        *self.resumed.0.lock()
    }

    /// Waits until more pauses have ended than that.
    pub(crate) fn wait_for_pause(&self, before: u64) {
        let (count, ended) = &self.resumed;
        ended.wait_while(&mut count.lock(), |count| *count == before);
    }
}
