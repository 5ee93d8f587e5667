//! Scanning one stack: its roots, and the barriers that bound the next look at it.
//!
//! The stack is held, or its goroutine is at a poll, or the world is stopped; the `scan_lock` is ours.

use crate::barrier::{Barrier, BarrierList, ImageTable, Slots, Table};
use crate::goroutine::{Goroutine, ScanState};
use crate::leaving::FrameAt;
use crate::runtime::{BarrierMode, Runtime, stubs};
use crate::stats::Refusal;
use crate::status::Status;
use stackmark_unwind::{
    BarrierRefusal, Frame, FrameKind, Registers, ReturnAddresses, Snapshot, StackMemory, WalkError, Walker,
};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

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

/// How much of a stack is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it, for the first time in this cycle: old barriers go, new ones are placed.
    First,
    /// Up to and including the frame that owns the lowest unhit barrier.
    Rescan,
    /// All of it, changing nothing.
    Verify,
}

/// What a scan visited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visited {
    /// Frames visited.
    pub frames: u64,
    /// Frames that need not be visited.
    pub skipped: u64,
}

/// Mark barriers lie at this many bytes from the stack pointer, and at its doublings.
const FIRST_BARRIER: usize = 1024;

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
    /// `bounds` are those of a stack whose return slots the caller may write, by invariant 3 of the barriers, and which
    /// does not move while the value lives.
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
        // SAFETY: inside the stack, by the check in `at`; by the contract of `new` nobody else writes it.
        unsafe { self.at(depth).read() }
    }
    fn write(&mut self, depth: usize, word: usize) {
        // SAFETY: as above.
        unsafe { self.at(depth).write(word) }
    }
}

