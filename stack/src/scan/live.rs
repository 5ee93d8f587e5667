//! The real stacks, as the protocol of
//! [`StackScan`](crate::protocol::StackScan) reads and writes them.

use super::roots::{Root, RootBuffer};
use crate::goroutine::{Goroutine, registers};
use crate::os;
use crate::protocol::{FramePointer, Frames, Position, Refusal, Slots, StackAccess, Table};
use crate::runtime::{ImageTable, Runtime, stubs};
use stackmark_asm::{self as asm, barrier, layout::EntryRecord};
use stackmark_unwind::{
    BarrierRefusal, Frame, FrameKind, LiveMemory, Registers, ReturnAddresses, Snapshot, WalkError,
    Walker,
};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A stack cannot be walked. No root may be skipped, so the host ends the process.
#[derive(Debug, thiserror::Error)]
#[error("the stack of goroutine {goroutine}: {error}")]
pub struct ScanError {
    /// The goroutine's number.
    pub goroutine: u64,
    /// Why the walk failed.
    #[source]
    pub error: WalkError,
}

/// The original return addresses behind the stubs of the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stubs;

impl ReturnAddresses for Stubs {
    #[inline]
    fn original(&self, found: usize) -> Option<usize> {
        asm::barrier::original(found)
    }
}

/// The slots of a stack in this process.
pub(crate) struct LiveSlots {
    bounds: Range<usize>,
}

impl LiveSlots {
    /// # Safety
    /// `bounds` are those of a stack that does not move while the value lives. The caller may write
    /// its return slots by invariant 3 of the barriers.
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

    /// The CFA of the frame that has a barrier in this slot: see [`refusal`].
    fn cfa(&self, depth: usize) -> usize {
        self.bounds.end - depth + size_of::<usize>()
    }
}

impl Slots for LiveSlots {
    fn read(&self, depth: usize, signed: bool) -> usize {
        // SAFETY: inside the stack, by the check in `at`; by the contract of `new`
        // no other thread writes it.
        let word = unsafe { self.at(depth).read() };
        if signed { asm::authenticate_return(word, self.cfa(depth)) } else { word }
    }
    fn write(&mut self, depth: usize, address: usize, signed: bool) {
        let word = if signed { asm::sign_return(address, self.cfa(depth)) } else { address };
        // Release: invariant 2 of the barriers. An unwinder on the goroutine's own thread that
        // reads a stub here reads the table's word next, at an address made of the stub's.
        // Processors keep the order of such loads.
        // SAFETY: as above.
        unsafe { AtomicUsize::from_ptr(self.at(depth)) }.store(word, Ordering::Release);
    }
    #[inline]
    fn describe(&self, table: &impl Table, depth: usize, stub: u32) {
        if let Some(record) = os::barrier_record(&self.bounds, stub as usize) {
            let (returns_to, sp) = (table.saved(stub), self.cfa(depth));
            // SAFETY: the barrier's owner has stub and record. The record lies above every stack
            // that it may be for, and stays.
            unsafe { barrier::describe_barrier(stub as usize, returns_to, sp, record) };
        }
    }
}

/// What placing barriers in the stack with these bounds touches.
///
/// # Safety
/// As for [`LiveSlots::new`].
pub(crate) unsafe fn access(bounds: Range<usize>) -> StackAccess<'static, LiveSlots, ImageTable> {
    // SAFETY: our contract is the same.
    StackAccess { slots: unsafe { LiveSlots::new(bounds) }, table: ImageTable, pool: stubs() }
}

/// The position of the youngest frame of a goroutine that stands still.
pub(crate) fn youngest(goroutine: &Goroutine, bounds: &Range<usize>) -> Position {
    position(bounds, registers(&goroutine.header.sched))
}

/// The place with these registers in the stack with these bounds.
pub(crate) fn position(bounds: &Range<usize>, registers: Registers) -> Position {
    let Registers { pc, sp, fp } = registers;
    let fp = if bounds.contains(&fp) {
        FramePointer::Depth(bounds.end - fp)
    } else {
        FramePointer::Word(fp)
    };
    Position { pc, depth: bounds.end - sp, fp }
}

/// A walk over the goroutine's stack from its youngest frame on.
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
/// While the walker lives, the stack does not move, and the frames from `from` on
/// change only by atomic stores.
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

/// The frames of a real stack.
pub(crate) struct LiveFrames<'s, 'r, R: Root> {
    runtime: &'s Runtime,
    goroutine: &'s Goroutine,
    walker: Walker<'s, LiveMemory, Stubs>,
    bounds: Range<usize>,
    roots: &'s RefCell<RootBuffer<'r, R>>,
    last: Option<Frame<'s>>,
}

impl<'s, 'r, R: Root> LiveFrames<'s, 'r, R> {
    /// The frames from `from` on; their roots go to `roots`.
    ///
    /// # Safety
    /// As for [`walker_from`].
    pub(crate) unsafe fn new(
        runtime: &'s Runtime,
        snapshot: &'s Snapshot<'s>,
        goroutine: &'s Goroutine,
        from: Position,
        roots: &'s RefCell<RootBuffer<'r, R>>,
    ) -> Self {
        let bounds = goroutine.bounds();
        // SAFETY: our contract is the same.
        let walker = unsafe { walker_from(snapshot, bounds.clone(), from) };
        LiveFrames { runtime, goroutine, walker, bounds, roots, last: None }
    }
}

