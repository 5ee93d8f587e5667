//! The stopped world and its rescans.

use super::driver::CycleDriver;
use super::straggler::{Straggler, Waiting};
use crate::alarm;
use crate::goroutine::Goroutine;
use crate::protocol::Status;
use crate::runtime::{Listed, Runtime, Stopping, UnderLock, assert_no_lock};
use crate::scan::{self, Extent, FrameAt, Root, ScanError, To, Visited};
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Whether the next cycle may continue the scans of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextCycle {
    /// The next cycle scans whole stacks. Goroutines that run from now on are not marked.
    IsWhole,
    /// Goroutines that run from now on are marked, so that the next cycle may continue the scans of
    /// this one: see [`ScanScope::Short`](crate::ScanScope::Short).
    MayBeShort,
}

/// Stops the world, calls `f`, and starts the world again, also if `f` panics.
fn stop<R>(runtime: &Runtime, f: impl FnOnce(Option<Straggler>) -> R) -> R {
    struct Start<'r>(&'r Runtime);
    impl Drop for Start<'_> {
        fn drop(&mut self) {
            self.0.world.start();
        }
    }
    runtime.assert_outside("a stop of the world");
    alarm::check_fork();
    let _stopping = Stopping::of(runtime);
    let mut waiting = Waiting::new(runtime);
    let machines = || runtime.registry.machines();
    // Before the stop, which begins by counting itself: a report to the host may panic.
    let _start = Start(runtime);
    runtime.world.stop(machines, &mut waiting);
    f(waiting.end())
}

impl Runtime {
    /// Stops the world, calls `f`, and starts the world again. While `f` runs, no
    /// machine runs managed code.
    ///
    /// # Panics
    /// On a thread that counts as running in this runtime.
    pub fn stop_world<R>(&self, f: impl FnOnce(&mut WorldStopped<'_>) -> R) -> R {
        stop(self, |straggler| f(&mut WorldStopped { runtime: self, straggler }))
    }
}

impl CycleDriver {
    /// As [`Runtime::stop_world`], for the part of a cycle in the stopped world.
    ///
    /// # Panics
    /// On a thread that counts as running in this runtime.
    pub fn stop_world<R>(&mut self, f: impl FnOnce(&mut CycleStopped<'_>) -> R) -> R {
        self.let_go();
        let runtime = self.runtime().clone();
        stop(&runtime, |straggler| {
            let world = WorldStopped { runtime: &runtime, straggler };
            f(&mut CycleStopped { world, listed: &mut self.listed })
        })
    }
}

/// A place of a root on a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootAt {
    /// The goroutine's number.
    pub goroutine: u64,
    /// The frame that has it in a slot of its safepoint.
    pub frame: FrameAt,
    /// The name of the frame's function, if its region has one.
    pub function: Option<String>,
}

impl fmt::Display for RootAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RootAt { goroutine, frame, function } = self;
        let function = function.as_deref().unwrap_or("a function without a name");
        write!(f, "{function} at pc {:#x}, on the stack of goroutine {goroutine}", frame.pc)
    }
}

/// The stopped world.
#[derive(Debug)]
pub struct WorldStopped<'r> {
    runtime: &'r Runtime,
    straggler: Option<Straggler>,
}

