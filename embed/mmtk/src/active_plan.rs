//! A binding's `ActivePlan`: [`Machines`]. The functions are its methods, for a binding that adds
//! something to one.

use crate::host::StackHost;
use crate::machine::MachineState;
use mmtk::plan::Mutator;
use mmtk::util::opaque_pointer::{VMMutatorThread, VMThread};
use mmtk::vm::ActivePlan;
use std::marker::PhantomData;

/// For `VMBinding::VMActivePlan`: mutators are machines.
#[derive(Debug)]
pub struct Machines<VM>(PhantomData<fn() -> VM>);

impl<VM: StackHost> ActivePlan<VM> for Machines<VM> {
    fn is_mutator(thread: VMThread) -> bool {
        is_mutator::<VM>(thread)
    }

    fn mutator(thread: VMMutatorThread) -> &'static mut Mutator<VM> {
        mutator::<VM>(thread)
    }

    fn mutators<'a>() -> Box<dyn Iterator<Item = &'a mut Mutator<VM>> + 'a> {
        mutators::<VM>()
    }

    fn number_of_mutators() -> usize {
        number_of_mutators::<VM>()
    }
}

/// Whether a thread is a machine.
pub fn is_mutator<VM: StackHost>(thread: VMThread) -> bool {
    VM::stacks().mutators.has(thread.0.to_address().as_usize())
}

/// The mutator of a machine. As MMTk's method, it is called by MMTk alone.
///
/// # Panics
/// If the thread is none.
pub fn mutator<VM: StackHost>(thread: VMMutatorThread) -> &'static mut Mutator<VM> {
    let word = thread.0.0.to_address().as_usize();
    assert!(VM::stacks().mutators.has(word), "the thread is no machine");
    // SAFETY: the state of a machine, which MMTk asks for on its own thread or in a pause, in which
    // no machine ends.
    unsafe { &mut (*(word as *mut MachineState<VM>)).mutator }
}

/// The mutators of all machines. They stay the same while the world is stopped.
pub fn mutators<'a, VM: StackHost>() -> Box<dyn Iterator<Item = &'a mut Mutator<VM>> + 'a> {
    let states = VM::stacks().mutators.states();
    // SAFETY: MMTk asks for them in pauses, in which no machine ends.
    Box::new(states.into_iter().map(|state| &mut *unsafe { &mut *state }.mutator))
}

/// How many machines there are.
pub fn number_of_mutators<VM: StackHost>() -> usize {
    VM::stacks().mutators.count()
}
