//! Scanning one stack: how the protocol of [`frontier`](crate::frontier) reads and writes the real
//! one, and the visits that change nothing.
//!
//! The `scan_lock` is ours. Who begins a scan or protects holds the goroutine, or is it, at a poll
//! or on its way out of frames; who visits frozen frames needs no more than the lock.

use crate::barrier::{ImageTable, Slots};
use crate::frontier::{Budget, FramePointer, Frames, Means, Position, Spacing, StackScan, Tally};
use crate::goroutine::Goroutine;
use crate::leaving::FrameAt;
use crate::runtime::{BarrierMode, Config, Runtime, stubs};
use crate::stats::Refusal;
use crate::status::Status;
use stackmark_unwind::{
    BarrierRefusal, Frame, FrameKind, LiveMemory, Registers, ReturnAddresses, Snapshot, WalkError,
    Walker,
};
use std::cell::OnceCell;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A stack could not be walked. Roots are never skipped: the host aborts.
#[derive(Debug, thiserror::Error)]
#[error("the stack of goroutine {goroutine}: {error}")]
pub struct ScanError {
    /// The goroutine's number.
    pub goroutine: u64,
    /// What the walk found.
    #[source]
    pub error: WalkError,
}

/// How much of a stack is visited when nothing about it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Up to and including the frame that owns the lowest unhit barrier.
    Rescan,
    /// All of it.
    Verify,
}

/// What a scan visited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visited {
    /// Frames visited.
    pub frames: u64,
    /// Frames that need not be visited, but for those beyond a foreign call that nobody has come
    /// back to: they are not counted.
    pub skipped: u64,
}

/// Mark barriers lie at this many bytes from the stack pointer, and at its doublings.
const FIRST_BARRIER: usize = 1024;
/// What a goroutine visits itself before it goes on: some microseconds.
const OWN_CHUNK: Budget = Budget { frames: 96, bytes: 16 << 10 };
/// What a worker visits while it may keep the goroutine waiting.
const WORKER_CHUNK: Budget = Budget { frames: 384, bytes: 64 << 10 };
/// What either visits when that is asked for, so that much happens.
const FEW_FRAMES: Budget = Budget { frames: 6, bytes: 1 << 10 };

impl BarrierMode {
    fn spacing(self) -> Spacing {
        match self {
            BarrierMode::Incremental | BarrierMode::RescanLimit => Spacing::Doubling(FIRST_BARRIER),
            BarrierMode::EveryFrame => Spacing::EveryFrame,
            BarrierMode::Off => Spacing::Never,
        }
    }
}

impl Config {
    /// How much is visited at once, by the goroutine or a worker.
    pub(crate) fn chunk(&self, by_worker: bool) -> Budget {
        match self.barriers {
            BarrierMode::Off => Budget::WHOLE,
            _ if self.scan_few_frames => FEW_FRAMES,
            BarrierMode::Incremental if by_worker => WORKER_CHUNK,
            BarrierMode::Incremental => OWN_CHUNK,
            BarrierMode::EveryFrame | BarrierMode::RescanLimit => Budget::WHOLE,
        }
    }
}

/// The original return addresses behind the stubs of the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stubs;

impl ReturnAddresses for Stubs {
    #[inline]
    fn original(&self, found: usize) -> Option<usize> {
        stackmark_asm::barrier::original(found)
    }
}

/// The slots of a stack in this process.
pub(crate) struct LiveSlots {
    bounds: Range<usize>,
}

impl LiveSlots {
    /// # Safety
    /// `bounds` are those of a stack whose return slots the caller may write, by invariant 3 of the
    /// barriers, and which does not move while the value lives.
    pub(crate) unsafe fn new(bounds: Range<usize>) -> Self {
        LiveSlots { bounds }
    }

    fn at(&self, depth: usize) -> *mut usize {
        let address = self.bounds.end - depth;
        assert!(
            self.bounds.contains(&address) && address.is_multiple_of(align_of::<usize>()),
            "slot at depth {depth:#x}"
        );
        address as *mut usize
    }
}

