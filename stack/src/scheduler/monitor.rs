//! The monitor thread: it retakes permits from threads that are away, wakes threads for goroutines
//! that wait for long, preempts, and starts threads that the system has refused before.

use super::queues::Load;
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
/// The longest sleep while a thread sleeps and another one runs. Also how long a thread may have
/// goroutines wait before the monitor wakes another one for them.
const LOOK_WHILE_ASLEEP: Duration = Duration::from_millis(1);

/// Retakes permits and preempts until the scheduler stops.
pub(super) fn monitor(scheduler: &Weak<Scheduler>) {
    let (mut seen, mut waited_for) = (HashMap::new(), HashMap::new());
    let (mut delay, mut looks) = (SHORTEST_LOOK, 0);
    let (mut sliced, mut roused, mut crowded) = (Instant::now(), Instant::now(), None::<Instant>);
    loop {
        let Some(scheduler) = scheduler.upgrade() else { return };
        let permits = &scheduler.permits;
        let is_crowded =
            permits.wait_to_look(&*scheduler, &mut delay, LOOK_WHILE_RESERVED, LOOK_WHILE_ASLEEP);
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
        if roused.elapsed() >= LOOK_WHILE_ASLEEP {
            roused = Instant::now();
            scheduler.rouse(&mut waited_for);
        }
        if scheduler.retake(&mut seen) {
            (delay, looks) = (SHORTEST_LOOK, 0);
        } else {
            looks += 1;
            if looks > EAGER_LOOKS {
                delay = (delay * 2).min(TIME_SLICE);
            }
        }
        if sliced.elapsed() >= TIME_SLICE {
            sliced = Instant::now();
            // Also those that a thread which is no machine has installed.
            alarm::check_handlers();
            alarm::look_soon();
            // A goroutine that yields to none goes on at once. The fence of the request costs more.
            if scheduler.queues.any_waits() || scheduler.permits.any_blocked() {
                runtime.preempt_all();
            }
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

    /// Wakes a thread for each thread that has goroutines wait: since the last call it has not
    /// turned to another goroutine, or then, too, others were in its queue.
    fn rouse(&self, seen: &mut HashMap<usize, Load>) {
        if !self.permits.can_wake() {
            seen.clear();
            return;
        }
        for worker in self.queues.workers() {
            let load = worker.load();
            if seen.insert(worker.number, load).is_some_and(|before| load.has_waited(before)) {
                self.permits.rouse(self, || self.queues.open(&worker));
            }
        }
    }
}
