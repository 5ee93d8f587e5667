//! Traces: walks over any stack, through native and managed frames, by the rule for each pc.
//!
//! A [`RuleCache`] keeps the packed rule of each pc that its traces have seen. Rules that are not
//! packed are evaluated each time. A pc without a rule is an error, unless the caller gives a hook
//! for such frames. A trace never guesses by frame pointers itself; it runs along them only where
//! the rules say that they are right. It ends behind a return address that is 0.

mod steps;

use std::ops::ControlFlow;

use gimli::Register;

use crate::arch::{
    CALLEE_SAVED, FRAME_POINTER, FRAME_RECORD, FRAME_RECORD_RETURN, PC, STACK_POINTER, WORD,
    opaque, without_signature,
};
use crate::code::Snapshot;
use crate::code::published::Published;
use crate::memory::Memory;
use crate::registers::RegisterSet;
use crate::return_addresses::ReturnAddresses;
use crate::rule::PackedRule;
use crate::rule_cache::RuleCache;
use crate::saved_registers::{Checkpoint, Saved, Slot};
use crate::undescribed::{Hook, UndescribedFrames};
use crate::walk_error::WalkError;

/// The stack is prefetched this many bytes ahead of the CFA: about eight frames.
const PREFETCH: usize = 768;
/// A trace may go from one stack to another this often.
const JUMPS: u32 = 256;

/// One frame of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallFrame {
    /// Its pc: a return address, unless `exact`.
    pub pc: usize,
    /// The pc is no return address: the frame is the innermost one, or was interrupted by a signal.
    pub exact: bool,
    /// Its stack pointer there.
    pub sp: usize,
    /// Its canonical frame address.
    pub cfa: usize,
    /// Where its return address stands. `None` for the oldest frame, and where the return address
    /// is not in memory.
    pub return_slot: Option<usize>,
    /// The address to which it returns: the original one if the slot is hijacked, 0 for the oldest
    /// frame.
    pub return_address: usize,
    /// It is the frame that the kernel made to deliver a signal.
    pub signal_frame: bool,
    /// No rule describes it. Its caller is the one that the
    /// [hook](Unwinder::undescribed) has found, and its CFA the caller's stack pointer.
    pub undescribed: bool,
}

impl CallFrame {
    /// The pc by which to look up a name or a line. For a return address it is the byte before,
    /// which belongs to the call.
    pub fn lookup_pc(&self) -> usize {
        self.pc.wrapping_sub(usize::from(!self.exact))
    }
}

/// A walk over any stack, from younger frames to older ones. With `REGISTERS`, it knows where each
/// callee-saved register of each frame is. Without, a rule that needs one of them is an error.
///
/// It allocates nothing and takes no lock if its cache is [fixed](RuleCache::fixed).
#[derive(Debug)]
pub struct Unwinder<'t, M, R, const REGISTERS: bool> {
    code: &'t Published,
    cache: &'t mut RuleCache,
    memory: M,
    returns: R,
    /// The pc, or the byte before a return address. The rule is looked up by it.
    at: usize,
    exact: bool,
    sp: usize,
    fp: usize,
    /// The frame pointer's value is not known, and `fp` is 0.
    fp_unknown: bool,
    /// Where each callee-saved register of this frame was saved, or how that is found. A register
    /// that was not is still in `registers`. Nothing without `REGISTERS`.
    saved: Saved,
    registers: RegisterSet,
    /// `registers` are those of this very frame.
    fresh: bool,
    jumps: u32,
    ended: bool,
    hook: Hook<'t>,
}

impl<'t, M: Memory, R: ReturnAddresses> Unwinder<'t, M, R, true> {
    /// A trace through `memory` from the frame with these registers. Their pc is exact.
    pub fn new(
        snapshot: &'t Snapshot<'_>,
        cache: &'t mut RuleCache,
        memory: M,
        returns: R,
        registers: RegisterSet,
    ) -> Unwinder<'t, M, R, true> {
        Unwinder::start(snapshot, cache, memory, returns, registers)
    }
}

impl<'t, M: Memory, R: ReturnAddresses> Unwinder<'t, M, R, false> {
    /// A trace that follows stack and frame pointer alone. It fails at the rare frames that need
    /// another register.
    pub fn lean(
        snapshot: &'t Snapshot<'_>,
        cache: &'t mut RuleCache,
        memory: M,
        returns: R,
        registers: RegisterSet,
    ) -> Unwinder<'t, M, R, false> {
        Unwinder::start(snapshot, cache, memory, returns, registers)
    }
}

