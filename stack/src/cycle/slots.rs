//! Scans in a stopped world, and the places of roots for collectors that move objects:
//!
//! ```text
//! begin_scanning, stop_world(begin_slots, visit_slots ..., move objects, end_scanning)
//! ```

use super::stopped::CycleStopped;
use crate::goroutine::Goroutine;
use crate::memory::StackMemory;
use crate::protocol::Status;
use crate::runtime::{Activity, Runtime, assert_no_lock, under_lock};
use crate::scan::{self, MayMove, Root, RootSlot, ScanError, To};
use std::sync::Arc;

impl CycleStopped<'_> {
    /// Begins the scan of every goroutine's stack, as
    /// [`CycleDriver::scan_goroutines`](crate::CycleDriver::scan_goroutines) does while the world
    /// runs. The roots go to the collector. The frames beyond are left to
    /// [`Runtime::scan_frozen`]. No stack moves or shrinks.
    ///
    /// # Errors
    /// [`ScanError`].
    ///
    /// # Panics
    /// If no cycle is scanning: see
    /// [`CycleDriver::begin_scanning`](crate::CycleDriver::begin_scanning).
    pub fn scan_goroutines(&mut self) -> Result<(), ScanError> {
        let runtime = self.runtime();
        begin_scans(runtime, &|words: &[usize]| runtime.roots(words))?;
        runtime.tell_of_frozen();
        Ok(())
    }

    /// As [`CycleStopped::scan_goroutines`], for a collector that moves objects: gives the places
    /// of roots to `to`, several in one call, which may write there until the world goes on. The
    /// frames beyond are left to [`CycleStopped::visit_slots`]. Of a cycle with
    /// [`ScanScope::Short`](crate::ScanScope::Short) these are places that may refer to objects
    /// that are not old.
    ///
    /// Until the world goes on, no stack moves or shrinks, and
    /// [`Runtime::set_transfer`](crate::Runtime::set_transfer) and
    /// [`Runtime::take_transfer`](crate::Runtime::take_transfer) wait, on threads that are outside.
    ///
    /// A cycle has either places or words: a barrier that a goroutine hits while the world runs
    /// gives words to the [`RootSink`](crate::RootSink). So [`CycleStopped::end_scanning`] comes
    /// before the world goes on, with no place left to visit.
    ///
    /// # Errors
    /// [`ScanError`].
    ///
    /// # Panics
    /// As [`CycleStopped::scan_goroutines`]. In `to`: it runs under locks of goroutines, and a
    /// panic of its own ends the process with status 2.
    pub fn begin_slots(&mut self, to: &dyn Fn(&[RootSlot])) -> Result<(), ScanError> {
        let runtime = self.runtime();
        // Before the first lock of a transfer.
        runtime.cycle.lend_slots(true);
        begin_scans(runtime, &|slots: &[RootSlot]| give(to, slots))
    }

    /// Visits a chunk of the frames of one stack that [`CycleStopped::begin_slots`] has left, and
    /// gives the places of its roots to `to`. Several threads may call it at the same time. Returns
    /// false if there was nothing to do; then another thread may be in the middle of a visit.
    ///
    /// # Errors
    /// [`ScanError`].
    ///
    /// # Panics
    /// As [`CycleStopped::begin_slots`].
    pub fn visit_slots(&self, to: &dyn Fn(&[RootSlot])) -> Result<bool, ScanError> {
        assert_no_lock("CycleStopped::visit_slots");
        self.runtime().visit_frozen(&|slots: &[RootSlot]| give(to, slots))
    }

    /// Gives the places of all roots to `to` again, of whole stacks, and changes nothing: for a
    /// collector that needs its roots twice, as mark-compact does, and for verification.
    ///
    /// # Errors
    /// [`ScanError`].
    ///
    /// # Panics
    /// As [`CycleStopped::begin_slots`].
    pub fn all_slots(&self, to: &dyn Fn(&[RootSlot])) -> Result<(), ScanError> {
        assert_no_lock("CycleStopped::all_slots");
        self.runtime().cycle.begin_scan_in_stopped_world();
        self.runtime().cycle.lend_slots(true);
        let to = |slots: &[RootSlot]| give(to, slots);
        for goroutine in self.runtime().goroutines() {
            self.visit_whole(&goroutine, &to)?;
        }
        Ok(())
    }

    /// Shrinks the stacks of goroutines that use little of them. Before places are given away, or
    /// when they are not used any more.
    ///
    /// # Errors
    /// [`ScanError`].
    ///
    /// # Panics
    /// If places of this stop have been given away.
    pub fn shrink_stacks(&mut self) -> Result<(), ScanError> {
        let runtime = self.runtime();
        assert!(!runtime.cycle.has_lent_slots(), "the places of roots are in use");
        for goroutine in runtime.goroutines() {
            scan::with_memory_to_shrink(runtime, &goroutine, |memory| {
                shrink(runtime, &goroutine, memory)
            })?;
        }
        Ok(())
    }
}

fn shrink(
    runtime: &Runtime,
    goroutine: &Arc<Goroutine>,
    memory: &mut Option<StackMemory>,
) -> Result<(), ScanError> {
    let scan = goroutine.scan_lock();
    let status = goroutine.status();
    if status == Status::Dead || goroutine.has_a_thread(status) {
        return Ok(());
    }
    // SAFETY: the world is stopped, so the goroutine stands still, and the lock is ours.
    unsafe { scan::shrink(runtime, goroutine, &scan, memory) }
}

/// Calls `to` under a lock of the library, where it must not unwind.
fn give(to: &dyn Fn(&[RootSlot]), slots: &[RootSlot]) {
    under_lock("the taker of places", || to(slots));
}

/// Begins the scan of every goroutine's stack in the stopped world. The roots go to `to`.
fn begin_scans<R: Root>(runtime: &Runtime, to: To<'_, R>) -> Result<(), ScanError> {
    assert_no_lock("a scan of all stacks");
    assert!(runtime.is_scanning(), "begin_scanning comes first");
    runtime.cycle.begin_scan_in_stopped_world();
    runtime.cycle.begin_round();
    runtime.registry.portions().flatten().try_for_each(|goroutine| {
        let begun = begin_scan(runtime, &goroutine, to);
        if goroutine.status() == Status::Running {
            // The goroutine stands at a poll, and goes on without telling.
            runtime.cycle.begins_to_run(&goroutine);
        }
        begun
    })
}

fn begin_scan<R: Root>(
    runtime: &Runtime,
    goroutine: &Arc<Goroutine>,
    to: To<'_, R>,
) -> Result<(), ScanError> {
    let mut scan = goroutine.scan_lock();
    if goroutine.status() == Status::Dead || scan::keep_scan(runtime, goroutine, &mut scan, to) {
        return Ok(());
    }
    let _span = runtime.observed().span(Activity::Scan, goroutine.id());
    // SAFETY: the world is stopped, so the goroutine stands still, and the lock is ours.
    unsafe { scan::begin_scan(runtime, goroutine, &mut scan, MayMove::No, to) }
}
