//! What the binding adds.

use crate::pause::Pause;
use crate::slot::FromStack;
use crate::stacks::{Options, Stacks};
use mmtk::MMTK;
use mmtk::util::alloc::AllocationError;
use mmtk::util::heap::GCTriggerPolicy;
use mmtk::util::{Address, ObjectReference};
use mmtk::vm::VMBinding;
use stackmark_stack::{AlreadyDriven, Runtime};
use std::fmt::Display;
use std::sync::Arc;

/// A binding whose mutators run goroutines. MMTk is a singleton, so this is, too.
pub trait StackHost: VMBinding<VMSlot: FromStack> {
    /// What [`connect`] has made.
    fn stacks() -> &'static Stacks<Self>;

    /// The object that an ambiguous word refers to, if it does: a start argument, resume value or
    /// transfer word that the embedder has handed over as
    /// [`Word::Ambiguous`](stackmark_stack::Word::Ambiguous), or a word of a goroutine's header
    /// without [`Config::exact_language_words`](stackmark_stack::Config::exact_language_words). The
    /// object stays where it is, so the plan must be able to pin. Called under a lock of the
    /// library. The default ends the process, with one line: a binding that has such words knows
    /// what is an object.
    fn ambiguous(word: usize) -> Option<ObjectReference> {
        fatal(&format_args!("{word:#x} is an ambiguous root: `StackHost::ambiguous` is missing"))
    }

    /// The object that a word refers to, where there is no slot: while ConcurrentImmix marks and
    /// the world runs, and in verification. The word is one of a stack map, or one that native code
    /// hands to a goroutine. The default takes each aligned address in a space of MMTk's for that
    /// of an object. A binding whose frames hold derived pointers looks the object up, or sets
    /// [`Options::incremental`](crate::Options::incremental) to false. Called under a lock of the
    /// library.
    fn object_of(word: usize) -> Option<ObjectReference> {
        if !word.is_multiple_of(size_of::<usize>()) {
            return None;
        }
        // SAFETY: an address is only looked at.
        let object = ObjectReference::from_raw_address(unsafe { Address::from_usize(word) });
        object.filter(|object| object.is_in_any_space())
    }

    /// Whether there is an object, as far as the binding can tell: for verification. The default
    /// looks whether the address lies in a space of MMTk's.
    fn is_object(object: ObjectReference) -> bool {
        object.is_in_any_space()
    }

    /// Whether a root may have this word although [`StackHost::object_of`] finds no object by it:
    /// for verification. The default says no.
    fn is_no_reference(_word: usize) -> bool {
        false
    }

    /// The slot that holds the referent of a weak reference: for the bodies of
    /// [`reference_glue`](crate::reference_glue). The default ends the process, with one line.
    fn referent(reference: ObjectReference) -> Self::VMSlot {
        fatal(&format_args!("{reference} is a weak reference: `StackHost::referent` is missing"))
    }

    /// An allocation fails: the heap is full. When this returns, the allocation returns null.
    /// Called on the thread that allocates. The default ends the process, with one line.
    fn out_of_memory(error: AllocationError) {
        Self::fatal(&format_args!("an allocation fails: {error:?}"));
    }

    /// When to collect, if MMTk's option `gc_trigger` is `Delegated`. The default ends the process,
    /// with one line.
    fn trigger() -> Box<dyn GCTriggerPolicy<Self>> {
        fatal(&"the trigger is delegated: `StackHost::trigger` is missing")
    }

    /// A pause ends. Called on a worker of MMTk's, in the stopped world. The default does nothing.
    fn paused(_pause: &Pause) {}

    /// Ends the process: a stack cannot be walked, or verification has found that a root was lost.
    /// A panic would end one worker, and leave the others waiting. The default writes one line to
    /// standard error and aborts.
    fn fatal(error: &dyn Display) -> ! {
        fatal(error)
    }
}

fn fatal(error: &dyn Display) -> ! {
    eprintln!("stackmark-mmtk: {error}");
    std::process::abort()
}

/// Makes what stands between a runtime and MMTk: after both, and before
/// `mmtk::memory_manager::initialize_collection` and the first machine. The binding keeps it in a
/// static, for [`StackHost::stacks`].
///
/// # Errors
/// [`AlreadyDriven`], if the runtime has a collector.
///
/// # Panics
/// If the system has no thread left.
pub fn connect<VM: StackHost>(
    runtime: &Arc<Runtime>,
    mmtk: &'static MMTK<VM>,
    options: Options,
) -> Result<Stacks<VM>, AlreadyDriven> {
    Stacks::new(runtime, mmtk, options, VM::object_of, |error| VM::fatal(error))
}
