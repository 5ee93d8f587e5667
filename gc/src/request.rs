//! Requests for collections, and how those who made them learn that they are done.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::collector::CycleError;

/// How a requested collection ended.
pub type Outcome = Result<(), Arc<CycleError>>;

type Callback = Box<dyn FnOnce(Outcome) + Send>;

/// What is asked of the collector's thread.
#[derive(Default)]
pub(crate) struct Requests {
    state: Mutex<State>,
    /// The collector's thread waits here.
    wanted: Condvar,
    /// Native threads wait here.
    done: Condvar,
}

#[derive(Default)]
struct State {
    wanted: bool,
    /// Cycles begun and completed.
    begun: u64,
    completed: u64,
    callbacks: Vec<(u64, Callback)>,
    /// No cycle will run any more, for this reason.
    over: Option<Arc<CycleError>>,
    leave: bool,
}

/// A collection that was requested. It covers everything that was garbage when it was requested.
#[derive(Clone)]
pub struct Ticket {
    requests: Arc<Requests>,
    cycle: u64,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("cycle", &self.cycle).finish_non_exhaustive()
    }
}

impl Requests {
    /// Asks for a cycle that begins from now on.
    pub(crate) fn request(self: &Arc<Self>) -> Ticket {
        let mut state = self.state.lock();
        state.wanted = true;
        let cycle = state.begun + 1;
        drop(state);
        self.wanted.notify_one();
        Ticket { requests: Arc::clone(self), cycle }
    }

    /// The collector's thread waits for a request and begins its cycle; `None`: it shall end.
    pub(crate) fn next(&self) -> Option<u64> {
        let mut state = self.state.lock();
        while !state.leave {
            if std::mem::take(&mut state.wanted) && state.over.is_none() {
                state.begun += 1;
                return Some(state.begun);
            }
            self.wanted.wait(&mut state);
        }
        None
    }

    /// The cycle that was begun last is complete.
    pub(crate) fn complete(&self) {
        let mut state = self.state.lock();
        state.completed = state.begun;
        let completed = state.completed;
        let callbacks: Vec<_> = state.callbacks.extract_if(.., |(cycle, _)| *cycle <= completed).collect();
        drop(state);
        self.done.notify_all();
        for (_, callback) in callbacks {
            callback(Ok(()));
        }
    }

    /// No cycle runs any more.
    pub(crate) fn fail(&self, error: &Arc<CycleError>) {
        let mut state = self.state.lock();
        state.over.get_or_insert_with(|| Arc::clone(error));
        let callbacks = std::mem::take(&mut state.callbacks);
        drop(state);
        self.done.notify_all();
        for (_, callback) in callbacks {
            callback(Err(Arc::clone(error)));
        }
    }

    /// Ends the collector's thread after the cycle that it is in.
    pub(crate) fn leave(&self) {
        self.state.lock().leave = true;
        self.wanted.notify_one();
    }
}

impl Ticket {
    /// Blocks the thread until the collection is complete. For threads that run no goroutine, or within
    /// [`Caller::foreign`](stackmark_stack::Caller::foreign): the collector waits for all others.
    ///
    /// # Errors
    /// If the collector has failed or was dropped.
    pub fn wait(&self) -> Outcome {
        let mut state = self.requests.state.lock();
        loop {
            if state.completed >= self.cycle {
                return Ok(());
            }
            if let Some(error) = &state.over {
                return Err(Arc::clone(error));
            }
            self.requests.done.wait(&mut state);
        }
    }

    /// Whether the collection is complete.
    pub fn is_done(&self) -> bool {
        self.requests.state.lock().completed >= self.cycle
    }

    /// Calls `callback` when the collection is complete, or the collector has ended: on the collector's thread, or at once on
    /// this one. It must not block. This is how a goroutine waits: its native function parks, and the callback makes
    /// it ready.
    pub fn on_done(&self, callback: impl FnOnce(Outcome) + Send + 'static) {
        let mut state = self.requests.state.lock();
        let outcome = match &state.over {
            _ if state.completed >= self.cycle => Ok(()),
            Some(error) => Err(Arc::clone(error)),
            None => {
                state.callbacks.push((self.cycle, Box::new(callback)));
                return;
            }
        };
        drop(state);
        callback(outcome);
    }
}
