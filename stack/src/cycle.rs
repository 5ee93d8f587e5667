//! What a collector asks of all stacks in a cycle: handshakes, the first scans, the stopped world and its rescans.

use crate::goroutine::{Goroutine, Request, ScanState};
use crate::moving;
use crate::runtime::{MachineEntry, Runtime};
use crate::scan::{self, Extent, ScanError, Visited};
use crate::status::Status;
use stackmark_unwind::FrameKind;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// A goroutine that was asked to scan itself may park instead of polling: how often that is looked for.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

impl Runtime {
    fn entries(&self) -> Vec<Arc<MachineEntry>> {
        self.machines.lock().clone()
    }

    /// Returns when every machine has passed a safepoint, or has not run managed code, at some moment since the call began.
    /// What the caller wrote before is visible to all managed code that runs afterwards.
    /// Tells who answered last.
    pub fn handshake(&self) -> Option<Straggler> {
        let mut waiting = Waiting::new();
        self.world.handshake(|| self.entries(), |entry| waiting.ask(entry));
        waiting.end()
    }

    /// From now on, until [`WorldStopped::end_scanning`], goroutines that run count as changed since their scan. `cycle` is
    /// not 0 and larger than the last one's. The write barrier is on, everywhere.
    pub fn begin_scanning(&self, cycle: u64) {
        // Release: the write barrier's flag and the handshake before it.
        self.scanning.store(cycle, Ordering::Release);
        // Pairs with the fence in spawn: a goroutine that the scan finds dead finds the scan begun when it comes to life.
        fence(Ordering::SeqCst);
    }

