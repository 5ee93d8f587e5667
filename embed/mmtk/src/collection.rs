//! A binding's `Collection`: [`Pauses`]. The functions are its methods, for a binding that adds
//! something to one, or implements others.

use crate::active_plan::mutators;
use crate::host::StackHost;
use crate::pause::PauseKind;
use crate::verify;
use crate::world::Stop;
use mmtk::memory_manager;
use mmtk::plan::Mutator;
use mmtk::util::Address;
use mmtk::util::alloc::AllocationError;
use mmtk::util::heap::GCTriggerPolicy;
use mmtk::util::opaque_pointer::{OpaquePointer, VMMutatorThread, VMThread, VMWorkerThread};
use mmtk::vm::{Collection, GCThreadContext};
use stackmark_stack::{Caller, NextCycle, ScanScope};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// For `VMBinding::VMCollection`: MMTk's pauses are stops of the runtime's world.
#[derive(Debug)]
pub struct Pauses<VM>(PhantomData<fn() -> VM>);

impl<VM: StackHost> Collection<VM> for Pauses<VM> {
    fn stop_all_mutators<F: FnMut(&'static mut Mutator<VM>)>(_: VMWorkerThread, visit: F) {
        stop_all_mutators::<VM>(visit);
    }

    fn resume_mutators(_: VMWorkerThread) {
        resume_mutators::<VM>();
    }

    fn block_for_gc(thread: VMMutatorThread) {
        block_for_gc::<VM>(thread);
    }

    fn spawn_gc_thread(parent: VMThread, context: GCThreadContext<VM>) {
        spawn_gc_thread::<VM>(parent, context);
    }

    fn out_of_memory(_: VMThread, error: AllocationError) {
        VM::out_of_memory(error);
    }

    fn create_gc_trigger() -> Box<dyn GCTriggerPolicy<VM>> {
        VM::trigger()
    }
}

/// Stops the world: no managed code runs, and no native code that managed code has called, but for
/// foreign calls.
pub fn stop_all_mutators<VM: StackHost>(mut visit: impl FnMut(&'static mut Mutator<VM>)) {
    let (kind, stop) = next_pause::<VM>();
    VM::stacks().stop(kind, stop);
    for mutator in mutators::<VM>() {
        visit(mutator);
    }
}

/// Lets the world go on.
///
/// # Panics
/// If the world is not stopped.
pub fn resume_mutators<VM: StackHost>() {
    let stacks = VM::stacks();
    if stacks.options().verify {
        verify::roots_are_updated::<VM>();
    }
    let pause = stacks.pause();
    VM::paused(&pause);
    if pause.kind == PauseKind::InitialMark {
        stacks.marking.run();
    }
    stacks.world.resume();
}

/// Waits until the collection that this thread has asked for is over.
pub fn block_for_gc<VM: StackHost>(_thread: VMMutatorThread) {
    let world = &VM::stacks().world;
    // Before the thread goes outside: until then the world does not stop.
    let before = world.pauses();
    // SAFETY: used within this function, on its own thread.
    match unsafe { Caller::try_current() } {
        Some(caller) => caller.foreign(|| world.wait_for_pause(before)),
        None => world.wait_for_pause(before),
    }
}

/// Starts a worker of MMTk's, on a thread of its own.
///
/// # Panics
/// If the system has no thread.
pub fn spawn_gc_thread<VM: StackHost>(_parent: VMThread, context: GCThreadContext<VM>) {
    static WORKERS: AtomicUsize = AtomicUsize::new(0);
    // MMTk wants a name that is not null. These are odd, so they are no machine's.
    let name = 2 * WORKERS.fetch_add(1, Relaxed) + 1;
    let work = move || {
        // SAFETY: an address that is only compared.
        let name = OpaquePointer::from_address(unsafe { Address::from_usize(name) });
        let GCThreadContext::Worker(worker) = context;
        memory_manager::start_worker(VM::stacks().mmtk(), VMWorkerThread(VMThread(name)), worker);
    };
    let thread = std::thread::Builder::new().name("mmtk".into());
    thread.spawn(work).expect("a thread for a worker");
}

/// What the pause that MMTk has begun does with stacks.
fn next_pause<VM: StackHost>() -> (PauseKind, Stop) {
    let stacks = VM::stacks();
    let plan = stacks.mmtk().get_plan();
    let short_scans = stacks.options().short_scans && stacks.has_barriers();
    let incremental =
        stacks.options().incremental && stacks.has_barriers() && !stacks.scans_whole();
    if let Some(concurrent) = plan.concurrent() {
        // MMTk does not export the type of a pause. Its values are 1 for a collection in one pause,
        // 2 for the first and 3 for the last pause of one beside the running world.
        match concurrent.current_pause().map(|pause| pause as u8) {
            Some(2) if incremental => {
                return (PauseKind::InitialMark, Stop::Begin);
            }
            Some(3) => return (PauseKind::FinalMark, Stop::Bare),
            _ => {}
        }
    }
    let Some(generational) = plan.generational().filter(|_| short_scans) else {
        let (scope, next) = (ScanScope::Whole, NextCycle::IsWhole);
        return (PauseKind::Whole, Stop::Cycle { scope, next });
    };
    let next = NextCycle::MayBeShort;
    match generational.is_current_gc_nursery() && !stacks.scans_whole() {
        true => (PauseKind::Short, Stop::Cycle { scope: ScanScope::Short, next }),
        false => (PauseKind::Whole, Stop::Cycle { scope: ScanScope::Whole, next }),
    }
}
