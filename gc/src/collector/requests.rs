//! Requests for cycles, and the callbacks that wait for them.

use stackmark_stack::alarm;
use stackmark_stack::sync::{Condvar, Mutex};

use crate::generation::Generation;

/// Called when a cycle is complete.
pub(super) type Waiter = Box<dyn FnOnce() + Send>;

/// The queue between the threads that ask for cycles and the thread that runs them.
#[derive(Default)]
pub(super) struct Requests {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    // Cycles are counted from 1. These are the last that is wanted, begun and complete.
    wanted: u64,
    begun: u64,
    complete: u64,
    waiters: Vec<(u64, Waiter)>,
    /// The next cycle is to collect everything.
    major: bool,
    stop: bool,
}

impl Requests {
    /// Asks for a cycle that begins after this call. `waiter` is called when it is complete. It is
    /// dropped if the collector ends before.
    pub(super) fn add(&self, generation: Generation, waiter: Option<Waiter>) {
        // The child of a fork has no thread that runs cycles.
        alarm::check_fork();
        let mut state = self.state.lock();
        if state.stop {
            return;
        }
        state.major |= generation == Generation::All;
        let number = state.begun + 1;
        state.wanted = state.wanted.max(number);
        state.waiters.extend(waiter.map(|waiter| (number, waiter)));
        drop(state);
        self.changed.notify_all();
    }

    /// As [`Requests::add`], and waits until the cycle is complete, or the collector has ended.
    pub(super) fn wait(&self, generation: Generation) {
        let (send, receive) = std::sync::mpsc::channel();
        let done = move || {
            // The receiver waits below.
            let _ = send.send(());
        };
        self.add(generation, Some(Box::new(done)));
        // An error means that the collector has ended: there is nothing to wait for.
        let _ = receive.recv();
    }

    /// Ends the thread that runs cycles, after the cycle that runs.
    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }

    /// Waits for a request. Returns the number of the cycle that begins and what is to be
    /// collected, or `None` after [`Requests::stop`].
    pub(super) fn next(&self) -> Option<(u64, Generation)> {
        let mut state = self.state.lock();
        while state.wanted <= state.complete && !state.stop {
            state = self.changed.wait(state);
        }
        if state.stop {
            let waiters = std::mem::take(&mut state.waiters);
            // Not under the lock: they are the embedder's.
            drop(state);
            drop(waiters);
            return None;
        }
        state.begun += 1;
        let major = std::mem::take(&mut state.major);
        Some((state.begun, if major { Generation::All } else { Generation::Young }))
    }

    /// Notes that a cycle is complete. Returns the callbacks that waited for it.
    pub(super) fn complete(&self, number: u64) -> Vec<Waiter> {
        let mut state = self.state.lock();
        state.complete = number;
        state.waiters.extract_if(.., |(wanted, _)| *wanted <= number).map(|(_, w)| w).collect()
    }
}