impl Slots for LiveSlots {
    fn read(&self, depth: usize) -> usize {
        // SAFETY: inside the stack, by the check in `at`; by the contract of `new` nobody else
        // writes it.
        unsafe { self.at(depth).read() }
    }
    fn write(&mut self, depth: usize, word: usize) {
        // SAFETY: as above.
        unsafe { self.at(depth).write(word) }
    }
}

/// How barriers are placed in a stack of this process.
///
/// # Safety
/// As for [`LiveSlots::new`].
pub(crate) unsafe fn means(bounds: Range<usize>) -> Means<'static, LiveSlots, ImageTable> {
    // SAFETY: our contract is the same.
    Means { slots: unsafe { LiveSlots::new(bounds) }, table: ImageTable, pool: stubs() }
}

/// Where a goroutine that stands still has its youngest frame.
fn youngest(goroutine: &Goroutine, bounds: &Range<usize>) -> Position {
    let sched = &goroutine.header.sched;
    let fp = sched.fp.load(Ordering::Relaxed);
    position(
        bounds,
        Registers {
            pc: sched.pc.load(Ordering::Relaxed),
            sp: sched.sp.load(Ordering::Relaxed),
            fp,
        },
    )
}

fn position(bounds: &Range<usize>, registers: Registers) -> Position {
    let Registers { pc, sp, fp } = registers;
    let fp = if bounds.contains(&fp) {
        FramePointer::Depth(bounds.end - fp)
    } else {
        FramePointer::Word(fp)
    };
    Position { pc, depth: bounds.end - sp, fp }
}

/// A walk over the goroutine's stack, from where it stands.
///
/// # Safety
/// The goroutine stands still, and its stack does not move, while the walker lives.
pub(crate) unsafe fn walker<'s>(
    snapshot: &'s Snapshot<'s>,
    goroutine: &Goroutine,
) -> Walker<'s, LiveMemory, Stubs> {
    let bounds = goroutine.bounds();
    let from = youngest(goroutine, &bounds);
    // SAFETY: our contract is the same.
    unsafe { walker_from(snapshot, bounds, from) }
}

/// # Safety
/// The frames from `from` on stay as they are, but for words that are written atomically, and where
/// they are, while the walker lives.
unsafe fn walker_from<'s>(
    snapshot: &'s Snapshot<'s>,
    bounds: Range<usize>,
    from: Position,
) -> Walker<'s, LiveMemory, Stubs> {
    let fp = match from.fp {
        FramePointer::Depth(depth) => bounds.end - depth,
        FramePointer::Word(word) => word,
    };
    let registers = Registers { pc: from.pc, sp: bounds.end - from.depth, fp };
    // SAFETY: the stack is mapped and, by our contract, stands still.
    let memory = unsafe { LiveMemory::new(bounds.clone()) };
    Walker::new(snapshot, memory, Stubs, registers, bounds)
}

/// Where the roots of a scan go: gathered, so that the collector is called once for many.
struct Roots<'r> {
    runtime: &'r Runtime,
    words: [usize; 256],
    count: usize,
}

impl<'r> Roots<'r> {
    fn new(runtime: &'r Runtime) -> Self {
        Roots { runtime, words: [0; 256], count: 0 }
    }

    #[inline]
    fn push(&mut self, word: usize) {
        if word != 0 {
            self.words[self.count] = word;
            self.count += 1;
            if self.count == self.words.len() {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        self.runtime.roots(&self.words[..self.count]);
        self.count = 0;
    }
}

impl Drop for Roots<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The frames of a real stack.
struct LiveFrames<'s> {
    walker: Walker<'s, LiveMemory, Stubs>,
    bounds: Range<usize>,
    roots: Roots<'s>,
    last: Option<Frame<'s>>,
}

impl<'s> LiveFrames<'s> {
    /// # Safety
    /// As for [`walker_from`].
    unsafe fn new(
        runtime: &'s Runtime,
        snapshot: &'s Snapshot<'s>,
        bounds: Range<usize>,
        from: Position,
    ) -> Self {
        // SAFETY: our contract is the same.
        let walker = unsafe { walker_from(snapshot, bounds.clone(), from) };
        LiveFrames { walker, bounds, roots: Roots::new(runtime), last: None }
    }
}

impl Frames for LiveFrames<'_> {
    type Error = WalkError;

