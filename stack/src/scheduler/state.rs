//! The accounting of threads and permits.

/// See the module. Used under the scheduler's lock.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The number of threads with a permit that sleep.
    pub(super) sleeping: usize,
    /// The number of permits that no thread has.
    pub(super) free: usize,
    /// The number of threads that wait for a permit.
    pub(super) standby: usize,
    /// The number of threads without a permit whose goroutine has not come back yet.
    pub(super) blocked: usize,
    /// The number of threads that have not ended.
    pub(super) live: usize,
    /// The number of the next thread.
    pub(super) next: usize,
    pub(super) stopped: bool,
    /// The number of permits to leave unused, for a collector.
    pub(super) reserved_for_gc: usize,
    /// A deadlock was reported, and no thread has run a goroutine since.
    pub(super) deadlock_reported: bool,
    /// The start of a thread has failed: the monitor tries again.
    pub(super) spawn_failed: bool,
}

impl State {
    /// The number of unused permits: of threads that sleep, or of no thread.
    pub(super) fn unused(&self) -> usize {
        self.sleeping + self.free
    }

    /// How many of the unused permits may be used.
    pub(super) fn wakeable(&self) -> usize {
        self.unused().saturating_sub(self.reserved_for_gc)
    }

    /// Whether more permits are used than the reservation allows.
    pub(super) fn is_crowded(&self) -> bool {
        self.unused() < self.reserved_for_gc
    }

    /// Whether a thread may take a permit that no thread has.
    pub(super) fn may_take(&self) -> bool {
        self.free > 0 && self.wakeable() > 0
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    /// Of four permits, some are unused: threads sleep with them, or no thread has them. The others
    /// are used, one more or less than the reservation leaves.
    #[test]
    fn a_reservation_keeps_so_many_permits_unused() {
        for (sleeping, free, reserved_for_gc, wakeable, is_crowded, may_take) in [
            (0, 0, 0, 0, false, false),
            (1, 0, 0, 1, false, false),
            (0, 1, 0, 1, false, true),
            (2, 2, 0, 4, false, true),
            (0, 0, 1, 0, true, false),
            (1, 0, 1, 0, false, false),
            (0, 1, 1, 0, false, false),
            (1, 1, 1, 1, false, true),
            (2, 0, 1, 1, false, false),
            (1, 1, 3, 0, true, false),
            (1, 2, 3, 0, false, false),
            (1, 3, 3, 1, false, true),
        ] {
            let state = State { sleeping, free, reserved_for_gc, ..State::default() };
            assert_eq!(state.unused(), sleeping + free);
            assert_eq!(
                (state.wakeable(), state.is_crowded(), state.may_take()),
                (wakeable, is_crowded, may_take),
                "{state:?}"
            );
        }
    }
}
