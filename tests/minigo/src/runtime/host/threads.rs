//! Goroutines that are threads, on whose own stacks they run. A goroutine that parks keeps its
//! thread.

use parking_lot::{Condvar, Mutex};
use stackmark::stack::ending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

/// Bytes of a thread's stack that the runtime keeps for native code, and what the system takes.
const BESIDE_MANAGED: usize = 256 << 10;

/// What is known of all goroutines together.
#[derive(Clone, Default)]
pub(super) struct Threads(Arc<Counts>);

#[derive(Default)]
struct Counts {
    /// The goroutines that have not ended.
    goroutines: AtomicUsize,
    /// Those that do not wait for another goroutine, and what else may wake one.
    awake: Mutex<usize>,
    /// Nothing is awake.
    all_asleep: Condvar,
}

/// There is no thread for a goroutine.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no thread for goroutine {number}: {error}")]
pub(super) struct NoThread {
    number: usize,
    #[source]
    error: std::io::Error,
}

/// See [`Threads::awake`].
pub(super) struct Awake<'t>(&'t Threads);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.sleeps();
    }
}

impl Threads {
    /// A new goroutine whose managed code, which `run` calls, has so many bytes of stack.
    ///
    /// # Errors
    /// [`NoThread`].
    pub(super) fn spawn(
        &self,
        stack: usize,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), NoThread> {
        let number = self.0.goroutines.fetch_add(1, Ordering::Relaxed) + 1;
        self.wakes();
        let own = self.clone();
        let life = move || {
            ending::run_thread(run);
            own.0.goroutines.fetch_sub(1, Ordering::Relaxed);
            own.sleeps();
        };
        let thread = Builder::new().stack_size(stack.saturating_add(BESIDE_MANAGED)).spawn(life);
        thread.map(drop).map_err(|error| NoThread { number, error })
    }

    /// Something comes that may wake a goroutine, or wakes one that sleeps.
    pub(super) fn wakes(&self) {
        *self.0.awake.lock() += 1;
    }

    /// A goroutine goes to sleep, or something goes that might have woken one.
    pub(super) fn sleeps(&self) {
        let mut awake = self.0.awake.lock();
        *awake -= 1;
        if *awake == 0 {
            self.0.all_asleep.notify_one();
        }
    }

    /// Something may wake a goroutine as long as the value lives.
    pub(super) fn awake(&self) -> Awake<'_> {
        self.wakes();
        Awake(self)
    }

    /// Returns when nothing is awake any more.
    pub(super) fn wait_for_deadlock(&self) {
        let mut awake = self.0.awake.lock();
        while *awake > 0 {
            self.0.all_asleep.wait(&mut awake);
        }
    }

    /// The goroutines that have not ended.
    pub(super) fn goroutines(&self) -> usize {
        self.0.goroutines.load(Ordering::Relaxed)
    }
}
