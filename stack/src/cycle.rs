//! What a collector asks of all stacks in a cycle: handshakes, the first scans, the stopped world
//! and its rescans.

use crate::frontier::StackScan;
use crate::goroutine::Goroutine;
use crate::leaving::FrameAt;
use crate::moving;
use crate::observe::Activity;
use crate::request::{Asking, Request};
use crate::runtime::{BarrierMode, MachineEntry, Runtime};
use crate::scan::{self, Extent, ScanError, Visited};
use crate::status::Status;
use crate::sync::spin;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// How many goroutines one that runs again looks at, at most, to scan them for the collector, and
/// how many it scans where the list is longer than so many: then it gets shorter.
const LOOKED_AT: usize = 4;
const SCANNED_OF_MANY: usize = 2;
const MANY: usize = 8;

/// A goroutine that was asked to scan itself may park instead of polling: how often that is looked
/// for.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

impl Runtime {
    fn entries(&self) -> Vec<Arc<MachineEntry>> {
        self.machines.lock().clone()
    }

    /// Returns when every machine has passed a safepoint, or has not run managed code, at some
    /// moment since the call began. What the caller wrote before is visible to all managed code
    /// that runs afterwards. Tells who answered last.
    pub fn handshake(&self) -> Option<Straggler> {
        let mut waiting = Waiting::new();
        self.world.handshake(|| self.entries(), |entry, asking| waiting.ask(entry, asking));
        waiting.end()
    }

    /// From now on, until [`WorldStopped::end_scanning`], goroutines that run count as changed
    /// since their scan. `cycle` is not 0 and larger than the last one's. The write barrier is on,
    /// everywhere. Stacks are scanned whole.
    pub fn begin_scanning(&self, cycle: u64) {
        self.begin_scanning_since(0, cycle);
    }

    /// As [`Runtime::begin_scanning`], of a cycle that goes on from the last one: *short scans*. Of
    /// a stack only the frames are visited that may have run since, those up to and including the
    /// owner of the lowest barrier that has not been hit; of a goroutine that has not run none, but
    /// the words that it was handed (argument, resume value, transfer) always. A goroutine that the
    /// last cycle did not scan is scanned whole. False, with nothing begun, if the last cycle did
    /// not end in [`WorldStopped::end_scanning_and_watch`].
    ///
    /// For a collector with generations, whose minor collections keep what the last collection has
    /// marked: that is *old*. It promises, besides contracts C1 to C3:
    ///
    /// - What the last collection has marked, or what was handed out marked while it ran, stays
    ///   where it is and is not freed in this one. (A collection that moves or frees old objects
    ///   begins by [`Runtime::begin_scanning`].)
    /// - Between the two, a store of a reference to an object that is not old, through a pointer
    ///   that may lead into an older frame of the own stack (contract C3), went through a write
    ///   barrier that makes it a root of this collection; or
    ///   [`Caller::note_stack_write`](crate::Caller::note_stack_write) came first.
    ///
    /// What it gains: the time for a stack depends on how far it has been returned from since, not
    /// on its depth.
    ///
    /// After Cheng, Harper and Lee, "Generational stack collection and profile-driven pretenuring"
    /// (PLDI 1998).
    #[must_use]
    pub fn begin_scanning_young(&self, cycle: u64) -> bool {
        let last = self.watched.load(Ordering::Relaxed);
        if last != 0 {
            self.begin_scanning_since(last, cycle);
        }
        last != 0
    }

    fn begin_scanning_since(&self, last: u64, cycle: u64) {
        // Relaxed: read by scans of this cycle, after `scanning`.
        self.kept.store(last, Ordering::Relaxed);
        // Release, both: the write barrier's flag and the handshake before it.
        self.watched.store(cycle, Ordering::Release);
        self.scanning.store(cycle, Ordering::Release);
        // Pairs with the fence in spawn: a goroutine that the scan finds dead finds the scan begun
        // when it comes to life.
        fence(Ordering::SeqCst);
    }

