//! The walker: from one frame to its caller, within given bounds.

use std::ops::Range;

use gimli::X86_64;

use crate::cfi::CfiError;
use crate::code::{Found, FrameKind, NativeStep, Published, Snapshot};
use crate::expression::ExpressionError;
use crate::memory::{Memory, opaque};
use crate::registers::RegisterSet;
use crate::rule::{FRAME_POINTER, Rule, Shape, WORD};
use crate::safepoint::{SafepointRef, SafepointTable};
use crate::slow::{Recovered, UnwindRule};
use crate::stack_map::Roots;
use crate::stack_map::compact::{Slots, offset};

/// Where a frame stands: all that a walk needs of the machine's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The pc: a return address, or a label that the walked thread will go on at and that stands
    /// for one. Its rule is looked up at the byte before it.
    pub pc: usize,
    /// The stack pointer there.
    pub sp: usize,
    /// The frame pointer there.
    pub fp: usize,
}

/// What return slots hold when they have been hijacked.
pub trait ReturnAddresses {
    /// The return address that a barrier saved, if `found` is the address in one of its stubs;
    /// `None` if `found` is an ordinary return address.
    fn original(&self, found: usize) -> Option<usize>;
}

/// No slot is hijacked.
impl ReturnAddresses for () {
    #[inline]
    fn original(&self, _found: usize) -> Option<usize> {
        None
    }
}

impl<R: ReturnAddresses + ?Sized> ReturnAddresses for &R {
    #[inline]
    fn original(&self, found: usize) -> Option<usize> {
        (**self).original(found)
    }
}

/// Why a walk cannot go on. It stands still then: asking again gives the same error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// Nothing registered says how the caller of the frame at `pc` is found.
    #[error("no rule for pc {pc:#x}")]
    NoRule {
        /// The frame's pc.
        pc: usize,
    },
    /// The rule needs an expression, or a register that the walk does not know, and cannot be
    /// evaluated.
    #[error("the rule for pc {pc:#x} cannot be evaluated: {source}")]
    Expression {
        /// The frame's pc.
        pc: usize,
        /// What is wrong.
        source: ExpressionError,
    },
    /// The image that holds the pc has CFI that cannot be read.
    #[error("the CFI for pc {pc:#x} is malformed: {source}")]
    Cfi {
        /// The frame's pc.
        pc: usize,
        /// What is wrong.
        source: CfiError,
    },
    /// The image that holds the pc has CFI that cannot be used, or that has not been read yet.
    #[error("the image that holds pc {pc:#x} has no readable CFI")]
    Image {
        /// The frame's pc.
        pc: usize,
    },
    /// The rule does not say where the frame returns to, or not in the stack.
    #[error("the rule for pc {pc:#x} does not say where in the stack the return address is")]
    ReturnAddress {
        /// The frame's pc.
        pc: usize,
    },
    /// The walk has gone back and forth between stacks too often.
    #[error("the walk goes in circles at pc {pc:#x}")]
    Circles {
        /// The frame's pc.
        pc: usize,
    },
    /// The stack pointer is not aligned to a word or lies outside of the bounds.
    #[error("the stack pointer {sp:#x} at pc {pc:#x} is outside of the stack or unaligned")]
    StackPointer {
        /// The frame's pc.
        pc: usize,
        /// Its stack pointer.
        sp: usize,
    },
    /// The rule yields a CFA that is not above the stack pointer.
    #[error("the frame at pc {pc:#x} has its CFA {cfa:#x} at or below its stack pointer {sp:#x}")]
    NotIncreasing {
        /// The frame's pc.
        pc: usize,
        /// Its stack pointer.
        sp: usize,
        /// Its CFA.
        cfa: usize,
    },
    /// The rule yields a CFA above the bounds.
    #[error("the frame at pc {pc:#x} has its CFA {cfa:#x} outside of the stack")]
    OutOfBounds {
        /// The frame's pc.
        pc: usize,
        /// Its CFA.
        cfa: usize,
    },
    /// The rule yields a CFA that is not aligned to a word.
    #[error("the frame at pc {pc:#x} has an unaligned CFA {cfa:#x}")]
    Misaligned {
        /// The frame's pc.
        pc: usize,
        /// Its CFA.
        cfa: usize,
    },
    /// A slot that the rule names lies outside of the bounds, or the memory does not hold it.
    #[error("the frame at pc {pc:#x} needs the word at {address:#x}, which cannot be read")]
    Unreadable {
        /// The frame's pc.
        pc: usize,
        /// The slot.
        address: usize,
    },
    /// The safepoint table and the CFI yield different CFAs ([`Walker::checked`]).
    #[error(
        "the frame at pc {pc:#x} has its CFA at {by_table:#x} by its safepoint, at {by_cfi:#x} by its CFI"
    )]
    Disagreement {
        /// The frame's pc.
        pc: usize,
        /// The CFA computed from the stack pointer.
        by_table: usize,
        /// The CFA computed from the frame pointer.
        by_cfi: usize,
    },
}