impl WorldStopped<'_> {
    /// The runtime.
    pub fn runtime(&self) -> &Runtime {
        self.runtime
    }

    /// The goroutine that was the last to stop. `None` if there was none to wait for.
    pub fn straggler(&self) -> Option<Straggler> {
        self.straggler
    }

    /// Visits every frame of every goroutine, changes nothing, and gives the roots
    /// to `to`. For verification.
    ///
    /// # Errors
    /// [`ScanError`].
    ///
    /// # Panics
    /// In `to`, and as [`Runtime::scan_frozen`].
    pub fn visit_all(&self, to: &mut dyn FnMut(&[usize])) -> Result<Visited, ScanError> {
        assert_no_lock("WorldStopped::visit_all");
        let _runs = UnderLock::runs("a visit of all stacks");
        let to = RefCell::new(to);
        let to = |words: &[usize]| (to.borrow_mut())(words);
        let mut total = Visited::default();
        for goroutine in self.runtime.goroutines() {
            total.frames += self.visit_whole(&goroutine, &to)?.frames;
        }
        Ok(total)
    }

    /// Where on the stacks a root is: the first goroutine that has the word, and the youngest of
    /// its frames that has it. Walks all stacks. For reports.
    ///
    /// # Errors
    /// [`ScanError`].
    ///
    /// # Panics
    /// As [`Runtime::scan_frozen`].
    pub fn find_root(&self, word: usize) -> Result<Option<RootAt>, ScanError> {
        assert_no_lock("WorldStopped::find_root");
        for goroutine in self.runtime.goroutines() {
            let _scan = goroutine.scan_lock();
            if goroutine.status() == Status::Dead {
                continue;
            }
            // SAFETY: the world is stopped, so the goroutine stands still, and the lock is ours.
            let found = unsafe { scan::frame_with(self.runtime, &goroutine, word)? };
            if let Some(frame) = found {
                let snapshot = self.runtime.code.snapshot();
                let function = snapshot.function(frame.pc.wrapping_sub(1));
                let function = function.map(|function| function.name.to_owned());
                return Ok(Some(RootAt { goroutine: goroutine.id(), frame, function }));
            }
        }
        Ok(None)
    }

    /// Visits a whole stack, and checks its barriers. The roots go to `to`.
    pub(super) fn visit_whole<R: Root>(
        &self,
        goroutine: &Goroutine,
        to: To<'_, R>,
    ) -> Result<Visited, ScanError> {
        self.visit(goroutine, Extent::Verify, to)
    }

    fn visit<R: Root>(
        &self,
        goroutine: &Goroutine,
        extent: Extent,
        to: To<'_, R>,
    ) -> Result<Visited, ScanError> {
        let scan = goroutine.scan_lock();
        if goroutine.status() == Status::Dead {
            return Ok(Visited::default());
        }
        if extent == Extent::Verify {
            // SAFETY: the world is stopped, so the goroutine stands still, and the lock is ours.
            unsafe { scan::check(goroutine, &scan) };
        }
        // SAFETY: as above.
        unsafe { scan::visit(self.runtime, goroutine, &scan, extent, to) }
    }
}

/// The world, stopped for a cycle.
#[derive(Debug)]
pub struct CycleStopped<'r> {
    world: WorldStopped<'r>,
    /// What the driver lets go when the world goes on.
    listed: &'r mut Listed,
}

impl<'r> Deref for CycleStopped<'r> {
    type Target = WorldStopped<'r>;

    fn deref(&self) -> &WorldStopped<'r> {
        &self.world
    }
}

impl Drop for CycleStopped<'_> {
    fn drop(&mut self) {
        // Before the world goes on.
        self.world.runtime.cycle.lend_slots(false);
    }
}

impl CycleStopped<'_> {
    /// Finishes the scans that [`Runtime::scan_frozen`] has left. Then visits each goroutine that
    /// has run since its scan again, up to and including the owner of its lowest unhit barrier. The
    /// roots go to the collector.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn rescan_dirty(&mut self) -> Result<Visited, ScanError> {
        self.finish_scans()?;
        let runtime = self.world.runtime;
        let mut total = Visited::default();
        let mut dirty = Vec::from(runtime.cycle.take_dirty());
        // A goroutine that has scanned itself while it was in the list is there twice.
        dirty.sort_unstable_by_key(Arc::as_ptr);
        dirty.dedup_by_key(|goroutine| Arc::as_ptr(goroutine));
        for goroutine in dirty {
            let to = |words: &[usize]| runtime.roots(words);
            let visited = self.world.visit(&goroutine, Extent::Rescan, &to)?;
            total.frames += visited.frames;
            total.skipped += visited.skipped;
        }
        runtime.statistics.counters.rescanned.fetch_add(total.frames, Ordering::Relaxed);
        runtime.statistics.counters.skipped.fetch_add(total.skipped, Ordering::Relaxed);
        Ok(total)
    }

    /// Finishes the scans that [`Runtime::scan_frozen`] has left, and visits no frame again: for a
    /// cycle whose write barrier shades what is overwritten. The roots go to the collector.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn finish_scans(&mut self) -> Result<(), ScanError> {
        let runtime = self.world.runtime;
        while !runtime.cycle.is_visited() {
            if !runtime.scan_frozen()? {
                // Another thread is in the middle of a visit, and needs no goroutine to end it.
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Ends the cycle's scans. Called after [`CycleStopped::rescan_dirty`] or
    /// [`CycleStopped::finish_scans`].
    ///
    /// # Panics
    /// If a scan is not complete and the next cycle may be short.
    pub fn end_scanning(&mut self, next: NextCycle) {
        let watch = next == NextCycle::MayBeShort;
        assert!(
            !watch || self.world.runtime.cycle.is_visited(),
            "there are scans that are not complete"
        );
        *self.listed = self.world.runtime.cycle.end(watch);
    }
}