    /// Begins to scan the stack of every goroutine: of those that stand still from this thread, the
    /// others do it themselves. Returns when all have begun: nobody runs a frame whose roots have
    /// not gone to the collector. What lies beyond is for [`Runtime::scan_frozen`]. Between
    /// goroutines it calls `between`, which may trace what has been found.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn scan_goroutines(self: &Arc<Self>, mut between: impl FnMut()) -> Result<(), ScanError> {
        self.begin_round();
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
                if !self.try_scan(&goroutine, Asking::InPassing)? {
                    waiting.push(goroutine);
                }
                between();
            }
        }
        self.wait_for_scans(waiting)
    }

    /// Begins to scan again, of every goroutine that has run since its scan, what has changed: so
    /// that little is left for the stopped world. As [`Runtime::scan_goroutines`], which comes
    /// first, with all that it leaves to [`Runtime::scan_frozen`]. Tells how many goroutines it
    /// were: where they are many, others have run meanwhile, and it is worth while to call it
    /// again. From the first call on they stay few, however fast goroutines take turns: whoever
    /// runs one scans others that have.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn rescan_goroutines(self: &Arc<Self>) -> Result<usize, ScanError> {
        if self.config.barriers == BarrierMode::Off {
            // Nothing would bound it, nor what is left for the stopped world.
            return Ok(0);
        }
        self.begin_round();
        self.rescanning.store(true, Ordering::Relaxed);
        let dirty = std::mem::take(&mut *self.dirty.lock());
        let count = dirty.len();
        self.wait_for_scans(dirty.into())?;
        Ok(count)
    }

    /// `changed` runs again and has been added to the list: scans one or two of the others there
    /// that can be scanned at once. Waits for nobody, as a stopped world would wait for us.
    #[cold]
    pub(crate) fn rescan_another(&self, changed: &Arc<Goroutine>) {
        let mut scanned = 0;
        for _ in 0..LOOKED_AT {
            let mut dirty = self.dirty.lock();
            let enough = if dirty.len() > MANY { SCANNED_OF_MANY } else { 1 };
            if scanned >= enough {
                return;
            }
            let Some(goroutine) = dirty.pop_front() else { return };
            drop(dirty);
            if !Arc::ptr_eq(&goroutine, changed) {
                match goroutine.hold_now() {
                    Some(Ok(mut held)) => {
                        let _span = self.observed.span(Activity::Scan, goroutine.id());
                        let done = self.scan_again(&goroutine, &mut held.state);
                        scanned += 1;
                        if done.unwrap_or_else(|error| self.host.fatal(&error)) {
                            continue;
                        }
                    }
                    Some(Err(Status::Dead)) => continue,
                    _ => {}
                }
            }
            self.dirty.lock().push_back(goroutine);
        }
    }

    /// Scans a goroutine that is held and has run since its scan, or a part of what that has left.
    /// Whether it is done.
    fn scan_again(
        &self,
        goroutine: &Arc<Goroutine>,
        scan: &mut StackScan,
    ) -> Result<bool, ScanError> {
        let complete = scan.is_complete();
        if complete {
            // SAFETY: the goroutine is held.
            unsafe { self.begin_scan(goroutine, scan, false)? };
        } else {
            let cycle = self.scanning.load(Ordering::Acquire);
            let visited =
                scan::visit_frozen(self, goroutine, scan, cycle, self.config.chunk(false))?;
            self.counters.scanned_running.fetch_add(visited, Ordering::Relaxed);
        }
        Ok(complete)
    }

    fn begin_round(&self) {
        assert!(self.is_scanning(), "begin_scanning comes first");
        // SeqCst: before any goroutine is asked to scan itself.
        self.round.fetch_add(1, Ordering::SeqCst);
    }

    fn wait_for_scans(&self, mut waiting: Vec<Arc<Goroutine>>) -> Result<(), ScanError> {
        let (lock, changed) = &self.scanned;
        let mut failed = None;
        let mut look = |asking| {
            waiting.retain(|goroutine| match self.try_scan(goroutine, asking) {
                Ok(begun) => !begun,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            });
            waiting.is_empty()
        };
        if !spin(|| look(Asking::InPassing)) {
            while !look(Asking::Surely) {
                drop(changed.wait_for(lock.lock(), LOOK_AGAIN));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whether the running round of scans has come to the goroutine.
    fn has_scanned(&self, goroutine: &Goroutine) -> bool {
        // Acquire: the scan itself, done by its own thread.
        goroutine.scanned_in.load(Ordering::Acquire) == self.round.load(Ordering::Relaxed)
    }

    /// Wakes who may visit frozen frames, if there are any.
    fn tell_of_frozen(&self) {
        if self.has_frozen()
            && let Some(collector) = self.collector.get()
        {
            collector.stack_waits();
        }
    }

    /// Begins the goroutine's scan if it stands still, asks it if it runs. Whether it has begun.
    fn try_scan(&self, goroutine: &Arc<Goroutine>, asking: Asking) -> Result<bool, ScanError> {
        if self.has_scanned(goroutine) {
            // By itself: it has left it to us to say that there may be something to go on with.
            self.tell_of_frozen();
            return Ok(true);
        }
        if goroutine.status() == Status::Dead {
            return Ok(true);
        }
        match goroutine.hold() {
            Ok(held) if self.has_scanned(goroutine) => {
                // By itself, while we waited for the lock.
                drop(held);
                self.tell_of_frozen();
                Ok(true)
            }
            Ok(mut held) => {
                if self.keep_scan(goroutine, &mut held.state) {
                    return Ok(true);
                }
                let _span = self.observed.span(Activity::Scan, goroutine.id());
                // In either case a thread stands on it, which a signal may have walk it at any
                // time.
                let may_move = held.status != Status::Foreign && !goroutine.in_callback();
                // SAFETY: the goroutine is held.
                unsafe { self.begin_scan(goroutine, &mut held.state, may_move)? };
                let complete = held.state.is_complete();
                drop(held);
                if !complete {
                    self.tell_of_frozen();
                }
                Ok(true)
            }
            Err(Status::Dead) => Ok(true),
            Err(_) => {
                goroutine.ask(Request::SCAN, asking);
                Ok(false)
            }
        }
    }

    /// Whether the goroutine, which is held, has not run since a scan that this cycle goes on from:
    /// then all that is to be done for it is done.
    fn keep_scan(&self, goroutine: &Goroutine, scan: &mut StackScan) -> bool {
        if goroutine.ran.has_run()
            || !scan::keep(self, goroutine, scan, self.scanning.load(Ordering::Acquire))
        {
            return false;
        }
        // Release: as at the end of `begin_scan`.
        goroutine.scanned_in.store(self.round.load(Ordering::Relaxed), Ordering::Release);
        true
    }

    /// Begins a scan: shrinks where that is allowed, visits the youngest frames, blocks the way to
    /// the others.
    ///
    /// # Safety
    /// As for [`scan::begin`]; `may_move` only if as for [`moving::move_to`].
    unsafe fn begin_scan(
        &self,
        goroutine: &Arc<Goroutine>,
        scan: &mut StackScan,
        may_move: bool,
    ) -> Result<(), ScanError> {
        let used = goroutine.bounds().end - goroutine.header.sched.sp.load(Ordering::Relaxed);
        self.counters.deepest_bytes.fetch_max(used as u64, Ordering::Relaxed);
        if may_move {
            // SAFETY: by our contract.
            unsafe { moving::shrink(self, goroutine)? };
        }
        let cycle = self.scanning.load(Ordering::Acquire);
        // SAFETY: by our contract.
        let visited = unsafe { scan::begin(self, goroutine, scan, cycle)? };
        self.counters.scanned_stopped.fetch_add(visited, Ordering::Relaxed);
        if !scan.is_complete() {
            self.unscanned.lock().push_back(goroutine.clone());
        }
        self.deepest_frames.fetch_max(visited, Ordering::Relaxed);
        // If it runs from now on, it has changed. Its own thread says so at once.
        goroutine.ran.forget();
        // Release: who sees the number sees the roots delivered.
        goroutine.scanned_in.store(self.round.load(Ordering::Relaxed), Ordering::Release);
        Ok(())
    }

    /// Whether there is something for [`Runtime::scan_frozen`] to do.
    pub fn has_frozen(&self) -> bool {
        !self.unscanned.lock().is_empty()
    }

    /// Visits a chunk of frames that their goroutine cannot get at before; its roots go to the
    /// collector. From any thread, also several at once. False if there was nothing to do.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn scan_frozen(&self) -> Result<bool, ScanError> {
        let Some(goroutine) = self.unscanned.lock().pop_front() else { return Ok(false) };
        let _span = self.observed.span(Activity::Scan, goroutine.id());
        let cycle = self.scanning.load(Ordering::Acquire);
        let mut scan = goroutine.scan_lock();
        let visited =
            scan::visit_frozen(self, &goroutine, &mut scan, cycle, self.config.chunk(true))?;
        self.counters.scanned_running.fetch_add(visited, Ordering::Relaxed);
        let more = !scan.is_complete();
        drop(scan);
        if more {
            self.unscanned.lock().push_back(goroutine);
        }
        Ok(true)
    }

    /// Calls `visit` for each frame of a goroutine that stands still, youngest first, until it
    /// breaks, as [`Caller::frames`](crate::Caller::frames) does. False, without a visit, if it
    /// runs or has ended.
    ///
    /// # Errors
    /// [`ScanError`]: the walk ends early.
    pub fn frames(
        &self,
        goroutine: &Goroutine,
        visit: impl FnMut(FrameAt) -> ControlFlow<()>,
    ) -> Result<bool, ScanError> {
        match goroutine.hold() {
            Ok(_held) => {
                // SAFETY: the goroutine is held.
                unsafe { scan::frames(self, goroutine, visit)? };
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    /// The goroutine becomes Running; waits while it is held.
    #[inline]
    pub(crate) fn start_running(&self, goroutine: &Goroutine, from: Status) {
        if !goroutine.try_start(from) {
            let begun = Instant::now();
            goroutine.start_running(from);
            self.note_hold(begun);
        }
    }

    /// A goroutine that would have run stood still since then.
    fn note_hold(&self, begun: Instant) {
        let nanos = begun.elapsed().as_nanos() as u64;
        self.holds.record(nanos);
        self.longest_hold.fetch_max(nanos, Ordering::Relaxed);
    }

    /// Stops the world: returns when no machine runs managed code, and none will until the value is
    /// dropped.
    pub fn stop_world(self: &Arc<Self>) -> WorldStopped {
        let mut waiting = Waiting::new();
        self.world.stop(|| self.entries(), |entry, asking| waiting.ask(entry, asking));
        WorldStopped { runtime: self.clone(), straggler: waiting.end() }
    }

    /// The longest time that a goroutine which would have run was held, and the most frames of one
    /// stack, since the last call: nanoseconds and frames.
    pub fn take_cycle_maxima(&self) -> (u64, u64) {
        (
            self.longest_hold.swap(0, Ordering::Relaxed),
            self.deepest_frames.swap(0, Ordering::Relaxed),
        )
    }
}

/// The goroutine that was the last to answer, or to stand still, of those that had to be waited
/// for.
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

    /// Called again and again for each machine that is waited for: the last one asked is the last
    /// to answer.
    fn ask(&mut self, entry: &Arc<MachineEntry>, asking: Asking) {
        entry.ask(Request::SAFEPOINT, asking);
        if let Some(goroutine) = entry.current() {
            self.straggler = Some(Straggler { goroutine: goroutine.id(), nanos: 0 });
        }
    }

    fn end(self) -> Option<Straggler> {
        let nanos = self.begun.elapsed().as_nanos() as u64;
        self.straggler.map(|straggler| Straggler { nanos, ..straggler })
    }
}

/// The goroutine of this thread begins to scan its own stack, as it was asked to.
///
/// # Safety
/// It is at a poll on this thread.
pub(crate) unsafe fn scan_own_stack(runtime: &Runtime, goroutine: &Arc<Goroutine>) {
    if !runtime.is_scanning() {
        return;
    }
    let _span = runtime.observed.span(Activity::Scan, goroutine.id());
    let begun = Instant::now();
    let mut scan = goroutine.scan_lock();
    if !runtime.has_scanned(goroutine) {
        // SAFETY: at a poll on this thread, with the lock.
        if let Err(error) = unsafe { runtime.begin_scan(goroutine, &mut scan, true) } {
            runtime.host.fatal(&error);
        }
    }
    drop(scan);
    runtime.note_hold(begun);
    let (lock, changed) = &runtime.scanned;
    drop(lock.lock());
    changed.notify_all();
    runtime.note_running(goroutine);
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

    /// Visits again, of each goroutine that has run since its scan, the frames up to and including
    /// the owner of its lowest unhit barrier. Their roots go to the collector. First what
    /// [`Runtime::scan_frozen`] has not come to is finished.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn rescan(&mut self) -> Result<Visited, ScanError> {
        self.finish_scans()?;
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

    /// Finishes what [`Runtime::scan_frozen`] has not come to, and visits nothing again: for a
    /// cycle whose write barrier shades what is overwritten. Their roots go to the collector.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn finish_scans(&mut self) -> Result<(), ScanError> {
        while self.runtime.scan_frozen()? {}
        Ok(())
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
        let scan = goroutine.scan_lock();
        if goroutine.status() == Status::Dead {
            return Ok(Visited::default());
        }
        if extent == Extent::Verify {
            // SAFETY: the world is stopped, so the goroutine stands still, and the lock is ours.
            unsafe { scan::check(goroutine, &scan) };
        }
        // SAFETY: as above.
        unsafe { scan::visit(&self.runtime, goroutine, &scan, extent) }
    }

    /// The cycle's stacks are done: goroutines that run from now on need not be looked at again.
    pub fn end_scanning(&mut self) {
        // Release, as in `end`.
        self.runtime.watched.store(0, Ordering::Release);
        self.end();
    }

    /// As [`WorldStopped::end_scanning`], and it is noted from now on which goroutines run, so that
    /// the next cycle may go on from this one: see [`Runtime::begin_scanning_young`].
    /// [`WorldStopped::rescan`] or [`WorldStopped::finish_scans`] came before.
    pub fn end_scanning_and_watch(&mut self) {
        assert!(!self.runtime.has_frozen(), "there are scans that are not complete");
        self.end();
    }

    fn end(&self) {
        // Release, and the world is stopped: no goroutine reads it meanwhile.
        self.runtime.scanning.store(0, Ordering::Release);
        self.runtime.rescanning.store(false, Ordering::Relaxed);
        self.runtime.dirty.lock().clear();
    }
}

impl Drop for WorldStopped {
    fn drop(&mut self) {
        self.runtime.world.start();
    }
}
