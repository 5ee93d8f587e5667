//! Mutators, one for each machine.

use mmtk::plan::Mutator;
use mmtk::util::Address;
use mmtk::util::opaque_pointer::{OpaquePointer, VMMutatorThread, VMThread};
use mmtk::vm::VMBinding;
use mmtk::{MMTK, memory_manager};
use parking_lot::Mutex;

/// What a machine has. Its address is the machine's word.
#[repr(C)]
pub struct MachineState<VM: VMBinding> {
    /// The machine's mutator.
    pub mutator: Box<Mutator<VM>>,
}

impl<VM: VMBinding> std::fmt::Debug for MachineState<VM> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineState").finish_non_exhaustive()
    }
}

/// What MMTk calls a machine's thread by.
pub fn thread_of(word: usize) -> VMMutatorThread {
    // SAFETY: an address that MMTk only compares, and gives back.
    let address = unsafe { Address::from_usize(word) };
    VMMutatorThread(VMThread(OpaquePointer::from_address(address)))
}

/// The mutators of all machines.
pub(crate) struct Mutators<VM: VMBinding> {
    mmtk: &'static MMTK<VM>,
    /// The addresses of the machines' states.
    states: Mutex<Vec<usize>>,
}

impl<VM: VMBinding> Mutators<VM> {
    pub(crate) fn new(mmtk: &'static MMTK<VM>) -> Mutators<VM> {
        Mutators { mmtk, states: Mutex::default() }
    }

    /// Makes a mutator. Returns the address of its state.
    pub(crate) fn bind(&self) -> usize {
        // The mutator knows its state's address, and the state has the mutator.
        let state = Box::into_raw(Box::<MachineState<VM>>::new_uninit());
        let mutator = memory_manager::bind_mutator(self.mmtk, thread_of(state as usize));
        // SAFETY: memory for the state, which is ours.
        unsafe { (*state).write(MachineState { mutator }) };
        self.states.lock().push(state as usize);
        state as usize
    }

    /// Gives a mutator back.
    ///
    /// # Safety
    /// `word` is of [`Mutators::bind`], is given back once, and its mutator is not used.
    pub(crate) unsafe fn unbind(&self, word: usize) {
        self.states.lock().retain(|state| *state != word);
        // SAFETY: our contract.
        let mut state = unsafe { Box::from_raw(word as *mut MachineState<VM>) };
        memory_manager::destroy_mutator(&mut state.mutator);
    }

    /// The states of all machines.
    pub(crate) fn states(&self) -> Vec<*mut MachineState<VM>> {
        self.states.lock().iter().map(|at| *at as *mut MachineState<VM>).collect()
    }

    /// Whether a thread is a machine's.
    pub(crate) fn has(&self, word: usize) -> bool {
        self.states.lock().contains(&word)
    }

    /// How many mutators there are.
    pub(crate) fn count(&self) -> usize {
        self.states.lock().len()
    }
}
