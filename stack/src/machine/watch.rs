//! A machine as a monitor sees it.

use crate::runtime::MachineEntry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A view of a machine for other threads.
#[derive(Clone, Debug)]
pub struct Watch(Arc<MachineEntry>);

impl Watch {
    pub(crate) fn new(entry: Arc<MachineEntry>) -> Watch {
        Watch(entry)
    }

    /// A number while the machine's goroutine is in a foreign call or parked in a callback. The
    /// number is the same as long as the goroutine stays there.
    pub fn away(&self) -> Option<u64> {
        let times = self.0.times_away.load(Ordering::Relaxed);
        let keeps = !self.0.current.load(Ordering::Relaxed).is_null();
        (keeps && !self.0.gate.is_inside()).then_some(times)
    }
}
