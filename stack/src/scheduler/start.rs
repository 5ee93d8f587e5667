//! Starting and stopping the threads.

use super::monitor::monitor;
use super::permits::Work;
use super::threads::{Scheduler, is_worker_thread};
use crate::{alarm, ending};
use std::sync::Arc;

/// The running threads of a scheduler.
#[derive(Debug)]
pub struct Threads {
    scheduler: Arc<Scheduler>,
}

impl Scheduler {
    /// Starts the threads. Called once.
    ///
    /// # Errors
    /// The system gives no thread. The threads that were started end, as by [`Threads::stop`].
    ///
    /// # Panics
    /// If the scheduler was started before, or if the runtime is gone.
    pub fn start(self: &Arc<Self>) -> std::io::Result<Threads> {
        assert!(self.runtime.strong_count() > 0, "the runtime outlives its scheduler's start");
        alarm::check_fork();
        let running = Threads { scheduler: self.clone() };
        match self.start_threads() {
            Ok(()) => Ok(running),
            Err(error) => {
                running.stop();
                Err(error)
            }
        }
    }

    fn start_threads(self: &Arc<Self>) -> std::io::Result<()> {
        let mut state = self.permits.lock();
        assert_eq!(state.next, 0, "a scheduler is started once");
        let watched = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("monitor".into());
        let started =
            thread.spawn(move || ending::run_thread(|| monitor(&watched))).and_then(|_| {
                (0..self.permits.count()).try_for_each(|_| self.start_thread(&mut state))
            });
        started.map_err(|error| {
            // Stored before the started threads find a goroutine to run: they wait for the lock.
            self.permits.stop(&mut state);
            let text = format!("cannot start a thread for goroutines: {error}");
            std::io::Error::new(error.kind(), text)
        })
    }
}

impl Threads {
    /// Stops the scheduler. Each thread ends when its goroutine parks, yields or ends. Returns when
    /// all threads have ended.
    ///
    /// # Panics
    /// On a scheduler's own thread, which would wait for itself.
    pub fn stop(self) {
        assert!(!is_worker_thread(), "a scheduler's own thread does not wait for its end");
        // In the child of a fork there is none to wait for.
        alarm::check_fork();
        let scheduler = &self.scheduler;
        scheduler.permits.stop(&mut scheduler.permits.lock());
        if let Some(runtime) = scheduler.runtime.upgrade() {
            runtime.preempt_all();
        }
        scheduler.permits.wait_for_the_end();
    }
}
