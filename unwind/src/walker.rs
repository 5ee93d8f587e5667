//! The walker: from one frame to its caller, within given bounds.

use std::ops::Range;

use crate::arch::{
    CALL_PUSHES, FRAME_POINTER, FRAME_RECORD, FRAME_RECORD_RETURN, STACK_POINTER, WORD, opaque,
    without_signature,
};
use crate::code::Snapshot;
use crate::code::native::NativeStep;
use crate::code::published::{Found, Published};
use crate::frame::{Frame, FrameKind};
use crate::memory::Memory;
use crate::registers::{RegisterSet, Registers};
use crate::return_addresses::ReturnAddresses;
use crate::rule::{PackedRule, Recovered, Shape, UnwindRule};
use crate::safepoint_table::{SafepointRef, SafepointTable};
use crate::walk_error::WalkError;

/// The stack is prefetched this many bytes ahead of the CFA, so that the words are there when the
/// walk is.
const PREFETCH: usize = 1536;

/// A walk over one stack, from younger frames to older ones. It allocates nothing and takes no
/// lock.
///
/// Every walk ends: each step goes up the stack by at least a word, within the bounds.
#[derive(Clone, Debug)]
pub struct Walker<'s, M, R> {
    code: &'s Published,
    memory: M,
    returns: R,
    start: usize,
    end: usize,
    registers: Registers,
    fp_slot: Option<usize>,
    /// The safepoint at `registers.pc`.
    safepoint: Option<SafepointRef<'s>>,
    /// The table that the last safepoint was found in.
    table: Option<&'s SafepointTable>,
    ended: bool,
}

/// How one frame is stepped over.
#[derive(Clone, Copy)]
struct Step {
    kind: FrameKind,
    cfa: usize,
    /// The frame pointer was saved so far below the CFA; 0: not saved.
    saved_fp: usize,
    cfa_from_fp: bool,
    /// Where the return address stands; the CFA where there is none.
    return_slot: usize,
    oldest: bool,
}

