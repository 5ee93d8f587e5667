//! What a runtime has of everything that is taken and given back, so that tests see what was lost.

use crate::runtime::{Runtime, stubs};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// Counted while others run, so only exact when nothing is taken or given meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Goroutines that have not ended, those of attached threads included.
    pub goroutines: usize,
    /// Stacks that goroutines have.
    pub stacks: usize,
    /// Machines: threads that run goroutines, attached ones and spare ones.
    pub machines: usize,
    /// Machines made for threads that call in by themselves, and how many of them wait for one.
    pub for_threads: usize,
    /// See [`Census::for_threads`].
    pub spare: usize,
    /// Threads that have called in by themselves and not ended.
    pub attached: usize,
    /// Barriers placed so far, less those that were hit, leapfrogged or removed.
    pub unsettled: u64,
    /// Barriers that goroutines have.
    pub barriers: usize,
    /// Stubs that the process has.
    pub stubs: usize,
    /// Stubs that nobody has.
    pub free_stubs: usize,
    /// Stubs that goroutines of this runtime have: of their barriers, and of those removed under
    /// them in a foreign call.
    pub taken_stubs: usize,
}

impl Census {
    /// What does not add up, in words: everything that the goroutines which are there do not
    /// account for is lost. Only for a moment at which no goroutine and no cycle runs, in a process
    /// with one runtime.
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
    /// Counts what there is. Takes the locks of all goroutines in turn.
    pub fn census(&self) -> Census {
        let counters = &self.counters;
        // Before what was placed; Acquire: that load stays behind these.
        let settled: u64 = [&counters.hit, &counters.leapfrogged, &counters.removed]
            .iter()
            .map(|c| c.load(Acquire))
            .sum();
        let unsettled = counters.placed.load(Relaxed).wrapping_sub(settled);
        let all = self.all.lock().clone();
        let (for_threads, spare) = self.spare.count();
        let (mut barriers, mut taken_stubs) = (0, 0);
        for goroutine in &all {
            let scan = goroutine.scan_lock();
            barriers += scan.barriers().unhit().len();
            taken_stubs += scan.barriers().stubs();
        }
        Census {
            goroutines: self.live_goroutines(),
            stacks: all.iter().filter(|goroutine| goroutine.memory.lock().is_some()).count(),
            machines: self.machines.lock().len(),
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
