//! The order of a cycle's steps, apart from what each does. So models run the very order that
//! ships, over a heap of two objects.
//!
//! Invariants:
//!
//! 1. No object is traced, and no root visited, before the write barrier is on everywhere. Marks
//!    that a cycle clears are cleared before that.
//! 2. Allocation is black from the handshake on, before anything is marked.
//! 3. The write barrier stays on until the weak references to unmarked objects are cleared. Native
//!    code, for which the stopped world does not wait, may get a reference out of their table until
//!    then, and shades it.
//!    With many of them they are cleared between two stopped worlds: the first completes marking
//!    ([`complete`]) and takes their table, the second closes the cycle.
//! 4. Marking is closed before the heap condemns what is unmarked.

use stackmark_stack::sync::{LeftOut, left_out};

/// The steps before anything is marked, with the world running.
pub(crate) trait Opening {
    /// Clears the marks of earlier cycles.
    fn clear_marks(&mut self);
    /// Turns the write barrier on.
    fn turn_on(&mut self);
    /// Returns when every goroutine has the write barrier on.
    fn handshake(&mut self);
    /// Empties the remembered set.
    fn forget_remembered(&mut self);
    /// Has new objects handed out black from now on.
    fn blacken_allocation(&mut self);
    /// Lets the workers mark.
    fn open_marking(&mut self);
}

/// Opens a cycle. One with `clears_marks` marks all live objects again. One with
/// `forgets_remembered` finds them without remembered stores.
pub(crate) fn open(steps: &mut impl Opening, clears_marks: bool, forgets_remembered: bool) {
    let clears_late = left_out(LeftOut::ClearFirst);
    if clears_marks && !clears_late {
        steps.clear_marks();
    }
    steps.turn_on();
    steps.handshake();
    if clears_marks && clears_late {
        steps.clear_marks();
    }
    if forgets_remembered {
        steps.forget_remembered();
    }
    steps.blacken_allocation();
    steps.open_marking();
}

/// The steps that complete marking, in a stopped world.
pub(crate) trait Completing {
    /// Why the cycle cannot be completed.
    type Error;
    /// What the stacks' last scans have visited.
    type Visited;
    /// Takes the words that the write barrier has shaded.
    fn take_buffers(&mut self);
    /// Completes the scans of stacks.
    fn finish_stacks(&mut self) -> Result<Self::Visited, Self::Error>;
    /// Traces until nothing is left.
    fn drain(&mut self);
}

/// Completes marking but for weak maps.
///
/// # Errors
/// Those of the steps.
pub(crate) fn complete<C: Completing>(steps: &mut C) -> Result<C::Visited, C::Error> {
    steps.take_buffers();
    let visited = steps.finish_stacks()?;
    steps.drain();
    Ok(visited)
}

/// The steps at the end of a cycle, in the stopped world.
pub(crate) trait Closing: Completing {
    /// Callbacks of objects that have become unreachable.
    type Due;
    /// What the cycle has marked.
    type Marked;
    /// Clears weak references, tracing what keeps others alive, if that has not been done.
    fn process_weak(&mut self) -> Self::Due;
    /// Walks everything again, where that is asked for.
    fn verify(&mut self) -> Result<(), Self::Error>;
    /// Turns the write barrier off.
    fn turn_off(&mut self);
    /// Returns when no worker marks any more.
    fn close_marking(&mut self) -> Self::Marked;
    /// Has the heap condemn what is unmarked, and the stacks end their cycle.
    fn condemn(&mut self, marked: &Self::Marked);
}

/// What a closed cycle leaves.
pub(crate) struct Closed<C: Closing> {
    pub(crate) visited: C::Visited,
    pub(crate) due: C::Due,
    pub(crate) marked: C::Marked,
}

/// Closes a cycle.
///
/// # Errors
/// Those of the steps.
pub(crate) fn close<C: Closing>(steps: &mut C) -> Result<Closed<C>, C::Error> {
    let visited = complete(steps)?;
    let off_early = left_out(LeftOut::OffLast);
    if off_early {
        steps.turn_off();
    }
    let due = steps.process_weak();
    steps.verify()?;
    if !off_early {
        steps.turn_off();
    }
    let marked = steps.close_marking();
    steps.condemn(&marked);
    Ok(Closed { visited, due, marked })
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests;
