//! What the collector is to the stacks: where their scans deliver roots, and what it does at polls.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use stackmark_stack::{Caller, Goroutine, RootSink};

use super::state::CollectorState;
use crate::generation::Generation;
use crate::heap::Heap;
use crate::mark::MarkState;

/// How many polls there are from one whole collection to the next, where there are generations.
const WHOLE_EVERY: usize = 8;

/// Receives the roots that a runtime finds in stacks.
pub(super) struct RootReceiver<H: Heap> {
    marking: Arc<MarkState<H>>,
    every_poll: Option<EveryPoll<H>>,
}

/// Collects at every poll. Weak, since the collector refers to the runtime, and that to the sink.
struct EveryPoll<H: Heap> {
    collector: Weak<CollectorState<H>>,
    polls: AtomicUsize,
}

impl<H: Heap> RootReceiver<H> {
    pub(super) fn new(collector: &Arc<CollectorState<H>>, every_poll: bool) -> RootReceiver<H> {
        let collect = || EveryPoll { collector: Arc::downgrade(collector), polls: 0.into() };
        RootReceiver {
            marking: Arc::clone(&collector.marking),
            every_poll: every_poll.then(collect),
        }
    }
}

impl<H: Heap> RootSink for RootReceiver<H> {
    fn roots(&self, words: &[usize]) {
        self.marking.shade(words);
    }

    fn stack_waits(&self) {
        self.marking.stack_waits();
    }

    fn sees_every_poll(&self) -> bool {
        self.every_poll.is_some()
    }

    fn at_poll(&self, _goroutine: &Goroutine) {
        let Some(every_poll) = &self.every_poll else { return };
        let Some(collector) = every_poll.collector.upgrade() else { return };
        // Relaxed: a counter.
        let whole = every_poll.polls.fetch_add(1, Relaxed).is_multiple_of(WHOLE_EVERY);
        let generation = if whole { Generation::All } else { Generation::Young };
        // SAFETY: used within this method, which the goroutine's poll calls.
        let caller = unsafe { Caller::current() };
        caller.foreign(|| collector.requests.wait(generation));
    }
}
