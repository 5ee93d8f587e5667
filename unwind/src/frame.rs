//! One frame of a managed stack, and what it is.

use crate::safepoint_table::SafepointRef;
use crate::stack_map::roots::{RootIter, SlotIter, address};

/// What a frame is, and so what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Compiler-generated code of a registered region.
    Managed,
    /// The frame through which native code called managed code. The call rewrites its return slot.
    /// It has two callers: a [`Walker`](crate::Walker) stays on the stack and goes on to the older
    /// managed code; an [`Unwinder`](crate::Unwinder), like the system's unwinder, goes on to the
    /// native code that called.
    Callback,
    /// The frame in which managed code has left its stack to call native code.
    SystemCall,
    /// The oldest frame of a stack.
    Entry,
    /// A return-address barrier's stub.
    Stub,
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
    /// The slot where a younger frame saved that value. `None` if it is still in the register that
    /// the walk began with.
    pub fp_slot: Option<usize>,
    /// The CFI computes this frame's CFA from the frame pointer. A move of the frame must rewrite
    /// `*fp_slot`.
    pub cfa_from_fp: bool,
    /// Where its return address stands. `None` for the oldest frame.
    pub return_slot: Option<usize>,
    /// The address to which it returns: the original one if the slot is hijacked, 0 for the oldest
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
    /// The addresses of the words that may hold references, pointers into the stack, or pointers
    /// derived from either. None without a safepoint.
    #[inline]
    pub fn slots(&self) -> impl Iterator<Item = usize> + use<'s> {
        SlotIter::of(self.live(), self.sp, self.fp)
    }

    /// Pairs of addresses: of a word that holds a reference, and of a word that holds a pointer
    /// derived from it. For a plain reference both are the same. When an object moves, the derived
    /// pointer keeps its distance from the base.
    #[inline]
    pub fn roots(&self) -> impl Iterator<Item = (usize, usize)> + use<'s> {
        let (sp, fp) = (self.sp, self.fp);
        let at = move |location| address(location, sp, fp);
        self.live().map(move |root| (at(root.base), at(root.derived)))
    }

    /// Whether the word in the return slot is signed for the frame's CFA: see
    /// [`SafepointRef::return_is_signed`].
    #[inline]
    pub fn return_is_signed(&self) -> bool {
        self.safepoint.is_some_and(|safepoint| safepoint.return_is_signed())
    }

    #[inline]
    fn live(&self) -> RootIter<'s> {
        self.safepoint.map_or(RootIter::empty(), |safepoint| safepoint.roots())
    }

    /// The return slot, if a barrier may be placed in it. The caller must know that the frame's
    /// thread is stopped, or the frame frozen; this tests everything else.
    ///
    /// # Errors
    ///
    /// The reason why no barrier may be placed.
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