impl<'s, M: Memory, R: ReturnAddresses> Walker<'s, M, R> {
    /// A walk over the stack at `bounds`, through `memory`, from the frame with these registers.
    /// Addresses outside of `bounds` are not read.
    pub fn new(
        snapshot: &'s Snapshot<'_>,
        memory: M,
        returns: R,
        registers: Registers,
        bounds: Range<usize>,
    ) -> Walker<'s, M, R> {
        let registers = Registers { pc: without_signature(registers.pc), ..registers };
        let mut walker = Walker {
            code: snapshot.published(),
            memory,
            returns,
            start: bounds.start,
            end: bounds.end & !(WORD - 1),
            registers,
            fp_slot: None,
            safepoint: None,
            table: None,
            ended: false,
        };
        walker.safepoint = walker.look_up(registers.pc);
        walker
    }

    /// The registers of the frame at which the walk stands. A later walk over the same stack may
    /// begin with them.
    #[inline]
    pub fn registers(&self) -> Registers {
        self.registers
    }

    /// The next frame; `None` behind the oldest one.
    ///
    /// # Errors
    ///
    /// The frame's caller cannot be found. The walk stands still then.
    // Always: out of line it would move whole frames through memory.
    #[inline(always)]
    pub fn next_frame(&mut self) -> Result<Option<Frame<'s>>, WalkError> {
        let Registers { sp, fp, .. } = self.registers;
        let step = match self.safepoint {
            Some(safepoint) => {
                let mut cfa = sp.wrapping_add(safepoint.cfa_offset());
                let kind = FrameKind::Managed;
                if safepoint.has_frame_record() && opaque(fp).wrapping_add(FRAME_RECORD) == cfa {
                    // The same CFA, behind a predicted branch. The walk runs from frame pointer to
                    // frame pointer and does not wait for the look-ups.
                    let cfa = opaque(fp).wrapping_add(FRAME_RECORD);
                    let return_slot = safepoint.return_slot(cfa);
                    let saved_fp = FRAME_RECORD;
                    Step { kind, cfa, saved_fp, cfa_from_fp: true, return_slot, oldest: false }
                } else {
                    let saved_fp = safepoint.saved_fp();
                    let cfa_from_fp = safepoint.cfa_from_fp();
                    if let Some(offset) = cfa_from_fp {
                        // The CFI is right. Where the map does not fit it, the map is another
                        // frame's, and its roots would be too.
                        let by_cfi = fp.wrapping_add(offset);
                        let fits = by_cfi == cfa || by_cfi > cfa && !safepoint.cfa_is_fixed();
                        if !fits {
                            return Err(self.disagreement(cfa, by_cfi));
                        }
                        cfa = by_cfi;
                    }
                    let (cfa_from_fp, return_slot) =
                        (cfa_from_fp.is_some(), safepoint.return_slot(cfa));
                    Step { kind, cfa, saved_fp, cfa_from_fp, return_slot, oldest: false }
                }
            }
            None if self.ended => return Ok(None),
            None => self.step_by_rule()?,
        };
        self.take(step).map(Some)
    }

    /// Passes frames at safepoints that keep a frame record, as most managed frames do, and calls
    /// `each` with the safepoint, stack pointer and frame pointer of each. It is the fastest way
    /// through a deep stack: the state of the walk stays in machine registers, and no [`Frame`] is
    /// made. It ends before a frame of another kind, or one that is not as its CFI says: the next
    /// is [`next_frame`](Walker::next_frame)'s. It also ends before a frame whose return slot lies
    /// at `end` or above, and behind `most` frames. Returns how many it has passed.
    #[inline]
    pub fn pass_safepoints(
        &mut self,
        end: usize,
        most: u64,
        mut each: impl FnMut(SafepointRef<'s>, usize, usize),
    ) -> u64 {
        let Registers { mut pc, mut sp, mut fp } = self.registers;
        let (mut safepoint, mut fp_slot) = (self.safepoint, self.fp_slot);
        let mut left = most;
        // The CFA lies behind the return slot, and within the bounds. From the lower half of 64
        // bits no size of a frame leads around the address space. In 32 bits stacks lie at its top.
        const BEHIND: usize = FRAME_RECORD - FRAME_RECORD_RETURN;
        const MAY_WRAP: bool = usize::BITS == 32;
        let last = self.end.saturating_sub(BEHIND).min(end.saturating_sub(1));
        let last = if MAY_WRAP { last } else { last.min(isize::MAX as usize) };
        if self.is_bad(sp) || end == 0 || sp > last {
            return 0;
        }
        while let Some(here) = safepoint
            && here.has_frame_record()
        {
            let size = here.cfa_offset();
            // As in `next_frame`: the walk runs from frame pointer to frame pointer.
            let mut record = opaque(fp);
            let at = pc;
            // The frames of a recursion, which return to where they stand.
            let goes_on = loop {
                let cfa = record.wrapping_add(FRAME_RECORD);
                let return_slot = record.wrapping_add(FRAME_RECORD_RETURN);
                let is_elsewhere = cfa != sp.wrapping_add(size) || MAY_WRAP && cfa <= sp;
                if is_elsewhere || return_slot > last || left == 0 {
                    break false;
                }
                self.memory.prefetch(cfa.wrapping_add(PREFETCH));
                let Some([saved_fp, found]) = self.memory.read_two(record) else { break false };
                let found = without_signature(found);
                let return_address = self.returns.original(found).map_or(found, without_signature);
                each(here, sp, fp);
                left -= 1;
                (pc, sp, fp, fp_slot) = (return_address, cfa, saved_fp, Some(record));
                if return_address != at {
                    break true;
                }
                // Its size is known. Behind the predicted branch the next frame does not wait for
                // the word just read.
                let next = record.wrapping_add(size);
                record = if saved_fp == opaque(next) { opaque(next) } else { saved_fp };
            };
            if !goes_on {
                break;
            }
            safepoint = self.look_up(pc);
        }
        self.registers = Registers { pc, sp, fp };
        (self.safepoint, self.fp_slot) = (safepoint, fp_slot);
        most - left
    }

    #[cold]
    fn disagreement(&self, by_table: usize, by_cfi: usize) -> WalkError {
        let Registers { pc, sp, .. } = self.registers;
        if self.is_bad(sp) {
            WalkError::StackPointer { pc, sp }
        } else {
            WalkError::Disagreement { pc, by_table, by_cfi }
        }
    }

    /// Whether no frame can have this stack pointer.
    fn is_bad(&self, sp: usize) -> bool {
        sp < self.start || sp > self.end || !sp.is_multiple_of(WORD)
    }

    /// The step of a frame that does not stand at a safepoint.
    #[cold]
    fn step_by_rule(&self) -> Result<Step, WalkError> {
        let Registers { pc, sp, fp } = self.registers;
        let at = pc.wrapping_sub(1);
        let found = self.code.find(at).ok_or(WalkError::NoRule { pc })?;
        let (kind, rule) = match found {
            Found::Region(region) => (FrameKind::Managed, region.rule(at)),
            Found::Native(native) => match native.step(at) {
                NativeStep::By(rule) => (native.kind, rule),
                NativeStep::Anchor(offset) => return self.step_to_anchor(native.kind, offset),
                NativeStep::End => return Ok(self.oldest(native.kind)),
            },
        };
        if rule.is_oldest() {
            return Ok(self.oldest(kind));
        }
        let (cfa, cfa_from_fp) = match rule.shape() {
            Shape::StackPointer(offset) => (sp.wrapping_add(offset), false),
            Shape::FramePointer(offset) => (fp.wrapping_add(offset), true),
            _ => {
                return self
                    .step_slowly(kind, found.resolve(rule).ok_or(WalkError::NoRule { pc })?);
            }
        };
        let (saved_fp, return_slot) = (rule.saved_fp(), rule.return_slot(cfa));
        Ok(Step { kind, cfa, saved_fp, cfa_from_fp, return_slot, oldest: false })
    }

    /// The step of a frame that keeps where its caller stands: see
    /// [`NativeRule::Anchor`](crate::NativeRule::Anchor).
    fn step_to_anchor(&self, kind: FrameKind, offset: u32) -> Result<Step, WalkError> {
        let Registers { pc, sp, .. } = self.registers;
        if self.is_bad(sp) {
            return Err(WalkError::StackPointer { pc, sp });
        }
        let return_slot = sp.wrapping_add(offset as usize);
        let word = |i: usize| return_slot.wrapping_add(i * WORD);
        let cfa = self.read(word(1))?;
        if cfa == 0 {
            let previous = self.read(word(3))?;
            return if previous == 0 {
                Ok(self.oldest(kind))
            } else {
                Err(WalkError::NoAnchor { pc })
            };
        }
        let saved_fp = cfa.wrapping_sub(word(2));
        Ok(Step { kind, cfa, saved_fp, cfa_from_fp: false, return_slot, oldest: false })
    }

    /// The step of a frame whose rule reads memory.
    fn step_slowly(&self, kind: FrameKind, rule: UnwindRule<'_>) -> Result<Step, WalkError> {
        let Registers { pc, sp, fp } = self.registers;
        let bounded = Bounded(self);
        let registers = RegisterSet::new(pc, sp, fp);
        let recovery = rule
            .evaluate(&registers, &bounded)
            .map_err(|source| WalkError::Expression { pc, source })?;
        if recovery.oldest {
            return Ok(self.oldest(kind));
        }
        let cfa = recovery.cfa;
        let return_slot = recovery.return_slot().ok_or(WalkError::ReturnAddress { pc })?;
        if CALL_PUSHES != 0 && return_slot != cfa.wrapping_sub(CALL_PUSHES)
            || recovery.register(STACK_POINTER) != Recovered::Value(cfa)
            || recovery.signal_frame
        {
            return Err(WalkError::ReturnAddress { pc });
        }
        let saved_fp = match recovery.register(FRAME_POINTER) {
            Recovered::Same => 0,
            Recovered::At(address) => cfa.wrapping_sub(address),
            Recovered::Unknown | Recovered::Value(_) => {
                return Err(WalkError::ReturnAddress { pc });
            }
        };
        let cfa_from_fp = rule
            .as_packed()
            .map(PackedRule::shape)
            .is_some_and(|shape| matches!(shape, Shape::Realigned(_)));
        Ok(Step { kind, cfa, saved_fp, cfa_from_fp, return_slot, oldest: false })
    }

    /// The step of the oldest frame, which returns nowhere. Its rule's CFA means nothing: it may
    /// lie beyond the stack.
    fn oldest(&self, kind: FrameKind) -> Step {
        let cfa = self.end;
        Step { kind, cfa, saved_fp: 0, cfa_from_fp: false, return_slot: cfa, oldest: true }
    }

    /// Reads what the step names, moves on to the caller, and looks the caller up.
    // Always: as `next_frame`.
    #[inline(always)]
    fn take(&mut self, step: Step) -> Result<Frame<'s>, WalkError> {
        let Registers { pc, sp, fp } = self.registers;
        let Step { kind, cfa, saved_fp, cfa_from_fp, return_slot, oldest } = step;
        if cfa <= sp
            || cfa > self.end
            || sp < self.start
            || !(cfa | sp).is_multiple_of(WORD)
            || oldest
        {
            self.check_odd(step)?;
        }
        let mut frame = Frame {
            kind,
            pc,
            sp,
            cfa,
            fp,
            fp_slot: self.fp_slot,
            cfa_from_fp,
            return_slot: None,
            return_address: 0,
            hijacked: false,
            safepoint: self.safepoint,
            caller: None,
        };
        if oldest {
            self.registers.sp = cfa;
            self.safepoint = None;
            self.ended = true;
            return Ok(frame);
        }
        let found = without_signature(self.read(return_slot)?);
        if saved_fp != 0 {
            let slot = cfa.wrapping_sub(saved_fp);
            self.registers.fp = self.read(slot)?;
            self.fp_slot = Some(slot);
        }
        let original = self.returns.original(found).map(without_signature);
        let return_address = original.unwrap_or(found);
        // A recursion returns to the pc at which it stands. The test is predicted well, so that the
        // next frame does not wait for a probe with the word just read.
        if !(return_address == pc && frame.safepoint.is_some()) {
            self.safepoint = self.look_up(return_address);
        }
        self.registers.pc = return_address;
        self.registers.sp = cfa;
        frame.return_slot = Some(return_slot);
        frame.return_address = return_address;
        frame.hijacked = original.is_some();
        frame.caller = self.safepoint;
        Ok(frame)
    }

    /// Says what is wrong with a step that is not an ordinary one, if anything is.
    #[cold]
    fn check_odd(&self, step: Step) -> Result<(), WalkError> {
        let Registers { pc, sp, .. } = self.registers;
        let Step { cfa, oldest, .. } = step;
        if self.is_bad(sp) {
            Err(WalkError::StackPointer { pc, sp })
        } else if cfa < sp || cfa == sp && !oldest {
            Err(WalkError::NotIncreasing { pc, sp, cfa })
        } else if cfa > self.end {
            Err(WalkError::OutOfBounds { pc, cfa })
        } else if !cfa.is_multiple_of(WORD) {
            Err(WalkError::Misaligned { pc, cfa })
        } else {
            Ok(())
        }
    }

    #[inline]
    fn read(&self, address: usize) -> Result<usize, WalkError> {
        let unreadable = WalkError::Unreadable { pc: self.registers.pc, address };
        if address < self.start || address >= self.end {
            return Err(unreadable);
        }
        self.memory.read(address).ok_or(unreadable)
    }

    // Always: as `next_frame`.
    #[inline(always)]
    fn look_up(&mut self, return_address: usize) -> Option<SafepointRef<'s>> {
        match self.table {
            Some(table) if table.covers(return_address) => table.get(return_address),
            _ => self.look_up_elsewhere(return_address),
        }
    }

    #[cold]
    fn look_up_elsewhere(&mut self, return_address: usize) -> Option<SafepointRef<'s>> {
        let table = self.code.region(return_address.wrapping_sub(1))?.safepoints();
        self.table = Some(table);
        table.get(return_address)
    }
}

/// The memory of a walk, within its bounds.
struct Bounded<'w, 's, M, R>(&'w Walker<'s, M, R>);

impl<M: Memory, R: ReturnAddresses> Memory for Bounded<'_, '_, M, R> {
    fn read(&self, address: usize) -> Option<usize> {
        self.0.read(address).ok()
    }
}
