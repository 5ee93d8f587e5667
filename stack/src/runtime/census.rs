//! Counts of everything that a runtime takes and gives back, so that tests see leaks.

use super::shared::Runtime;
use super::stubs::stubs;
use super::under_lock::assert_no_lock;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// Counted while other threads run: exact only if nothing is taken or given back meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Goroutines that have not ended, those of attached threads included.
    pub goroutines: usize,
    /// Stacks that goroutines have.
    pub stacks: usize,
    /// Machines: threads that run goroutines, attached ones and spare ones.
    pub machines: usize,
    /// Machines made for threads that call in by themselves, spare or taken.
    pub for_threads: usize,
    /// Machines among [`Census::for_threads`] that no thread has taken.
    pub spare: usize,
    /// Threads that have called in by themselves and not ended.
    pub attached: usize,
    /// Barriers placed so far, minus those that were hit, leapfrogged or removed.
    pub unsettled: u64,
    /// Unhit barriers of all goroutines.
    pub barriers: usize,
    /// Stubs of the process.
    pub stubs: usize,
    /// Stubs in the pool.
    pub free_stubs: usize,
    /// Stubs that goroutines of this runtime have: those of their barriers, and those of barriers
    /// removed under them in a foreign call.
    pub taken_stubs: usize,
}

impl Census {
    /// The counts that do not add up, in words. Each is a leak. Call it only while no goroutine and
    /// no cycle runs, in a process with one runtime.
    pub fn imbalances(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut equal = |what: &str, a: usize, b: usize| {
            if a != b {
                found.push(format!("{what}: {a} and {b}"));
            }
        };
        equal("goroutines and their stacks", self.goroutines, self.stacks);
        equal(
            "barriers not settled and those that there are",
            self.unsettled as usize,
            self.barriers,
        );
        equal("stubs, free or a goroutine's", self.stubs, self.free_stubs + self.taken_stubs);
        equal(
            "machines for threads, spare or attached",
            self.for_threads,
            self.spare + self.attached,
        );
        found
    }
}

impl Runtime {
    /// Counts what the runtime has. Takes the locks of all goroutines in turn.
    ///
    /// # Panics
    /// In an [`Observer`](crate::Observer), a [`RootSink`](crate::RootSink) or a visit of all
    /// stacks, which run under such locks.
    pub fn census(&self) -> Census {
        assert_no_lock("Runtime::census");
        let counters = self.counters();
        // Acquire: the load of `placed` below stays behind these loads, so no barrier settles that
        // is not counted as placed.
        let settled: u64 = [&counters.hit, &counters.leapfrogged, &counters.removed]
            .iter()
            .map(|c| c.load(Acquire))
            .sum();
        let unsettled = counters.placed.load(Relaxed).wrapping_sub(settled);
        let (for_threads, spare) = self.registry.count_spares();
        let (mut barriers, mut taken_stubs, mut stacks) = (0, 0, 0);
        for goroutine in self.registry.portions().flatten() {
            stacks += usize::from(goroutine.memory.lock().is_some());
            let scan = goroutine.scan_lock();
            barriers += scan.barriers().unhit().len();
            taken_stubs += scan.barriers().stubs();
        }
        Census {
            goroutines: self.live_goroutines(),
            stacks,
            machines: self.registry.count_machines(),
            for_threads,
            spare,
            attached: self.attached_threads(),
            unsettled,
            barriers,
            stubs: stubs().size(),
            free_stubs: stubs().available(),
            taken_stubs,
        }
    }
}