/// Why no barrier may be placed in a frame's return slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BarrierRefusal {
    /// The frame is not managed.
    Kind(FrameKind),
    /// The frame does not stand at a safepoint.
    NotAtSafepoint,
    /// The frame moves its return address.
    ReturnAddressMoves,
    /// The frame does not return to a safepoint of managed code.
    CallerNotSafepoint,
    /// The slot holds a barrier already.
    Hijacked,
}

/// One frame of a stack.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'s> {
    /// What it is.
    pub kind: FrameKind,
    /// Where it stands: exact for the frame that a walk starts at, a return address for all others.
    pub pc: usize,
    /// Its stack pointer there.
    pub sp: usize,
    /// Its canonical frame address: its caller's stack pointer. For the oldest frame, the end of
    /// the bounds.
    pub cfa: usize,
    /// The value of the frame pointer register in this frame.
    pub fp: usize,
    /// Where a younger frame saved that value; `None` if it is still in the registers that the walk
    /// began with.
    pub fp_slot: Option<usize>,
    /// The CFI computes this frame's CFA from the frame pointer: whoever moves the frame rewrites
    /// `*fp_slot`.
    pub cfa_from_fp: bool,
    /// Where its return address stands: CFA-8. `None` for the oldest frame.
    pub return_slot: Option<usize>,
    /// The address that it returns to: the original one if the slot is hijacked. 0 for the oldest
    /// frame.
    pub return_address: usize,
    /// The return slot holds a barrier stub.
    pub hijacked: bool,
    /// The safepoint at `pc`, if it is one of managed code.
    pub safepoint: Option<SafepointRef<'s>>,
    /// The safepoint at `return_address`, if it is one of managed code: the next frame's
    /// `safepoint`.
    pub caller: Option<SafepointRef<'s>>,
}

impl<'s> Frame<'s> {
    /// The addresses of the words that may hold references or pointers into the stack, or pointers
    /// derived from such; none without a safepoint.
    #[inline]
    pub fn slots(&self) -> impl Iterator<Item = usize> + use<'s> {
        let sp = self.sp;
        Slots::of(self.live()).map(move |slot| sp + slot as usize)
    }

    /// The addresses of the words that hold references, each with that of a pointer derived from
    /// it, or with itself: when an object moves, what is derived keeps its distance from the base.
    #[inline]
    pub fn roots(&self) -> impl Iterator<Item = (usize, usize)> + use<'s> {
        let sp = self.sp;
        let at = move |location| sp + offset(location) as usize;
        self.live().map(move |root| (at(root.base), at(root.derived)))
    }

    #[inline]
    fn live(&self) -> Roots<'s> {
        self.safepoint.map_or(Roots::empty(), |safepoint| safepoint.roots())
    }

    /// The return slot, if a barrier may be placed in it; otherwise why not. All that the frame can
    /// know is tested; that its goroutine is stopped or the frame frozen is the caller's to know.
    #[inline]
    pub fn barrier_slot(&self) -> Result<usize, BarrierRefusal> {
        if self.kind != FrameKind::Managed {
            return Err(BarrierRefusal::Kind(self.kind));
        }
        match (self.return_slot, self.safepoint) {
            (_, None) => Err(BarrierRefusal::NotAtSafepoint),
            (_, Some(safepoint)) if safepoint.moves_return_address() => {
                Err(BarrierRefusal::ReturnAddressMoves)
            }
            (Some(slot), _) if self.caller.is_some() => {
                if self.hijacked {
                    Err(BarrierRefusal::Hijacked)
                } else {
                    Ok(slot)
                }
            }
            _ => Err(BarrierRefusal::CallerNotSafepoint),
        }
    }
}

/// A walk over one stack, from younger frames to older ones. It allocates nothing and takes no
/// lock.
///
/// It ends: every step goes up the stack by at least a word, within the bounds.
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
    checked: bool,
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
    oldest: bool,
}

