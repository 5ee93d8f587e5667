//! The monitor thread: it retakes permits from threads that are away, preempts, and starts threads
//! that the system has refused before.

use super::threads::Scheduler;
use crate::alarm;
use std::collections::HashMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

/// Every time slice all running goroutines are asked to let others run. Also the
/// longest sleep of the monitor.
const TIME_SLICE: Duration = Duration::from_millis(10);
/// The shortest sleep of the monitor.
const SHORTEST_LOOK: Duration = Duration::from_micros(20);
/// After this many looks in which nothing happened the monitor begins to sleep longer.
const EAGER_LOOKS: u32 = 50;
/// The longest sleep while threads sleep for a collector: the queue of a thread that is away then
/// waits for the monitor.
const LOOK_WHILE_RESERVED: Duration = Duration::from_micros(500);
/// At most so often a thread that comes back from native code looks at the signal handlers, which
/// takes some microseconds.
const LOOK_AT_HANDLERS: Duration = Duration::from_millis(1);

/// Retakes permits and preempts until the scheduler stops.
pub(super) fn monitor(scheduler: &Weak<Scheduler>) {
    let mut seen = HashMap::new();
    let (mut delay, mut looks) = (SHORTEST_LOOK, 0);
    let (mut sliced, mut looked, mut crowded) = (Instant::now(), Instant::now(), None::<Instant>);
    loop {
        let Some(scheduler) = scheduler.upgrade() else { return };
        let permits = &scheduler.permits;
        let is_crowded = permits.wait_to_look(&*scheduler, &mut delay, LOOK_WHILE_RESERVED);
        // More permits are used than shall be. Often a goroutine parks at once, and its thread
        // gives way. Otherwise all running goroutines are asked to yield, below.
        crowded = if is_crowded { crowded.or_else(|| Some(Instant::now())) } else { None };
        let Some(runtime) = scheduler.runtime.upgrade() else { return };
        if permits.is_stopping() {
            return;
        }
        permits.try_again(&*scheduler);
        if crowded.is_some_and(|since| since.elapsed() >= LOOK_WHILE_RESERVED) {
            crowded = None;
            runtime.preempt_all();
        }
        if scheduler.retake(&mut seen) {
            (delay, looks) = (SHORTEST_LOOK, 0);
        } else {
            looks += 1;
            if looks > EAGER_LOOKS {
                delay = (delay * 2).min(TIME_SLICE);
            }
        }
        if looked.elapsed() >= LOOK_AT_HANDLERS {
            looked = Instant::now();
            alarm::look_soon();
        }
        if sliced.elapsed() >= TIME_SLICE {
            sliced = Instant::now();
            // Also those that a thread which is no machine has installed.
            alarm::check_handlers();
            runtime.preempt_all();
        }
    }
}

impl Scheduler {
    /// Retakes the permits of threads whose goroutine has been away since the last call. Returns
    /// whether there was one.
    fn retake(&self, seen: &mut HashMap<usize, u64>) -> bool {
        let mut any = false;
        for worker in self.queues.workers() {
            let Some(away) = worker.away().filter(|_| !worker.permit.is_retaken()) else {
                seen.remove(&worker.number);
                continue;
            };
            if seen.insert(worker.number, away) != Some(away) {
                continue;
            }
            let is_away = || worker.away() == Some(away);
            any |= self.permits.retake(self, &worker.permit, is_away);
        }
        any
    }
}