    #[inline]
    fn visit(&mut self) -> Result<Option<usize>, WalkError> {
        let Some(frame) = self.walker.next_frame()? else { return Ok(None) };
        for slot in frame.slots() {
            // The goroutine may be storing there, through a pointer, while a worker reads; the
            // write barrier takes care of what the load misses. Relaxed: the object that a
            // reference names was shaded before it was stored. SAFETY: the walker has checked that
            // the frame lies within the stack, and registration that the slots of a safepoint lie
            // within its frame.
            let word = unsafe { AtomicUsize::from_ptr(slot as *mut usize) }.load(Ordering::Relaxed);
            // Pointers into the own stack are the mover's business.
            if !self.bounds.contains(&word) {
                self.roots.push(word);
            }
        }
        let depth = frame.return_slot.map_or(0, |slot| self.bounds.end - slot);
        self.last = Some(frame);
        Ok(Some(depth))
    }

    fn refusal(&self) -> Option<Refusal> {
        let refusal = self.last.as_ref().and_then(refusal);
        if refusal == Some(Refusal::Callback) && self.roots.runtime.config.hijack_callbacks {
            return None;
        }
        if let Some(why) = refusal {
            self.roots.runtime.counters.refuse(why);
        }
        refusal
    }

    fn may_rest(&self) -> bool {
        self.last.is_some_and(|frame| frame.kind == FrameKind::Callback)
    }

    fn position(&self) -> Position {
        position(&self.bounds, self.walker.registers())
    }
}

/// Begins to scan a stack, or, if the last scan belongs to the same cycle, or to the one whose
/// barriers this cycle keeps, to scan again what has changed since; and does as much of it as the
/// goroutine may be kept waiting for. The roots go to the runtime's collector. Frames visited.
///
/// # Errors
/// [`ScanError`]: the stack cannot be walked; roots may be missing.
///
/// # Safety
/// `scan` is the goroutine's own, under its `scan_lock`; the goroutine is held, or at a poll on
/// this thread.
pub(crate) unsafe fn begin(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    cycle: u64,
) -> Result<u64, ScanError> {
    let bounds = goroutine.bounds();
    let at = youngest(goroutine, &bounds);
    let foreign = goroutine.status() == Status::Foreign;
    let spacing = runtime.config.barriers.spacing();
    // SAFETY: by our contract nobody else writes slots.
    let mut means = unsafe { means(bounds) };
    let short = is_kept(runtime, scan);
    let settled = if scan.epoch() == cycle || short {
        if !scan.is_complete() {
            finish(runtime, goroutine, scan)?;
        }
        let again = scan.begin_again(&mut means, cycle, at, spacing, foreign);
        runtime.counters.placed.fetch_add(again.placed, Ordering::Relaxed);
        if short {
            runtime.counters.kept.fetch_add(again.beyond, Ordering::Relaxed);
        }
        again.settled
    } else {
        scan.begin(&mut means, cycle, at, spacing, foreign)
    };
    runtime.counters.leapfrogged.fetch_add(settled.leapfrogged.into(), Ordering::Relaxed);
    runtime.counters.removed.fetch_add(settled.removed.into(), Ordering::Relaxed);
    visit_words(goroutine, &mut Roots::new(runtime));
    // SAFETY: as ours.
    unsafe { protect(runtime, goroutine, scan, at.depth) }
}

/// Whether the goroutine's last scan is one that the present cycle goes on from.
fn is_kept(runtime: &Runtime, scan: &StackScan) -> bool {
    scan.is_kept(runtime.kept.load(Ordering::Relaxed))
}

