//! The goroutine that a handshake or a stop waited for last, and the report of one that
//! keeps the others waiting.

use crate::machine::thread_traceback;
use crate::protocol::{Request, Signal};
use crate::runtime::{MachineEntry, Runtime};
use std::sync::Arc;
use std::time::Instant;

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
    reported: bool,
}

impl<'r> Waiting<'r> {
    pub(crate) fn new(runtime: &'r Runtime) -> Waiting<'r> {
        Waiting { runtime, begun: Instant::now(), straggler: None, reported: false }
    }

    /// Asks a machine that is waited for. Called repeatedly: the machine that is asked last is the
    /// last to answer.
    pub(crate) fn ask(&mut self, entry: &Arc<MachineEntry>, signal: Signal) {
        entry.ask(Request::SAFEPOINT, signal);
        let goroutine = entry.current().map(|goroutine| goroutine.id());
        if let Some(goroutine) = goroutine {
            self.straggler = Some(Straggler { goroutine, nanos: 0 });
        }
        // The clock is read only when the waiter has stopped spinning.
        if signal == Signal::Fenced && !self.reported {
            let waited = self.begun.elapsed();
            if self.runtime.config.report_stop_after.is_some_and(|limit| waited >= limit) {
                self.reported = true;
                self.report(entry, goroutine);
            }
        }
    }

    #[cold]
    fn report(&self, entry: &MachineEntry, goroutine: Option<u64>) {
        let name = match goroutine {
            Some(id) => format!("goroutine {id}"),
            None => "a machine without a goroutine".to_owned(),
        };
        let waited = self.begun.elapsed().as_secs_f64();
        let trace = thread_traceback(self.runtime, entry)
            .unwrap_or_else(|| "its thread does not answer\n".to_owned());
        self.runtime.host.warn(&format!(
            "{name} has not reached a safepoint for {waited:.3} s, and all others wait for it:\n\
             {trace}"
        ));
    }

    pub(crate) fn end(self) -> Option<Straggler> {
        let nanos = self.begun.elapsed().as_nanos() as u64;
        self.straggler.map(|straggler| Straggler { nanos, ..straggler })
    }
}
