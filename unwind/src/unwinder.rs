//! Traces: walks over any stack, through native and managed frames, by the rule for each pc.
//!
//! A [`RuleCache`] keeps the packed rule of each pc that its traces have seen. Rules that are not
//! packed are evaluated each time. A pc without a rule is an error. A trace never guesses by frame
//! pointers; it runs along them only where the rules say that they are right.

use std::ops::ControlFlow;

use gimli::Register;

use crate::arch::{
    CALLEE_SAVED, FRAME_POINTER, FRAME_RECORD, FRAME_RECORD_RETURN, PC, STACK_POINTER, WORD, opaque,
};
use crate::code::Snapshot;
use crate::code::published::Published;
use crate::image::ImageError;
use crate::memory::Memory;
use crate::registers::RegisterSet;
use crate::return_addresses::ReturnAddresses;
use crate::rule::{ExpressionError, PackedRule, Recovered, UnwindRule};
use crate::rule_cache::RuleCache;
use crate::saved_registers::SavedLately;
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
    /// Where each callee-saved register of this frame was saved; 0 if `registers` still holds it.
    /// All 0 without `REGISTERS`.
    saved: [usize; CALLEE_SAVED.len()],
    registers: RegisterSet,
    /// `registers` are those of this very frame.
    fresh: bool,
    jumps: u32,
    ended: bool,
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
            at: registers.pc(),
            exact: true,
            sp: registers.sp(),
            fp: registers.get(FRAME_POINTER).unwrap_or(0),
            fp_unknown: registers.get(FRAME_POINTER).is_none(),
            saved: [0; CALLEE_SAVED.len()],
            registers,
            fresh: true,
            jumps: 0,
            ended: false,
        }
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
            // All simple steps in a row of pcs that the cache holds.
            let (mut at, mut sp, mut fp, mut exact) = (self.at, self.sp, self.fp, self.exact);
            let (cache, lately) = self.cache.parts();
            let mut saved =
                SavedLately { slots: &mut self.saved, frames: lately, count: 0, any: 0 };
            let mut moved = false;
            let mut last = (at, cache.find(at));
            let outcome = loop {
                // Rare, and so tested by the step that is not simple.
                if self.fp_unknown {
                    break None;
                }
                // A recursion stands at the same pc again.
                if last.0 != at {
                    last = (at, cache.find(at));
                }
                let Some(rule) = last.1 else { break None };
                if rule.is_frame_record() {
                    // Nothing in here depends on the rule itself. Behind the predicted branch the
                    // walk runs from frame pointer to frame pointer, and the processor finds the
                    // rules meanwhile.
                    let here = at;
                    let mut walked = false;
                    let stopped = loop {
                        let record = opaque(fp);
                        let cfa = record.wrapping_add(FRAME_RECORD);
                        if cfa <= sp {
                            break Some(None);
                        }
                        let Some([saved_fp, found]) = self.memory.read_two(record) else {
                            break Some(None);
                        };
                        let return_address = self.returns.original(found).unwrap_or(found);
                        let frame = CallFrame {
                            pc: here.wrapping_add(usize::from(!exact)),
                            exact,
                            sp,
                            cfa,
                            return_slot: Some(record.wrapping_add(FRAME_RECORD_RETURN)),
                            return_address,
                            signal_frame: false,
                        };
                        (at, sp, fp, exact) =
                            (return_address.wrapping_sub(1), cfa, saved_fp, false);
                        walked = true;
                        if let ControlFlow::Break(result) = each(frame) {
                            break Some(Some(result));
                        }
                        if at != here {
                            break None;
                        }
                    };
                    // Of several frames at one pc, the oldest holds the last saved values.
                    if REGISTERS && walked {
                        saved.note(rule, sp);
                    }
                    moved |= walked;
                    if let Some(outcome) = stopped {
                        break outcome;
                    }
                    // Outside of the loop above, which would take three times as long with it.
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
                if REGISTERS {
                    saved.note(rule, cfa);
                }
                let return_address = self.returns.original(found).unwrap_or(found);
                let frame = CallFrame {
                    pc: at.wrapping_add(usize::from(!exact)),
                    exact,
                    sp,
                    cfa,
                    return_slot: Some(return_slot),
                    return_address,
                    signal_frame: false,
                };
                (at, sp, exact, moved) = (return_address.wrapping_sub(1), cfa, false, true);
                if let ControlFlow::Break(result) = each(frame) {
                    break Some(result);
                }
            };
            saved.settle();
            (self.at, self.sp, self.fp, self.exact) = (at, sp, fp, exact);
            self.fresh &= !moved;
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

    /// One step of any kind.
    #[cold]
    #[inline(never)]
    fn step(&mut self) -> Result<Option<CallFrame>, WalkError> {
        if self.ended {
            return Ok(None);
        }
        let rule = match self.cache.find(self.at).filter(|rule| *rule != PackedRule::NONE) {
            Some(rule) => rule,
            None => {
                let rule = self.unwind_rule()?;
                match rule.as_packed() {
                    Some(rule) => {
                        self.cache.insert(self.at, rule);
                        rule
                    }
                    None => return self.step_slowly(rule),
                }
            }
        };
        let sp = self.sp;
        let (from_fp, offset) = match rule.simple() {
            Some(simple) => simple,
            None => return self.step_slowly(UnwindRule::packed(rule)),
        };
        if from_fp && self.fp_unknown {
            let source = ExpressionError::UnknownRegister(FRAME_POINTER);
            return Err(WalkError::Expression { pc: self.pc(), source });
        }
        let cfa = if from_fp { self.fp } else { sp }.wrapping_add(offset);
        // The frame pointer may lead to another stack, which may lie anywhere.
        if cfa == sp || cfa < sp && !from_fp || !cfa.is_multiple_of(WORD) {
            return Err(self.bad_cfa(cfa));
        }
        if cfa < sp {
            self.jump()?;
        }
        let return_slot = rule.return_slot(cfa);
        let found = self.read(return_slot)?;
        let (fp, fp_unknown) = match rule.saved_fp() {
            0 => (self.fp, self.fp_unknown),
            below => (self.read(cfa.wrapping_sub(below))?, false),
        };
        if REGISTERS {
            for (i, saved) in self.saved.iter_mut().enumerate().filter(|(i, _)| rule.saved(*i) != 0)
            {
                *saved = cfa.wrapping_sub(rule.saved(i));
            }
        }
        let return_address = self.returns.original(found).unwrap_or(found);
        let frame = CallFrame {
            pc: self.pc(),
            exact: self.exact,
            sp,
            cfa,
            return_slot: Some(return_slot),
            return_address,
            signal_frame: false,
        };
        (self.at, self.sp, self.fp) = (return_address.wrapping_sub(1), cfa, fp);
        self.fp_unknown = fp_unknown;
        (self.exact, self.fresh) = (false, false);
        Ok(Some(frame))
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
            _ => match self.register_slot(register) {
                Some(slot) => self.memory.read(slot),
                None if self.fresh || REGISTERS && CALLEE_SAVED.contains(&register) => {
                    self.registers.get(register)
                }
                None => None,
            },
        }
    }

    /// Where in memory a callee-saved register of that frame was saved. `None` if it is still in
    /// the register, or if its place is not known.
    pub fn register_slot(&self, register: Register) -> Option<usize> {
        let i = CALLEE_SAVED.into_iter().position(|saved| saved == register)?;
        (self.saved[i] != 0).then_some(self.saved[i])
    }

    #[inline]
    fn read(&self, address: usize) -> Result<usize, WalkError> {
        self.memory.read(address).ok_or(WalkError::Unreadable { pc: self.pc(), address })
    }

    #[cold]
    fn bad_cfa(&self, cfa: usize) -> WalkError {
        let (pc, sp) = (self.pc(), self.sp);
        if cfa <= sp {
            WalkError::NotIncreasing { pc, sp, cfa }
        } else {
            WalkError::Misaligned { pc, cfa }
        }
    }

    /// Counts a step down, to another stack.
    fn jump(&mut self) -> Result<(), WalkError> {
        self.jumps += 1;
        if self.jumps > JUMPS { Err(WalkError::Circles { pc: self.pc() }) } else { Ok(()) }
    }

    fn unwind_rule(&self) -> Result<UnwindRule<'t>, WalkError> {
        let pc = self.pc();
        let failed = |error| match error {
            ImageError::Cfi { source, .. } => WalkError::Cfi { pc, source },
            _ => WalkError::Image { pc },
        };
        self.code.rule(self.at, self.cache.grows()).map_err(failed)?.ok_or(WalkError::NoRule { pc })
    }

    /// A step by a rule that is not one of the two simple forms.
    #[cold]
    fn step_slowly(&mut self, rule: UnwindRule<'t>) -> Result<Option<CallFrame>, WalkError> {
        let (pc, sp, exact) = (self.pc(), self.sp, self.exact);
        let failed = |source| WalkError::Expression { pc, source };
        let registers = self.all_registers();
        let recovery = rule.evaluate(&registers, &self.memory).map_err(failed)?;
        let cfa = recovery.cfa;
        let signal_frame = recovery.signal_frame;
        if recovery.oldest {
            self.ended = true;
            let frame = CallFrame {
                pc,
                exact,
                sp,
                cfa: sp,
                return_slot: None,
                return_address: 0,
                signal_frame,
            };
            return Ok(Some(frame));
        }
        let caller = recovery.caller(&registers, &self.memory).map_err(failed)?;
        let (Some(found), Some(caller_sp)) = (caller.get(PC), caller.get(STACK_POINTER)) else {
            return Err(WalkError::ReturnAddress { pc });
        };
        if caller_sp <= sp {
            // The caller is on another stack. A signal handler with a stack of its own, or a call
            // between stacks, does that.
            self.jump()?;
        }
        let return_address = self.returns.original(found).unwrap_or(found);
        let return_slot = recovery.return_slot();
        if REGISTERS {
            for (i, register) in CALLEE_SAVED.into_iter().enumerate() {
                match recovery.register(register) {
                    Recovered::At(address) => self.saved[i] = address,
                    Recovered::Same => {}
                    Recovered::Unknown | Recovered::Value(_) => self.saved[i] = 0,
                }
            }
        }
        self.registers = caller;
        self.sp = caller_sp;
        self.fp = caller.get(FRAME_POINTER).unwrap_or(0);
        self.fp_unknown = caller.get(FRAME_POINTER).is_none();
        self.exact = signal_frame;
        self.at = if signal_frame { return_address } else { return_address.wrapping_sub(1) };
        self.fresh = true;
        Ok(Some(CallFrame { pc, exact, sp, cfa, return_slot, return_address, signal_frame }))
    }

    fn all_registers(&self) -> RegisterSet {
        let mut registers = if self.fresh { self.registers } else { RegisterSet::unknown() };
        for register in CALLEE_SAVED.into_iter().chain([PC, STACK_POINTER]) {
            if let Some(value) = self.register(register) {
                registers.set(register, value);
            }
        }
        registers
    }
}