    /// Scans the stack of every goroutine, once: those that stand still from this thread, the others ask themselves.
    /// Returns when all are scanned. Their roots have gone to the collector.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn scan_goroutines(self: &Arc<Self>) -> Result<(), ScanError> {
        let cycle = self.scanning.load(Ordering::Relaxed);
        assert_ne!(cycle, 0, "begin_scanning comes first");
        let mut waiting = Vec::new();
        let mut at = 0;
        loop {
            // In portions: spawning goroutines takes the same lock.
            let portion: Vec<_> = self.all.lock().iter().skip(at).take(512).cloned().collect();
            if portion.is_empty() {
                break;
            }
            at += portion.len();
            for goroutine in portion {
                if !self.try_scan(&goroutine, cycle)? {
                    waiting.push(goroutine);
                }
            }
        }
        let (lock, changed) = &self.scanned;
        while !waiting.is_empty() {
            let mut still = Vec::new();
            for goroutine in waiting {
                if !self.try_scan(&goroutine, cycle)? {
                    still.push(goroutine);
                }
            }
            waiting = still;
            if !waiting.is_empty() {
                drop(changed.wait_for(lock.lock(), LOOK_AGAIN));
            }
        }
        Ok(())
    }

    /// Scans the goroutine if it stands still, asks it if it runs. Whether it is scanned.
    fn try_scan(&self, goroutine: &Arc<Goroutine>, cycle: u64) -> Result<bool, ScanError> {
        // Acquire: the scan itself, done by its own thread.
        if goroutine.scanned_in.load(Ordering::Acquire) == cycle || goroutine.status() == Status::Dead {
            return Ok(true);
        }
        let begun = Instant::now();
        match goroutine.hold() {
            Ok(mut held) => {
                let may_move = held.status != Status::Foreign;
                // SAFETY: the goroutine is held.
                unsafe { self.first_scan(goroutine, &mut held.state, cycle, may_move)? };
                drop(held);
                self.note_hold(begun);
                Ok(true)
            }
            Err(Status::Dead) => Ok(true),
            Err(_) => {
                goroutine.request(Request::SCAN);
                Ok(false)
            }
        }
    }

    /// The first scan of a cycle: shrinks where that is allowed, scans, places barriers.
    ///
    /// # Safety
    /// As for [`scan::scan`]; `may_move` only if as for [`moving::move_to`].
    unsafe fn first_scan(
        &self,
        goroutine: &Goroutine,
        state: &mut ScanState,
        cycle: u64,
        may_move: bool,
    ) -> Result<(), ScanError> {
        if goroutine.scanned_in.load(Ordering::Relaxed) == cycle {
            return Ok(());
        }
        let used = goroutine.bounds().end - goroutine.header.sched.sp.load(Ordering::Relaxed);
        self.counters.deepest_bytes.fetch_max(used as u64, Ordering::Relaxed);
        if may_move {
            // SAFETY: by our contract.
            unsafe { moving::shrink(self, goroutine)? };
        }
        // SAFETY: by our contract.
        let visited = unsafe { scan::scan(self, goroutine, state, Extent::First)? };
        self.counters.scanned_stopped.fetch_add(visited.frames, Ordering::Relaxed);
        // Release: who sees the number sees the roots delivered.
        goroutine.scanned_in.store(cycle, Ordering::Release);
        Ok(())
    }

    /// Calls `visit` for each frame of a goroutine that stands still, youngest first, with its kind and its pc, as
    /// [`Caller::backtrace`](crate::Caller::backtrace) does. False, without a visit, if it runs or has ended.
    ///
    /// # Errors
    /// [`ScanError`]: the walk ends early.
    pub fn backtrace(&self, goroutine: &Goroutine, visit: impl FnMut(FrameKind, usize)) -> Result<bool, ScanError> {
        match goroutine.hold() {
            Ok(_held) => {
                // SAFETY: the goroutine is held.
                unsafe { scan::backtrace(self, goroutine, visit)? };
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    fn note_hold(&self, begun: Instant) {
        let nanos = begun.elapsed().as_nanos() as u64;
        self.holds.record(nanos);
        self.longest_hold.fetch_max(nanos, Ordering::Relaxed);
    }

    /// Stops the world: returns when no machine runs managed code, and none will until the value is dropped.
    pub fn stop_world(self: &Arc<Self>) -> WorldStopped {
        let mut waiting = Waiting::new();
        self.world.stop(|| self.entries(), |entry| waiting.ask(entry));
        WorldStopped { runtime: self.clone(), straggler: waiting.end() }
    }

    /// The longest hold and the most frames of one stack since the last call, in nanoseconds and frames.
    pub fn take_cycle_maxima(&self) -> (u64, u64) {
        (self.longest_hold.swap(0, Ordering::Relaxed), self.deepest_frames.swap(0, Ordering::Relaxed))
    }
}

/// The goroutine that was the last to answer, or to stand still, of those that had to be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Straggler {
    /// Its number.
    pub goroutine: u64,
    /// How long it took since all were asked, in nanoseconds.
    pub nanos: u64,
}

/// Who was asked for a safepoint and had not reached it yet.
struct Waiting {
    begun: Instant,
    straggler: Option<Straggler>,
}

impl Waiting {
    fn new() -> Waiting {
        Waiting { begun: Instant::now(), straggler: None }
    }

    /// Called again and again for each machine that is waited for: the last one asked is the last to answer.
    fn ask(&mut self, entry: &Arc<MachineEntry>) {
        entry.ask(Request::SAFEPOINT);
        if let Some(goroutine) = entry.current() {
            self.straggler = Some(Straggler { goroutine: goroutine.id(), nanos: 0 });
        }
    }

    fn end(self) -> Option<Straggler> {
        let nanos = self.begun.elapsed().as_nanos() as u64;
        self.straggler.map(|straggler| Straggler { nanos, ..straggler })
    }
}

/// The goroutine of this thread scans its own stack, as it was asked to.
///
/// # Safety
/// It is at a poll on this thread.
pub(crate) unsafe fn scan_own_stack(runtime: &Runtime, goroutine: &Arc<Goroutine>) {
    let cycle = runtime.scanning.load(Ordering::Acquire);
    if cycle == 0 {
        return;
    }
    let begun = Instant::now();
    let mut state = goroutine.scan_lock();
    // SAFETY: at a poll on this thread, with the lock.
    if let Err(error) = unsafe { runtime.first_scan(goroutine, &mut state, cycle, true) } {
        runtime.host.fatal(&error);
    }
    drop(state);
    runtime.note_running(goroutine);
    runtime.note_hold(begun);
    let (lock, changed) = &runtime.scanned;
    drop(lock.lock());
    changed.notify_all();
}

/// The world stands still. Dropping the value lets it go on.
#[derive(Debug)]
pub struct WorldStopped {
    runtime: Arc<Runtime>,
    straggler: Option<Straggler>,
}

impl WorldStopped {
    /// The goroutine that was the last to stand still; `None` if nobody had to be waited for.
    pub fn straggler(&self) -> Option<Straggler> {
        self.straggler
    }

    /// Visits again, of each goroutine that has run since its scan, the frames up to and including the owner of its lowest
    /// unhit barrier. Their roots go to the collector.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn rescan(&mut self) -> Result<Visited, ScanError> {
        let runtime = &*self.runtime;
        let dirty = std::mem::take(&mut *runtime.dirty.lock());
        let mut total = Visited::default();
        for goroutine in dirty {
            let visited = self.visit(&goroutine, Extent::Rescan)?;
            total.frames += visited.frames;
            total.skipped += visited.skipped;
        }
        runtime.counters.rescanned.fetch_add(total.frames, Ordering::Relaxed);
        runtime.counters.skipped.fetch_add(total.skipped, Ordering::Relaxed);
        Ok(total)
    }

    /// Visits every frame of every goroutine, changing nothing: for verification.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn visit_all(&mut self) -> Result<Visited, ScanError> {
        let mut total = Visited::default();
        for goroutine in self.runtime.goroutines() {
            total.frames += self.visit(&goroutine, Extent::Verify)?.frames;
        }
        Ok(total)
    }

    fn visit(&self, goroutine: &Goroutine, extent: Extent) -> Result<Visited, ScanError> {
        let mut state = goroutine.scan_lock();
        if goroutine.status() == Status::Dead {
            return Ok(Visited::default());
        }
        if extent == Extent::Verify {
            // SAFETY: the world is stopped, so the goroutine stands still, and the lock is ours.
            unsafe { scan::check_barriers(goroutine, &state) };
        }
        // SAFETY: as above.
        unsafe { scan::scan(&self.runtime, goroutine, &mut state, extent) }
    }

    /// The cycle's stacks are done: goroutines that run from now on need not be looked at again.
    pub fn end_scanning(&mut self) {
        // Release, and the world is stopped: no goroutine reads it meanwhile.
        self.runtime.scanning.store(0, Ordering::Release);
        self.runtime.dirty.lock().clear();
    }
}

impl Drop for WorldStopped {
    fn drop(&mut self) {
        self.runtime.world.start();
    }
}
