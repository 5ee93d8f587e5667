//! The thread that runs cycles.

use std::sync::Arc;

use stackmark_stack::{Activity, CycleDriver};

use super::cycle::Cycle;
use super::plan::{Plan, Planner};
use super::state::CollectorState;
use crate::bytes::in_memory;
use crate::heap::{BY_COLLECTOR, Heap};
use crate::mark::Marker;

/// The thread that runs cycles. It marks with the workers.
pub(super) struct Driver<H: Heap> {
    pub(super) collector: Arc<CollectorState<H>>,
    pub(super) marker: Marker<H>,
    pub(super) planner: Planner,
}

impl<H: Heap> Driver<H> {
    /// Runs cycles over these stacks until requests end.
    pub(super) fn run(mut self, mut stacks: CycleDriver) {
        let collector = Arc::clone(&self.collector);
        let runtime = &collector.runtime;
        while let Some((number, wanted)) = collector.requests.next() {
            runtime.reserve_processors(self.marker.workers());
            collector.heap.finish_sweep(BY_COLLECTOR);
            self.learn_live();
            let cycle = Cycle::begin(
                &collector,
                &mut stacks,
                &mut self.marker,
                &mut self.planner,
                number,
                wanted,
            );
            let (plan, due) = cycle.run().unwrap_or_else(|error| runtime.fatal(&error));
            let waiters = collector.requests.complete(number);
            due.into_iter().for_each(|(object, callback)| callback(object));
            waiters.into_iter().for_each(|waiter| waiter());
            self.sweep(&plan);
            runtime.reserve_processors(0);
        }
    }

    fn sweep(&mut self, plan: &Plan) {
        let span = self.collector.runtime.observed().span(Activity::Sweep, 0);
        self.collector.heap.finish_sweep(BY_COLLECTOR);
        drop(span);
        self.learn_live();
        if let Some(keep) = self.planner.swept(plan) {
            self.collector.heap.release(keep, BY_COLLECTOR);
        }
    }

    fn learn_live(&mut self) {
        let live = in_memory(self.collector.heap.counts().live_bytes);
        self.planner.set_live(live, self.collector.runtime.stack_bytes().resident);
    }
}
