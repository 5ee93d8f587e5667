//! The part of a machine that other threads see.

use super::stats::{Counters, count_gone};
use crate::goroutine::Goroutine;
use crate::os;
use crate::protocol::{Gate, Request, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

/// The part of a machine that other threads see.
#[derive(Debug)]
pub(crate) struct MachineEntry {
    pub(crate) gate: Gate,
    /// The goroutine that the machine runs. Release, paired with the Acquire of
    /// [`MachineEntry::current`]. Records live as long as the runtime, so a stale pointer does no
    /// harm: the wrong goroutine polls once.
    pub(crate) current: AtomicPtr<Goroutine>,
    /// How often the machine has gone outside and kept its goroutine. Written by the machine.
    /// Relaxed: a monitor only compares two reads.
    pub(crate) times_away: AtomicU64,
    /// The system's number of the last thread that the machine was bound to; 0 before the first
    /// one. Relaxed: for reports only.
    thread: AtomicI32,
    /// Barriers that goroutines have returned through here. The machine's thread alone writes it.
    hits: AtomicU64,
    /// How many of these are among the runtime's counters. Under the lock of the registry.
    gathered: AtomicU64,
}

impl AsRef<Gate> for MachineEntry {
    fn as_ref(&self) -> &Gate {
        &self.gate
    }
}

impl MachineEntry {
    pub(crate) fn new() -> MachineEntry {
        MachineEntry {
            gate: Gate::new(),
            current: AtomicPtr::default(),
            times_away: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            hits: AtomicU64::new(0),
            gathered: AtomicU64::new(0),
        }
    }

    /// Counts a barrier that the goroutine of this thread returns through. There is one writer, so
    /// no locked instruction is needed: one takes longer than all the rest of this.
    #[inline]
    pub(crate) fn count_hit(&self) {
        let hits = self.hits.load(Ordering::Relaxed);
        // Release: as in `count_gone`. The thread that placed the barrier counted it before.
        self.hits.store(hits + 1, Ordering::Release);
    }

    /// Counts one more of [`MachineEntry::times_away`].
    #[inline]
    pub(crate) fn break_off(&self) {
        let times = &self.times_away;
        times.store(times.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Adds what was counted here since the last call to the runtime's counters. The caller has the
    /// lock of the registry.
    pub(super) fn gather(&self, counters: &Counters) {
        // Acquire: pairs with the Release of `count_hit`, for readers of `Counters::settle`.
        let hits = self.hits.load(Ordering::Acquire);
        // Relaxed: under the lock.
        let before = self.gathered.swap(hits, Ordering::Relaxed);
        count_gone(&counters.hit, hits - before);
    }

    /// Binds the machine to the calling thread.
    pub(crate) fn bind_to_this_thread(&self) {
        self.thread.store(os::this_thread(), Ordering::Relaxed);
    }

    /// The system's number of the machine's thread.
    pub(crate) fn thread(&self) -> i32 {
        self.thread.load(Ordering::Relaxed)
    }

    /// The goroutine that the machine runs, or ran a moment ago.
    pub(crate) fn current(&self) -> Option<&Goroutine> {
        // Acquire: pairs with the Release stores of `current`. The record is visible whole.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: the pointer is null or a record that lives as long as the runtime: see the field.
        unsafe { current.as_ref() }
    }

    /// Whether the machine runs one of these goroutines, or ran it a moment ago.
    pub(crate) fn runs_one_of(&self, goroutines: &[Arc<Goroutine>]) -> bool {
        // Acquire: as in `current`. Only compared.
        let current = self.current.load(Ordering::Acquire).cast_const();
        goroutines.iter().any(|goroutine| Arc::as_ptr(goroutine) == current)
    }

    pub(crate) fn ask(&self, what: Request, signal: Signal) {
        if let Some(goroutine) = self.current() {
            goroutine.ask(what, signal);
        }
    }
}
