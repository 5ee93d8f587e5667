//! Machines as mutators. The embedder's [`Host`](stackmark_stack::Host) calls [`attach`] and
//! [`detach`] where it hears of machines.

use crate::host::StackHost;
use mmtk::memory_manager;
use mmtk::plan::Mutator;
use stackmark_stack::Caller;
use stackmark_stack::asm::layout::GoroutineHeader;
use std::sync::atomic::Ordering::Relaxed;

pub use crate::mutators::MachineState;
pub use crate::mutators::thread_of;

/// Makes a mutator for the calling thread. Returns the machine's word, for
/// [`Host::machine_attached`](stackmark_stack::Host::machine_attached): the address of a
/// [`MachineState`], by which managed code may find its mutator as well.
pub fn attach<VM: StackHost>() -> usize {
    VM::stacks().mutators.bind()
}

/// Gives the mutator of a machine back, in
/// [`Host::machine_detached`](stackmark_stack::Host::machine_detached).
///
/// # Safety
/// `word` is what [`attach`] has returned on this thread, and is given back once.
pub unsafe fn detach<VM: StackHost>(word: usize) {
    // SAFETY: our contract.
    unsafe { VM::stacks().mutators.unbind(word) }
}

/// The mutator of the calling thread's machine: for allocation and write barriers in native code
/// that managed code has called.
///
/// # Safety
/// The machines of the caller's runtime have been [attached](attach). No other reference to this
/// mutator is used while the returned one is, and the native function neither parks, goes outside
/// nor calls back meanwhile, but for what MMTk itself does in it.
#[expect(clippy::mut_from_ref, reason = "the caller vouches that it is the only one")]
pub unsafe fn mutator<'c, VM: StackHost>(caller: &'c Caller<'_>) -> &'c mut Mutator<VM> {
    let header = caller.goroutine().address() as *const GoroutineHeader;
    // SAFETY: the address of the goroutine's header, which is alive.
    let word = unsafe { &*header }.machine_word.load(Relaxed);
    // SAFETY: our contract: `attach` made the word, and the thread is still attached.
    unsafe { &mut (*(word as *mut MachineState<VM>)).mutator }
}

/// Asks MMTk for a collection, in native code that managed code has called: as
/// `mmtk::memory_manager::handle_user_collection_request`.
///
/// # Safety
/// As for [`mutator`]. References that the native function has in plain words may be stale
/// afterwards.
pub unsafe fn collect<VM: StackHost>(caller: &Caller<'_>) {
    // SAFETY: our contract.
    let thread = unsafe { mutator::<VM>(caller) }.mutator_tls;
    memory_manager::handle_user_collection_request(VM::stacks().mmtk(), thread);
}