/// A walk over the goroutine's stack, from where it stands.
///
/// # Safety
/// The goroutine stands still, and its stack does not move, while the walker lives.
pub(crate) unsafe fn walker<'s>(snapshot: &'s Snapshot<'s>, goroutine: &Goroutine) -> Walker<'s, StackMemory, Stubs> {
    let sched = &goroutine.header.sched;
    let registers = Registers {
        pc: sched.pc.load(Ordering::Relaxed),
        sp: sched.sp.load(Ordering::Relaxed),
        fp: sched.fp.load(Ordering::Relaxed),
    };
    let bounds = goroutine.bounds();
    // SAFETY: the stack is mapped and, by our contract, stands still.
    let memory = unsafe { StackMemory::new(bounds.clone()) };
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

/// Where the next barrier goes.
struct Placing {
    mode: BarrierMode,
    /// Bytes from the stack pointer at which the next barrier is due.
    due: usize,
}

impl Placing {
    fn is_due(&self, above_sp: usize) -> bool {
        match self.mode {
            BarrierMode::Exponential => above_sp >= self.due,
            BarrierMode::EveryFrame => true,
            BarrierMode::Off => false,
        }
    }

    /// One barrier per slot, also where one huge frame spans several doublings: the ones passed are used up.
    fn placed(&mut self, above_sp: usize) {
        while self.due <= above_sp {
            self.due *= 2;
        }
    }
}

/// Visits the roots of a stack. They go to the runtime's collector.
///
/// # Errors
/// [`ScanError`]: the stack cannot be walked; roots may be missing.
///
/// # Safety
/// `state` is the goroutine's own, under its `scan_lock`; the goroutine is held, or at a poll on this thread, or the world is
/// stopped.
pub(crate) unsafe fn scan(
    runtime: &Runtime,
    goroutine: &Goroutine,
    state: &mut ScanState,
    extent: Extent,
) -> Result<Visited, ScanError> {
    let bounds = goroutine.bounds();
    let sp = goroutine.header.sched.sp.load(Ordering::Relaxed);
    let foreign = goroutine.status() == Status::Foreign;
    // SAFETY: by our contract nobody else writes slots.
    let mut slots = unsafe { LiveSlots::new(bounds.clone()) };
    let counters = &runtime.counters;
    if extent == Extent::First {
        let settled = state.barriers.remove_all(&mut slots, &ImageTable, stubs(), bounds.end - sp, foreign);
        counters.leapfrogged.fetch_add(settled.leapfrogged.into(), Ordering::Relaxed);
    }
    let last = match extent {
        Extent::Rescan => state.barriers.lowest(),
        Extent::First | Extent::Verify => None,
    };
    let mut roots = Roots::new(runtime);
    for word in [&goroutine.header.start_arg, &goroutine.header.resume_value] {
        roots.push(word.load(Ordering::Relaxed));
    }
    goroutine.with_transfer(|words| words.iter().for_each(|&word| roots.push(word)));

    let mut placing = Placing { mode: runtime.config.barriers, due: FIRST_BARRIER };
    let snapshot = runtime.code.snapshot();
    // SAFETY: the goroutine stands still by our contract.
    let mut walker = unsafe { walker(&snapshot, goroutine) };
    let fail = |error| ScanError { goroutine: goroutine.id(), error };
    let mut visited = Visited::default();
    while let Some(frame) = walker.next_frame().map_err(fail)? {
        visited.frames += 1;
        for slot in frame.slots() {
            // SAFETY: the walker has checked that the frame lies within the stack, and registration that the slots of
            // a safepoint lie within its frame.
            let word = unsafe { *(slot as *const usize) };
            // Pointers into the own stack are the mover's business.
            if !bounds.contains(&word) {
                roots.push(word);
            }
        }
        let Some(slot) = frame.return_slot else { continue };
        let depth = bounds.end - slot;
        if last.is_some_and(|b| b.depth == depth) {
            visited.skipped = state.frames.saturating_sub(last.map_or(0, |b| b.frames));
            break;
        }
        if extent == Extent::First && placing.is_due(slot - sp) {
            let frames = visited.frames;
            if place(runtime, &mut state.barriers, &mut slots, &frame, depth, frames) {
                placing.placed(slot - sp);
            }
        }
    }
    roots.flush();
    if extent == Extent::First {
        state.barriers.commit();
        state.frames = visited.frames;
    }
    runtime.deepest_frames.fetch_max(visited.frames + visited.skipped, Ordering::Relaxed);
    Ok(visited)
}

/// Places a barrier in the frame's return slot where that is legal; a refusal does not consume the threshold.
fn place(
    runtime: &Runtime,
    barriers: &mut BarrierList,
    slots: &mut LiveSlots,
    frame: &Frame<'_>,
    depth: usize,
    frames: u64,
) -> bool {
    if let Some(why) = refusal(frame) {
        runtime.counters.refuse(why);
        return false;
    }
    let Some(stub) = stubs().take() else { return false };
    barriers.place(slots, &ImageTable, Barrier { depth, stub, frames });
    runtime.counters.placed.fetch_add(1, Ordering::Relaxed);
    true
}

/// Why no barrier may lie in the frame's return slot.
fn refusal(frame: &Frame<'_>) -> Option<Refusal> {
    Some(match frame.barrier_slot().err()? {
        BarrierRefusal::Kind(FrameKind::Callback) => Refusal::Callback,
        BarrierRefusal::Kind(FrameKind::SystemCall) => Refusal::SystemCall,
        BarrierRefusal::Kind(FrameKind::Entry) => Refusal::Entry,
        BarrierRefusal::Kind(FrameKind::Stub) | BarrierRefusal::Hijacked => Refusal::Stub,
        BarrierRefusal::CallerNotSafepoint if stackmark_asm::entry_range().contains(&frame.return_address) => {
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
        let at = FrameAt { kind: frame.kind, pc: frame.pc, depth: hi - frame.sp, cfa_depth: hi - frame.cfa };
        if visit(at).is_break() {
            break;
        }
    }
    Ok(())
}

/// Checks every barrier of a stopped stack against the table: for debugging.
///
/// # Safety
/// As for [`scan`].
pub(crate) unsafe fn check_barriers(goroutine: &Goroutine, state: &ScanState) {
    // SAFETY: by our contract nobody writes slots.
    let slots = unsafe { LiveSlots::new(goroutine.bounds()) };
    let sp_depth = goroutine.bounds().end - goroutine.header.sched.sp.load(Ordering::Relaxed);
    for barrier in state.barriers.unhit().iter().filter(|b| b.depth <= sp_depth) {
        let found = slots.read(barrier.depth);
        assert_eq!(
            found,
            ImageTable.hijacked_word(barrier.stub),
            "the slot of {barrier:?} of goroutine {}",
            goroutine.id()
        );
    }
}