impl<R: Root> LiveFrames<'_, '_, R> {
    /// Takes the words of the native frames between an entry to managed code and the anchor before
    /// it for roots. The entry's frame has the registers that its native caller keeps.
    #[cold]
    fn visit_native_frames(&mut self, entry: &Frame<'_>) {
        if !asm::enter_range().contains(&(entry.pc - 1)) {
            return;
        }
        let words = entry.sp + asm::ENTRY_RECORD_AT + size_of::<EntryRecord>()
            ..self.goroutine.native_frames_to(entry.cfa);
        let roots = &mut *self.roots.borrow_mut();
        for at in words.step_by(size_of::<usize>()) {
            // SAFETY: the walker has checked that both ends lie within the stack, one above the
            // other. The frames there do not run before the entry has returned.
            unsafe { R::ambiguous(at, &self.bounds, roots) };
        }
    }
}

impl<R: Root> Frames for LiveFrames<'_, '_, R> {
    type Error = WalkError;

    #[inline]
    fn visit(&mut self) -> Result<Option<usize>, WalkError> {
        let Some(frame) = next_frame(&mut self.walker)? else { return Ok(None) };
        if let Some(safepoint) = frame.safepoint {
            let roots = &mut *self.roots.borrow_mut();
            // SAFETY: the walker has checked that the frame lies within the stack; it stands still
            // or is frozen.
            unsafe { R::of_frame(safepoint, (frame.sp, frame.fp), &self.bounds, roots) };
        }
        if frame.kind == FrameKind::Callback && self.runtime.config.ambiguous_native_roots {
            self.visit_native_frames(&frame);
        }
        let depth = frame.return_slot.map_or(0, |slot| self.bounds.end - slot);
        self.last = Some(frame);
        Ok(Some(depth))
    }

    #[inline]
    fn visit_plain(&mut self, beyond: usize, most: u64) -> u64 {
        let LiveFrames { walker, bounds, .. } = self;
        let roots = &mut *self.roots.borrow_mut();
        walker.pass_safepoints(bounds.end.saturating_sub(beyond), most, |safepoint, sp, fp| {
            // SAFETY: as in `visit`.
            unsafe { R::of_frame(safepoint, (sp, fp), bounds, roots) };
        })
    }

    #[cold]
    fn pass(&mut self) -> Result<Option<usize>, WalkError> {
        let Some(frame) = next_frame(&mut self.walker)? else { return Ok(None) };
        let depth = frame.return_slot.map_or(0, |slot| self.bounds.end - slot);
        self.last = Some(frame);
        Ok(Some(depth))
    }

    #[inline]
    fn refusal(&self) -> Option<Refusal> {
        let mut refusal = self.last.as_ref().and_then(refusal);
        if refusal == Some(Refusal::Callback) && self.runtime.config.hijack_callbacks.is_on() {
            refusal = None;
        }
        if refusal.is_none() && !os::has_barrier_records(&self.bounds) {
            refusal = Some(Refusal::NoRecord);
        }
        if let Some(why) = refusal {
            self.runtime.statistics.counters.refuse(why);
        }
        refusal
    }

    fn is_signed(&self) -> bool {
        self.last.is_some_and(|frame| frame.return_is_signed())
    }

    fn may_rest(&self) -> bool {
        self.last.is_some_and(|frame| frame.kind == FrameKind::Callback)
    }

    fn position(&self) -> Position {
        position(&self.bounds, self.walker.registers())
    }
}

/// The next frame of a walk that looks for roots.
///
/// # Errors
/// Those of [`Walker::next_frame`], and [`WalkError::NoSafepoint`].
// Always: as `Walker::next_frame`.
#[inline(always)]
pub(super) fn next_frame<'s>(
    walker: &mut Walker<'s, LiveMemory, Stubs>,
) -> Result<Option<Frame<'s>>, WalkError> {
    let Some(frame) = walker.next_frame()? else { return Ok(None) };
    if frame.safepoint.is_none() && frame.kind == FrameKind::Managed {
        return Err(WalkError::NoSafepoint { pc: frame.pc });
    }
    Ok(Some(frame))
}

/// Why no barrier may lie in the frame's return slot.
fn refusal(frame: &Frame<'_>) -> Option<Refusal> {
    let why = match frame.barrier_slot() {
        // A stub finds its slot by the stack pointer of the frame returned to.
        Ok(slot) if slot + size_of::<usize>() == frame.cfa => return None,
        Ok(_) => return Some(Refusal::NoSafepoint),
        Err(why) => why,
    };
    Some(match why {
        BarrierRefusal::Kind(FrameKind::Callback) => Refusal::Callback,
        BarrierRefusal::Kind(FrameKind::SystemCall) => Refusal::SystemCall,
        BarrierRefusal::Kind(FrameKind::Entry) => Refusal::Entry,
        BarrierRefusal::Kind(FrameKind::Stub) | BarrierRefusal::Hijacked => Refusal::Stub,
        BarrierRefusal::CallerNotSafepoint
            if asm::entry_range().contains(&frame.return_address) =>
        {
            Refusal::Entry
        }
        _ => Refusal::NoSafepoint,
    })
}
