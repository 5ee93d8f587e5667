//! The steps that are not simple ones over pcs that the cache holds.

use super::{CallFrame, JUMPS, Unwinder};
use crate::arch::{
    self, CALL_PUSHES, CALLEE_SAVED, FRAME_POINTER, FRAME_RECORD, PC, RETURN_ADDRESS,
    STACK_POINTER, WORD, opaque, without_signature,
};
use crate::image::ImageError;
use crate::memory::Memory;
use crate::registers::RegisterSet;
use crate::return_addresses::ReturnAddresses;
use crate::rule::{ExpressionError, PackedRule, Recovered, Recovery, UnwindRule};
use crate::saved_registers::{Checkpoint, Slots};
use crate::walk_error::WalkError;

impl<'t, M: Memory, R: ReturnAddresses, const REGISTERS: bool> Unwinder<'t, M, R, REGISTERS> {
    /// One step of any kind.
    #[cold]
    #[inline(never)]
    pub(super) fn step(&mut self) -> Result<Option<CallFrame>, WalkError> {
        if self.ended {
            return Ok(None);
        }
        let rule = match self.cache.find(self.at).filter(|rule| *rule != PackedRule::NONE) {
            Some(rule) => rule,
            None => {
                let pc = self.pc();
                if !self.exact && pc == 0 {
                    self.ended = true;
                    return Ok(None);
                }
                // There the rule depends on whether the pc is a return address.
                let ends_context = self.at.wrapping_add(1) == self.code.context_end;
                if !self.exact && ends_context {
                    return self.step_slowly(UnwindRule::packed(PackedRule::OLDEST));
                }
                let rule = match self.code.quick_rule(self.at) {
                    Some(rule) => rule,
                    None => match self.unwind_rule() {
                        Err(WalkError::NoRule { .. }) => {
                            return match self.signal_frame().or_else(|| self.linkage_stub()) {
                                Some(recovery) => self.step_by(recovery, self.all_registers()),
                                None => self.step_by_hook(),
                            };
                        }
                        rule => {
                            let rule = rule?;
                            match rule.as_packed() {
                                Some(rule) => rule,
                                None => return self.step_slowly(rule),
                            }
                        }
                    },
                };
                if !ends_context {
                    self.cache.insert(self.at, rule);
                }
                rule
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
        let found = without_signature(self.read(return_slot)?);
        let (fp, fp_unknown) = match rule.saved_fp() {
            0 => (self.fp, self.fp_unknown),
            below => (self.read(cfa.wrapping_sub(below))?, false),
        };
        if REGISTERS {
            self.save(rule, cfa);
        }
        let return_address = self.returns.original(found).map_or(found, without_signature);
        let frame = CallFrame {
            pc: self.pc(),
            exact: self.exact,
            sp,
            cfa,
            return_slot: Some(return_slot),
            return_address,
            signal_frame: false,
            undescribed: false,
        };
        (self.at, self.sp, self.fp) = (return_address.wrapping_sub(1), cfa, fp);
        self.fp_unknown = fp_unknown;
        (self.exact, self.fresh) = (false, false);
        Ok(Some(frame))
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

    /// A step from a frame that no rule describes.
    #[cold]
    fn step_by_hook(&mut self) -> Result<Option<CallFrame>, WalkError> {
        let (pc, sp, exact) = (self.pc(), self.sp, self.exact);
        let caller = self.hook.0.and_then(|hook| hook.caller(&self.all_registers(), &self.memory));
        let caller = caller.filter(|caller| caller.get(PC).is_some());
        let Some((mut caller, cfa)) = caller.and_then(|c| Some((c, c.get(STACK_POINTER)?))) else {
            return Err(WalkError::NoRule { pc });
        };
        if cfa <= sp {
            self.jump()?;
        }
        let found = without_signature(caller.pc());
        let return_address = self.returns.original(found).map_or(found, without_signature);
        caller.set(PC, return_address);
        self.saved.clear();
        self.take(caller, cfa, return_address.wrapping_sub(1), false);
        Ok(Some(CallFrame {
            pc,
            exact,
            sp,
            cfa,
            return_slot: None,
            return_address,
            signal_frame: false,
            undescribed: true,
        }))
    }

    /// Goes on to a caller of which all that is known is in `caller`.
    fn take(&mut self, caller: RegisterSet, sp: usize, at: usize, exact: bool) {
        self.registers = caller;
        self.fp = caller.get(FRAME_POINTER).unwrap_or(0);
        self.fp_unknown = caller.get(FRAME_POINTER).is_none();
        (self.sp, self.at, self.exact, self.fresh) = (sp, at, exact, true);
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
            ImageError::UnwindInfo { source, .. } => WalkError::UnwindInfo { pc, source },
            _ => WalkError::Image { pc },
        };
        self.code.rule(self.at, self.cache.grows()).map_err(failed)?.ok_or(WalkError::NoRule { pc })
    }

    /// A step by a rule that is not one of the two simple forms.
    #[cold]
    fn step_slowly(&mut self, rule: UnwindRule<'t>) -> Result<Option<CallFrame>, WalkError> {
        let failed = |source| WalkError::Expression { pc: self.pc(), source };
        let registers = self.all_registers();
        let recovery = rule.evaluate(&registers, &self.memory).map_err(failed)?;
        self.step_by(recovery, registers)
    }

    /// The kernel's frame for a signal, if this is one that no CFI describes.
    fn signal_frame(&self) -> Option<Recovery> {
        let code = self.memory.read_code(self.pc())?;
        if !arch::is_signal_return(code) {
            return None;
        }
        let words = arch::signal_frame(self.sp, |address| self.memory.read(address));
        Some(Recovery::of_signal(words, self.sp))
    }

    /// A stub of the procedure linkage table that no CFI describes, if the trace begins in one. It
    /// calls nothing, so no other frame stands there.
    fn linkage_stub(&self) -> Option<Recovery> {
        if !self.exact {
            return None;
        }
        let code = |address| self.memory.read_code(address);
        let (cfa_offset, return_slot) = arch::linkage_stub(self.pc(), code)?;
        let cfa = self.sp.wrapping_add(cfa_offset);
        Some(Recovery::of_stub(cfa, return_slot.map(|offset| cfa.wrapping_add_signed(offset))))
    }

    /// A step to the caller that a rule has found for these registers.
    fn step_by(
        &mut self,
        recovery: Recovery,
        registers: RegisterSet,
    ) -> Result<Option<CallFrame>, WalkError> {
        let (pc, sp, exact) = (self.pc(), self.sp, self.exact);
        let failed = |source| WalkError::Expression { pc, source };
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
                undescribed: false,
            };
            return Ok(Some(frame));
        }
        let caller = recovery.caller(&registers, &self.memory).map_err(failed)?;
        let (Some(found), Some(caller_sp)) = (caller.get(PC), caller.get(STACK_POINTER)) else {
            return Err(WalkError::ReturnAddress { pc });
        };
        // A function that keeps its return address in the register may need no frame.
        let is_leaf = CALL_PUSHES == 0 && exact && caller_sp == sp;
        if caller_sp <= sp && !is_leaf {
            // The caller is on another stack. A signal handler with a stack of its own, or a call
            // between stacks, does that.
            self.jump()?;
        }
        let return_address = self.returns.original(found).map_or(found, without_signature);
        let return_slot = recovery.return_slot();
        if REGISTERS {
            let mut slots = self.saved_slots();
            for (i, register) in CALLEE_SAVED.into_iter().enumerate() {
                match recovery.register(register) {
                    Recovered::At(address) => slots.set(i, address),
                    Recovered::Same => {}
                    Recovered::Unknown | Recovered::Value(_) => slots.set(i, 0),
                }
            }
            self.saved.slots().set(slots);
        }
        let at = if signal_frame { return_address } else { return_address.wrapping_sub(1) };
        self.take(caller, caller_sp, at, signal_frame);
        Ok(Some(CallFrame {
            pc,
            exact,
            sp,
            cfa,
            return_slot,
            return_address,
            signal_frame,
            undescribed: false,
        }))
    }

