//! The goroutine that a handshake or a stop waited for last, and the report of one that
//! keeps the others waiting.

use crate::machine::thread_traceback;
use crate::protocol::{Request, Signal, Waiter};
use crate::runtime::{MachineEntry, Runtime};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The goroutine that was the last to answer a handshake, or to stop, of
/// those that were waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Straggler {
    /// The goroutine's number.
    pub goroutine: u64,
    /// How long the whole handshake or stop took, in nanoseconds.
    pub nanos: u64,
}

/// Asks the machines that have not reached a safepoint yet, and remembers the last one.
pub(crate) struct Waiting<'r> {
    runtime: &'r Runtime,
    begun: Instant,
    straggler: Option<Straggler>,
    /// The machine asked last. Only compared.
    asked: Option<*const MachineEntry>,
    overdue: Overdue,
}

impl<'r> Waiting<'r> {
    pub(crate) fn new(runtime: &'r Runtime) -> Waiting<'r> {
        let begun = Instant::now();
        let overdue = Overdue::since(begun);
        Waiting { runtime, begun, straggler: None, asked: None, overdue }
    }

    pub(crate) fn end(self) -> Option<Straggler> {
        let nanos = self.begun.elapsed().as_nanos() as u64;
        self.straggler.map(|straggler| Straggler { nanos, ..straggler })
    }
}

impl Waiter<Arc<MachineEntry>> for Waiting<'_> {
    /// The machine that is asked last is the last to answer.
    fn ask(&mut self, entry: &Arc<MachineEntry>) {
        entry.ask(Request::SAFEPOINT, Signal::Hint);
        let goroutine = entry.current().map(|goroutine| goroutine.id());
        if let Some(goroutine) = goroutine {
            self.straggler = Some(Straggler { goroutine, nanos: 0 });
        }
        self.asked = Some(Arc::as_ptr(entry));
    }

    fn between_looks(&mut self) {
        let asked = self.asked.take();
        self.overdue.report(self.runtime, |entry| asked == Some(&raw const *entry));
    }
}

/// A wait for machines, which is reported once if it takes longer than the host wants.
pub(crate) struct Overdue {
    begun: Instant,
    reported: bool,
}

impl Overdue {
    /// The wait has begun then.
    pub(crate) fn since(begun: Instant) -> Overdue {
        Overdue { begun, reported: false }
    }

    /// Reports the first machine that `is_awaited`, if the wait is overdue. Calls the host, so the
    /// caller has no lock.
    pub(crate) fn report(&mut self, runtime: &Runtime, is_awaited: impl Fn(&MachineEntry) -> bool) {
        let waited = self.begun.elapsed();
        let Some(limit) = runtime.config.report_stop_after.filter(|_| !self.reported) else {
            return;
        };
        if waited >= limit
            && let Some(entry) = runtime.registry.machines().iter().find(|entry| is_awaited(entry))
        {
            self.reported = true;
            tell(runtime, entry, waited);
        }
    }
}

#[cold]
fn tell(runtime: &Runtime, entry: &MachineEntry, waited: Duration) {
    let name = match entry.current() {
        Some(goroutine) => format!("goroutine {}", goroutine.id()),
        None => "a machine without a goroutine".to_owned(),
    };
    let waited = waited.as_secs_f64();
    let trace = thread_traceback(runtime, entry)
        .unwrap_or_else(|| "its thread does not answer\n".to_owned());
    runtime.host.warn(&format!(
        "{name} has not reached a safepoint for {waited:.3} s, and all others wait for it:\n{trace}"
    ));
}