impl<'s, M: Memory, R: ReturnAddresses> Walker<'s, M, R> {
    /// A walk that begins at the frame with these registers and reads `memory` within `bounds`, the
    /// stack.
    pub fn new(
        snapshot: &'s Snapshot<'_>,
        memory: M,
        returns: R,
        registers: Registers,
        bounds: Range<usize>,
    ) -> Walker<'s, M, R> {
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
            checked: false,
            ended: false,
        };
        walker.safepoint = walker.look_up(registers.pc);
        walker
    }

    /// Whether to compare, at each safepoint whose CFI has the CFA relative to the frame pointer,
    /// both CFAs.
    pub fn checked(mut self, checked: bool) -> Walker<'s, M, R> {
        self.checked = checked;
        self
    }

    /// The frame that the walk stands at, as registers: a later walk over the same stack goes on
    /// from there.
    #[inline]
    pub fn registers(&self) -> Registers {
        self.registers
    }

    /// The next frame; `None` behind the oldest one.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<Frame<'s>>, WalkError> {
        let Registers { pc, sp, fp } = self.registers;
        let step = match self.safepoint {
            Some(safepoint) => {
                let cfa = sp.wrapping_add(safepoint.cfa_offset());
                let cfa_from_fp = safepoint.cfa_from_fp();
                if self.checked
                    && let Some(offset) = cfa_from_fp
                {
                    let by_cfi = fp.wrapping_add(offset);
                    if by_cfi != cfa {
                        return Err(WalkError::Disagreement { pc, by_table: cfa, by_cfi });
                    }
                }
                let kind = FrameKind::Managed;
                if safepoint.has_frame_record() && opaque(fp).wrapping_add(2 * WORD) == cfa {
                    // The same CFA, behind a branch that is predicted: the walk runs from frame
                    // pointer to frame pointer, and does not wait for what the look-ups yield.
                    let cfa = opaque(fp).wrapping_add(2 * WORD);
                    Step { kind, cfa, saved_fp: 2 * WORD, cfa_from_fp: true, oldest: false }
                } else {
                    let saved_fp = safepoint.saved_fp();
                    Step { kind, cfa, saved_fp, cfa_from_fp: cfa_from_fp.is_some(), oldest: false }
                }
            }
            None if self.ended => return Ok(None),
            None => self.step_by_rule()?,
        };
        self.take(step).map(Some)
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
                NativeStep::Rule(rule) => (native.kind, rule),
                NativeStep::End => return Ok(self.oldest(native.kind)),
                NativeStep::Fixed(offset) => {
                    let cfa = sp.wrapping_add(offset);
                    return Ok(Step {
                        kind: native.kind,
                        cfa,
                        saved_fp: 0,
                        cfa_from_fp: false,
                        oldest: false,
                    });
                }
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
        Ok(Step { kind, cfa, saved_fp: rule.saved_fp(), cfa_from_fp, oldest: false })
    }

    /// The step of a frame whose rule reads memory.
    fn step_slowly(&self, kind: FrameKind, rule: UnwindRule<'_>) -> Result<Step, WalkError> {
        let Registers { pc, sp, fp } = self.registers;
        let bounded = Bounded(self);
        let context = RegisterSet::new(pc, sp, fp);
        let recovery = rule
            .evaluate(&context, &bounded)
            .map_err(|source| WalkError::Expression { pc, source })?;
        if recovery.oldest {
            return Ok(self.oldest(kind));
        }
        let cfa = recovery.cfa;
        if recovery.return_slot() != Some(cfa.wrapping_sub(WORD))
            || recovery.register(X86_64::RSP) != Recovered::Value(cfa)
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
            .map(Rule::shape)
            .is_some_and(|shape| matches!(shape, Shape::Realigned(_)));
        Ok(Step { kind, cfa, saved_fp, cfa_from_fp, oldest: false })
    }

    /// The step of the oldest frame, which returns nowhere. Its rule's CFA may lie beyond the stack
    /// and means nothing.
    fn oldest(&self, kind: FrameKind) -> Step {
        Step { kind, cfa: self.end, saved_fp: 0, cfa_from_fp: false, oldest: true }
    }

    /// Reads what the step names, moves on to the caller, and looks the caller up.
    #[inline]
    fn take(&mut self, step: Step) -> Result<Frame<'s>, WalkError> {
        let Registers { pc, sp, fp } = self.registers;
        let Step { kind, cfa, saved_fp, cfa_from_fp, oldest } = step;
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
        let return_slot = cfa - WORD;
        let found = self.read(return_slot)?;
        if saved_fp != 0 {
            let slot = cfa.wrapping_sub(saved_fp);
            self.registers.fp = self.read(slot)?;
            self.fp_slot = Some(slot);
        }
        let original = self.returns.original(found);
        let return_address = original.unwrap_or(found);
        // A recursion returns to where it already stands. The test is predicted well, and takes the
        // probe, which depends on the word just read, out of the chain from one frame to the next.
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
        if sp < self.start || sp > self.end || !sp.is_multiple_of(WORD) {
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

    #[inline]
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
