//! Which worlds this thread has stopped: what waits for one of them to go on would wait for ever.

use super::shared::Runtime;
use crate::alarm;
use crate::protocol::Gate;
use std::cell::RefCell;

thread_local! {
    /// The numbers of the runtimes whose world this thread has stopped, in order.
    static STOPPED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// This thread has stopped a runtime's world, as long as the value lives.
pub(crate) struct Stopping;

impl Stopping {
    /// Notes it. Before the world stops.
    pub(crate) fn of(runtime: &Runtime) -> Stopping {
        STOPPED.with_borrow_mut(|stopped| stopped.push(runtime.registry.runtime()));
        Stopping
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        STOPPED.with_borrow_mut(Vec::pop);
    }
}

impl Runtime {
    /// Whether the calling thread has stopped a world, of any runtime, that has not started again.
    /// Such a thread must not wait for a collection.
    pub fn has_stopped_world() -> bool {
        STOPPED.try_with(|stopped| !stopped.borrow().is_empty()).unwrap_or(false)
    }

    /// Goes inside, with a machine of this thread; waits while the world is stopped. The child of a
    /// fork ends here.
    ///
    /// # Panics
    /// If this thread has stopped it. The machine is outside then.
    #[inline]
    pub(crate) fn enter_world(&self, gate: &Gate) {
        alarm::check_fork();
        if !self.world.try_enter(gate) {
            self.enter_stopped_world(gate);
        }
    }

    /// Waits until the world runs again, on a thread that is outside.
    ///
    /// # Panics
    /// If this thread has stopped it.
    #[cold]
    pub(crate) fn wait_for_stopped_world(&self) {
        self.assert_not_stopped_here();
        self.world.wait_while_stopped();
    }

    /// Goes inside after `try_enter` has failed.
    ///
    /// # Panics
    /// As for [`Runtime::enter_world`].
    #[cold]
    pub(crate) fn enter_stopped_world(&self, gate: &Gate) {
        self.world.exit(gate);
        self.assert_not_stopped_here();
        self.world.enter_again(gate);
    }

    fn assert_not_stopped_here(&self) {
        // A thread that ends has no such list any more, and has not stopped anything.
        let here = STOPPED.try_with(|stopped| stopped.borrow().contains(&self.registry.runtime()));
        assert!(here != Ok(true), "this thread has stopped the world, and waits for it to go on");
    }
}