/// As [`begin`], for a goroutine that has not run since its last scan. False, with nothing done, if
/// the cycle does not go on from that one.
pub(crate) fn keep(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    cycle: u64,
) -> bool {
    let kept = is_kept(runtime, scan);
    if kept {
        runtime.counters.kept.fetch_add(scan.keep(cycle), Ordering::Relaxed);
        visit_words(goroutine, &mut Roots::new(runtime));
    }
    kept
}

/// The roots of a goroutine that lie in no frame.
fn visit_words(goroutine: &Goroutine, roots: &mut Roots<'_>) {
    for word in [&goroutine.header.start_arg, &goroutine.header.resume_value] {
        roots.push(word.load(Ordering::Relaxed));
    }
    goroutine.with_transfer(|words| words.iter().for_each(|&word| roots.push(word)));
}

/// The goroutine is about to run the frame whose stack pointer is at `depth`: sees to it that it
/// can. Frames visited.
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// As for [`begin`], or the goroutine is on its way out of frames, on this thread.
pub(crate) unsafe fn protect(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    depth: usize,
) -> Result<u64, ScanError> {
    let (bounds, snapshot) = (goroutine.bounds(), OnceCell::new());
    // SAFETY: by our contract nobody else writes slots.
    let mut means = unsafe { means(bounds.clone()) };
    let tally = scan.protect(&mut means, depth, runtime.config.chunk(false), |at| {
        let snapshot = snapshot.get_or_init(|| runtime.code.snapshot());
        // SAFETY: the frames stand still by our contract.
        unsafe { LiveFrames::new(runtime, snapshot, bounds.clone(), at) }
    });
    count(runtime, goroutine, tally)
}

fn count(
    runtime: &Runtime,
    goroutine: &Goroutine,
    tally: Result<Tally, WalkError>,
) -> Result<u64, ScanError> {
    let tally = tally.map_err(|error| ScanError { goroutine: goroutine.id(), error })?;
    runtime.counters.placed.fetch_add(tally.placed, Ordering::Relaxed);
    runtime.counters.removed.fetch_add(tally.removed, Ordering::Relaxed);
    runtime.counters.finished_whole.fetch_add(tally.whole, Ordering::Relaxed);
    Ok(tally.frames)
}

/// See [`StackScan::thaw`].
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// The goroutine has called out, on this thread, and the caller has its `scan_lock`.
pub(crate) unsafe fn thaw(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    word: usize,
) -> Result<u64, ScanError> {
    let (bounds, snapshot) = (goroutine.bounds(), OnceCell::new());
    let depth = youngest(goroutine, &bounds).depth;
    // SAFETY: by our contract nobody else writes slots.
    let mut means = unsafe { means(bounds.clone()) };
    let tally = scan.thaw(&mut means, depth, word, |at| {
        let snapshot = snapshot.get_or_init(|| runtime.code.snapshot());
        // SAFETY: the goroutine stands still by our contract.
        unsafe { LiveFrames::new(runtime, snapshot, bounds.clone(), at) }
    });
    count(runtime, goroutine, tally)
}

/// Visits a chunk of frozen frames. Frames visited; 0 if there is nothing left to do in this cycle.
///
/// # Errors
/// [`ScanError`].
pub(crate) fn visit_frozen(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    cycle: u64,
    budget: Budget,
) -> Result<u64, ScanError> {
    let snapshot = runtime.code.snapshot();
    let bounds = goroutine.bounds();
    // SAFETY: invariant 8: frozen frames, and the lock keeps them where they are.
    let frames = |at| unsafe { LiveFrames::new(runtime, &snapshot, bounds, at) };
    scan.visit_frozen(cycle, budget, frames)
        .map_err(|error| ScanError { goroutine: goroutine.id(), error })
}