    /// Notes what the frame with this rule and CFA, where the trace stands, has saved.
    fn save(&mut self, rule: PackedRule, cfa: usize) {
        if cfa > self.sp {
            // The trace finds this frame again.
            let here = Checkpoint { at: self.at, sp: self.sp, fp: self.fp, any: 0 };
            let (_, checkpoints) = self.cache.parts();
            self.saved.begin(checkpoints, here);
            self.saved.note(checkpoints, rule.saved_bits());
        } else {
            let mut slots = self.saved_slots();
            slots.save(rule, cfa);
            self.saved.slots().set(slots);
        }
    }

    /// Where each callee-saved register of the frame was saved at which the trace stands.
    pub(super) fn saved_slots(&self) -> Slots {
        if REGISTERS {
            let again = |from: &_, end, slots: &mut _| self.walk_again(from, end, slots);
            self.saved.settle(self.cache.checkpoints(), self.sp, again);
        }
        self.saved.slots().get()
    }

    /// Walks from a checkpoint to the frame with the stack pointer `end`, by simple steps, and
    /// notes where registers are saved. False if it does not come there: memory has changed.
    fn walk_again(&self, from: &Checkpoint, end: usize, slots: &mut Slots) -> bool {
        let Checkpoint { mut at, mut sp, mut fp, .. } = *from;
        while sp < end {
            let rule = self.cache.find(at).or_else(|| {
                // A cache that is full forgets what has just been met.
                self.code.rule(at, self.cache.grows()).ok().flatten()?.as_packed()
            });
            let Some((rule, (from_fp, offset))) =
                rule.and_then(|rule| Some((rule, rule.simple()?)))
            else {
                return false;
            };
            // Behind the predicted branch the frame does not wait for its rule: see `for_each`.
            let cfa = if rule.is_frame_record() {
                opaque(fp).wrapping_add(FRAME_RECORD)
            } else {
                if from_fp { fp } else { sp }.wrapping_add(offset)
            };
            if cfa <= sp {
                return false;
            }
            slots.save(rule, cfa);
            let Some(found) = self.memory.read(rule.return_slot(cfa)) else { return false };
            let saved_fp = rule.saved_fp();
            if saved_fp != 0 {
                let Some(value) = self.memory.read(cfa.wrapping_sub(saved_fp)) else {
                    return false;
                };
                fp = value;
            }
            let found = without_signature(found);
            let return_address = self.returns.original(found).map_or(found, without_signature);
            (at, sp) = (return_address.wrapping_sub(1), cfa);
        }
        sp == end
    }

    fn all_registers(&self) -> RegisterSet {
        let mut registers = if self.fresh { self.registers } else { RegisterSet::unknown() };
        for register in CALLEE_SAVED.into_iter().chain([PC, STACK_POINTER]) {
            if let Some(value) = self.register(register) {
                registers.set(register, value);
            }
        }
        if CALL_PUSHES == 0 && !self.exact {
            // What the callee has returned by.
            registers.set(RETURN_ADDRESS, self.pc());
        }
        registers
    }
}
