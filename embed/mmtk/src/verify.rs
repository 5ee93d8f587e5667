//! Verification: no root of a stack is lost, and none is left where its object was.
//!
//! It walks all stacks whole, whatever the collection has visited. It looks at three moments: when
//! a slot is handed to MMTk, when MMTk has reached all objects, and when the world goes on.

use crate::host::StackHost;
use crate::pause::PauseKind;
use mmtk::util::ObjectReference;
use mmtk::vm::ObjectModel;
use parking_lot::Mutex;
use stackmark_stack::{CycleStopped, RootSlot};
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// What is wrong with a root.
struct Wrong {
    word: usize,
    what: &'static str,
    at: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verification: the root {:#x} {}: {}", self.word, self.what, self.at)
    }
}

/// A slot is about to be handed to MMTk.
pub(crate) fn may_be_handed_over<VM: StackHost>(slot: &RootSlot) {
    let RootSlot::Reference { base, derived } = *slot else { return };
    // SAFETY: the place of a root in the stopped world.
    let word = unsafe { read(base) };
    // The base of a derived pointer need not be used again.
    if base == derived && object_at::<VM>(word).is_none() && !VM::is_no_reference(word) {
        let at = format!("the slot at {base:#x} is handed over");
        VM::fatal(&Wrong { word, what: "refers to no object", at });
    }
}

/// MMTk has reached all objects that it will, weak references left out.
pub(crate) fn roots_are_reached<VM: StackHost>() {
    let forwards_later = VM::stacks().mmtk().get_plan().constraints().needs_forward_after_liveness;
    check::<VM>(|object| match () {
        () if !object.is_reachable() => Some("refers to an object that was not reached"),
        () if forwards_later => None,
        () => object
            .get_forwarded_object()
            .filter(|moved| *moved != object)
            .map(|_| "refers to where an object was"),
    });
}

/// The world is about to go on.
pub(crate) fn roots_are_updated<VM: StackHost>() {
    let plan = VM::stacks().mmtk().get_plan();
    let begins = VM::stacks().round.lock().kind == PauseKind::InitialMark;
    let marks_last = !begins && !plan.constraints().needs_forward_after_liveness;
    check::<VM>(|object| {
        (marks_last && !object.is_live()).then_some("refers to an object that is not alive")
    });
}

/// Walks all stacks. `wrong` says what is wrong with an object, if something is.
fn check<VM: StackHost>(wrong: impl Fn(ObjectReference) -> Option<&'static str>) {
    let stacks = VM::stacks();
    let begun = Instant::now();
    let slots = Mutex::new(Vec::new());
    stacks.world.with(|stopped| {
        let taken = stopped.all_slots(&|more| slots.lock().extend_from_slice(more));
        taken.unwrap_or_else(|error| VM::fatal(&error));
        let slots = slots.into_inner();
        stacks.handles().visit(stopped, &|more| look::<VM>(stopped, more, &wrong));
        look::<VM>(stopped, &slots, &wrong);
    });
    stacks.round.lock().verifying += begun.elapsed();
}

fn look<VM: StackHost>(
    stopped: &CycleStopped<'_>,
    slots: &[RootSlot],
    wrong: &dyn Fn(ObjectReference) -> Option<&'static str>,
) {
    // The bases that are roots of their own. Others need not be used again.
    let mut roots = None;
    for slot in slots {
        let RootSlot::Reference { base, derived } = *slot else { continue };
        // SAFETY: places of roots in the stopped world.
        let (word, pointer) = unsafe { (read(base), read(derived)) };
        if base != derived {
            let roots: &HashSet<usize> = roots.get_or_insert_with(|| plain(slots));
            if !roots.contains(&base) {
                continue;
            }
        }
        let what = match object_at::<VM>(word) {
            None => (!VM::is_no_reference(word)).then_some("refers to no object"),
            Some(object) => wrong(object).or_else(|| {
                let size = VM::VMObjectModel::get_current_size(object);
                (pointer.wrapping_sub(word) > size).then_some("has lost a pointer derived from it")
            }),
        };
        if let Some(what) = what {
            let at = match stopped.find_root(word) {
                Ok(Some(at)) => format!("{at}, in the slot at {base:#x}"),
                _ => format!("in the slot at {base:#x}"),
            };
            VM::fatal(&Wrong { word, what, at });
        }
    }
}

fn plain(slots: &[RootSlot]) -> HashSet<usize> {
    let plain = slots.iter().filter_map(|slot| match *slot {
        RootSlot::Reference { base, derived } if base == derived => Some(base),
        _ => None,
    });
    plain.collect()
}

/// The object that a word refers to, if it does.
fn object_at<VM: StackHost>(word: usize) -> Option<ObjectReference> {
    VM::object_of(word).filter(|object| VM::is_object(*object))
}

/// Reads the word of a root.
///
/// # Safety
/// The word is readable, and is written atomically.
pub(crate) unsafe fn read(at: usize) -> usize {
    // SAFETY: our contract.
    unsafe { AtomicUsize::from_ptr(at as *mut usize) }.load(Relaxed)
}