impl<'t, M: Memory, R: ReturnAddresses, const REGISTERS: bool> Unwinder<'t, M, R, REGISTERS> {
    fn start(
        snapshot: &'t Snapshot<'_>,
        cache: &'t mut RuleCache,
        memory: M,
        returns: R,
        registers: RegisterSet,
    ) -> Unwinder<'t, M, R, REGISTERS> {
        let code = snapshot.published();
        cache.belongs_to(code.code, code.version, &code.changes);
        Unwinder {
            code,
            cache,
            memory,
            returns,
            at: without_signature(registers.pc()),
            exact: true,
            sp: registers.sp(),
            fp: registers.get(FRAME_POINTER).unwrap_or(0),
            fp_unknown: registers.get(FRAME_POINTER).is_none(),
            saved: Saved::default(),
            registers,
            fresh: true,
            jumps: 0,
            ended: false,
            hook: Hook(None),
        }
    }

    /// Asks `hook` for the callers of frames that no rule describes, as those of JIT code without
    /// CFI, instead of ending with [`WalkError::NoRule`]. [`FramePointers`](crate::FramePointers)
    /// is such a hook. What it finds is a guess; the frame [says](CallFrame::undescribed) so.
    pub fn undescribed(mut self, hook: &'t dyn UndescribedFrames) -> Self {
        self.hook = Hook(Some(hook));
        self
    }

    /// Says that the pc with which the trace begins is a return address, as that of a parked thread
    /// may be.
    pub fn at_return_address(mut self) -> Self {
        if self.exact {
            (self.exact, self.at) = (false, self.at.wrapping_sub(1));
        }
        self
    }

    /// The next frame; `None` behind the oldest one.
    ///
    /// # Errors
    ///
    /// The frame's caller cannot be found. The trace stands still then.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<CallFrame>, WalkError> {
        let mut next = None;
        self.for_each(|frame| {
            next = Some(frame);
            ControlFlow::Break(())
        })?;
        Ok(next)
    }

    /// Calls `each` for every frame until it breaks or the oldest frame has passed. Yields the
    /// value of the break. This is the fastest way through a deep stack: the state of the walk
    /// stays in machine registers.
    ///
    /// # Errors
    ///
    /// A frame's caller cannot be found. The trace stands still then.
    #[inline]
    pub fn for_each<B>(
        &mut self,
        mut each: impl FnMut(CallFrame) -> ControlFlow<B>,
    ) -> Result<Option<B>, WalkError> {
        loop {
            // All simple steps in a row of pcs that the cache holds. What the loop keeps is little,
            // so that it stays in machine registers.
            let (mut at, mut sp, mut fp) = (self.at, self.sp, self.fp);
            let (first, first_is_exact) = (sp, self.exact);
            let (cache, checkpoints) = self.cache.parts();
            let here = Checkpoint { at, sp, fp, any: 0 };
            let mut mark = if REGISTERS { self.saved.begin(checkpoints, here) } else { usize::MAX };
            let mut any = 0;
            let mut last = (at, cache.find(at).unwrap_or(PackedRule::NONE));
            let outcome = 'walk: loop {
                // Rare, and so tested by the step that is not simple.
                if self.fp_unknown {
                    break None;
                }
                // A recursion stands at the same pc again.
                if last.0 != at {
                    last = (at, cache.find(at).unwrap_or(PackedRule::NONE));
                }
                let rule = last.1;
                if REGISTERS {
                    if sp >= mark {
                        let here = Checkpoint { at, sp, fp, any: 0 };
                        mark = self.saved.leave(checkpoints, any, here);
                        any = 0;
                    }
                    // Also where the trace does not come past this frame.
                    any |= rule.saved_bits();
                }
                if rule.is_frame_record() {
                    // Nothing in here depends on the rule itself. Behind the predicted branch the
                    // walk runs from frame pointer to frame pointer, and the processor finds the
                    // rules meanwhile.
                    let here = at;
                    let mut record = opaque(fp);
                    macro_rules! pass_record {
                        () => {
                            let cfa = record.wrapping_add(FRAME_RECORD);
                            if cfa <= sp {
                                break 'walk None;
                            }
                            let Some([saved_fp, found]) = self.memory.read_two(record) else {
                                break 'walk None;
                            };
                            let found = without_signature(found);
                            let return_address =
                                self.returns.original(found).map_or(found, without_signature);
                            let exact = first_is_exact && sp == first;
                            let frame = CallFrame {
                                pc: here.wrapping_add(usize::from(!exact)),
                                exact,
                                sp,
                                cfa,
                                return_slot: Some(record.wrapping_add(FRAME_RECORD_RETURN)),
                                return_address,
                                signal_frame: false,
                                undescribed: false,
                            };
                            (at, sp, fp) = (return_address.wrapping_sub(1), cfa, saved_fp);
                            if let ControlFlow::Break(result) = each(frame) {
                                break 'walk Some(result);
                            }
                        };
                    }
                    pass_record!();
                    if at == here {
                        // The frames of a recursion are of one size, as a rule. Behind the
                        // predicted branch the next one is found before the word is read.
                        let mut size = fp.wrapping_sub(record);
                        while at == here && !(REGISTERS && sp >= mark) {
                            let next = record.wrapping_add(size);
                            if fp == opaque(next) {
                                record = opaque(next);
                            } else {
                                size = fp.wrapping_sub(record);
                                record = fp;
                            }
                            pass_record!();
                        }
                    }
                    // Once for a recursion, which would take three times as long with it.
                    self.memory.prefetch(sp.wrapping_add(PREFETCH));
                    continue;
                }
                let Some((from_fp, offset)) = rule.simple() else { break None };
                let cfa = if from_fp { fp } else { sp }.wrapping_add(offset);
                if cfa <= sp || !cfa.is_multiple_of(WORD) {
                    break None;
                }
                self.memory.prefetch(cfa.wrapping_add(PREFETCH));
                let return_slot = rule.return_slot(cfa);
                let Some(found) = self.memory.read(return_slot) else { break None };
                let saved_fp = rule.saved_fp();
                if saved_fp != 0 {
                    let Some(value) = self.memory.read(cfa.wrapping_sub(saved_fp)) else {
                        break None;
                    };
                    fp = value;
                }
                let found = without_signature(found);
                let return_address = self.returns.original(found).map_or(found, without_signature);
                let exact = first_is_exact && sp == first;
                let frame = CallFrame {
                    pc: at.wrapping_add(usize::from(!exact)),
                    exact,
                    sp,
                    cfa,
                    return_slot: Some(return_slot),
                    return_address,
                    signal_frame: false,
                    undescribed: false,
                };
                (at, sp) = (return_address.wrapping_sub(1), cfa);
                if let ControlFlow::Break(result) = each(frame) {
                    break Some(result);
                }
            };
            if REGISTERS {
                self.saved.note(checkpoints, any);
            }
            let stays = sp == first;
            (self.at, self.sp, self.fp) = (at, sp, fp);
            (self.exact, self.fresh) = (self.exact && stays, self.fresh && stays);
            if outcome.is_some() {
                return Ok(outcome);
            }
            // Then the step that was not simple.
            match self.step()? {
                None => return Ok(None),
                Some(frame) => {
                    if let ControlFlow::Break(result) = each(frame) {
                        return Ok(Some(result));
                    }
                }
            }
        }
    }

    /// The stack pointer of the frame at which the trace stands.
    #[inline]
    pub fn sp(&self) -> usize {
        self.sp
    }

    /// The pc of the frame at which the trace stands.
    #[inline]
    pub fn pc(&self) -> usize {
        self.at.wrapping_add(usize::from(!self.exact))
    }

    /// The value of a register in the frame at which the trace stands, if it is known. That frame
    /// is the caller of the one last yielded.
    pub fn register(&self, register: Register) -> Option<usize> {
        match register {
            PC => Some(self.pc()),
            STACK_POINTER => Some(self.sp),
            FRAME_POINTER => (!self.fp_unknown).then_some(self.fp),
            _ => {
                let i = CALLEE_SAVED.into_iter().position(|saved| saved == register);
                match i.map_or(Slot::Kept, |i| self.saved_slots().get(i)) {
                    Slot::At(at) => self.memory.read(at),
                    Slot::Kept if self.fresh || REGISTERS && i.is_some() => {
                        self.registers.get(register)
                    }
                    Slot::Kept | Slot::Lost => None,
                }
            }
        }
    }

    /// Where in memory a callee-saved register of that frame was saved. `None` if it is still in
    /// the register, or if its place is not known.
    ///
    /// The first question behind a row of frames walks a few of them again.
    pub fn register_slot(&self, register: Register) -> Option<usize> {
        let i = CALLEE_SAVED.into_iter().position(|saved| saved == register)?;
        match self.saved_slots().get(i) {
            Slot::At(at) => Some(at),
            Slot::Kept | Slot::Lost => None,
        }
    }
}