/// As [`visit_frozen`], to the end.
///
/// # Errors
/// [`ScanError`].
pub(crate) fn finish(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
) -> Result<u64, ScanError> {
    visit_frozen(runtime, goroutine, scan, scan.epoch(), Budget::WHOLE)
}

/// Visits roots of a stack, changing nothing. They go to the runtime's collector.
///
/// # Errors
/// [`ScanError`]: the stack cannot be walked; roots may be missing.
///
/// # Safety
/// `scan` is the goroutine's own, under its `scan_lock`; the world is stopped.
pub(crate) unsafe fn visit(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &StackScan,
    extent: Extent,
) -> Result<Visited, ScanError> {
    let snapshot = runtime.code.snapshot();
    let bounds = goroutine.bounds();
    let from = youngest(goroutine, &bounds);
    // SAFETY: the goroutine stands still by our contract.
    let mut frames = unsafe { LiveFrames::new(runtime, &snapshot, bounds, from) };
    visit_words(goroutine, &mut frames.roots);
    let last = match extent {
        Extent::Rescan => scan.limit(),
        Extent::Verify => None,
    };
    let mut visited = Visited::default();
    let fail = |error| ScanError { goroutine: goroutine.id(), error };
    while let Some(slot) = frames.visit().map_err(fail)? {
        visited.frames += 1;
        if let Some((_, beyond)) = last.filter(|(depth, _)| *depth == slot) {
            visited.skipped = beyond;
            break;
        }
        if extent == Extent::Rescan && frames.may_rest() && scan.is_frozen(frames.position().depth)
        {
            break;
        }
    }
    runtime.deepest_frames.fetch_max(visited.frames + visited.skipped, Ordering::Relaxed);
    Ok(visited)
}

/// Why no barrier may lie in the frame's return slot.
fn refusal(frame: &Frame<'_>) -> Option<Refusal> {
    Some(match frame.barrier_slot().err()? {
        BarrierRefusal::Kind(FrameKind::Callback) => Refusal::Callback,
        BarrierRefusal::Kind(FrameKind::SystemCall) => Refusal::SystemCall,
        BarrierRefusal::Kind(FrameKind::Entry) => Refusal::Entry,
        BarrierRefusal::Kind(FrameKind::Stub) | BarrierRefusal::Hijacked => Refusal::Stub,
        BarrierRefusal::CallerNotSafepoint
            if stackmark_asm::entry_range().contains(&frame.return_address) =>
        {
            Refusal::Entry
        }
        _ => Refusal::NoSafepoint,
    })
}

/// Calls `visit` for each frame, youngest first, until it breaks.
///
/// # Errors
/// [`ScanError`]: the walk ends early.
///
/// # Safety
/// The goroutine stands still meanwhile.
pub(crate) unsafe fn frames(
    runtime: &Runtime,
    goroutine: &Goroutine,
    mut visit: impl FnMut(FrameAt) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let snapshot = runtime.code.snapshot();
    let hi = goroutine.bounds().end;
    // SAFETY: by our contract.
    let mut walk = unsafe { walker(&snapshot, goroutine) };
    let fail = |error| ScanError { goroutine: goroutine.id(), error };
    while let Some(frame) = walk.next_frame().map_err(fail)? {
        let at = FrameAt {
            kind: frame.kind,
            pc: frame.pc,
            depth: hi - frame.sp,
            cfa_depth: hi - frame.cfa,
        };
        if visit(at).is_break() {
            break;
        }
    }
    Ok(())
}

/// Checks every barrier of a stopped stack against the table, and that what nobody has visited is
/// blocked: for debugging.
///
/// # Panics
/// If something is wrong.
///
/// # Safety
/// As for [`begin`], or the world is stopped.
pub(crate) unsafe fn check(goroutine: &Goroutine, scan: &StackScan) {
    let bounds = goroutine.bounds();
    let depth = youngest(goroutine, &bounds).depth;
    // SAFETY: by our contract nobody writes slots.
    scan.check(&unsafe { LiveSlots::new(bounds) }, &ImageTable, depth);
}
