//! Bodies for a binding's `Scanning`. Stacks are not mutators: `scan_roots_in_mutator_thread` is
//! empty, and `scan_vm_specific_roots` calls [`scan_stacks`] besides what it has of its own.

use crate::host::StackHost;
use crate::packets::{Gatherer, ScanFrozen, VisitSlots};
use crate::pause::PauseKind;
use crate::verify;
use mmtk::memory_manager::{add_work_packet, num_of_workers};
use mmtk::scheduler::{EDGES_WORK_BUFFER_SIZE, WorkBucketStage};
use mmtk::vm::RootsWorkFactory;
use std::time::Instant;

/// Gives the roots of stacks, and of [handles](crate::Stacks::handles), to MMTk. In a nursery
/// collection only what has run since the last collection is visited. What a first look at each
/// stack leaves is shared by the workers.
pub fn scan_stacks<VM: StackHost>(factory: impl RootsWorkFactory<VM::VMSlot>) {
    let stacks = VM::stacks();
    let begun = Instant::now();
    let (kind, again) = {
        let round = stacks.round.lock();
        (round.kind, round.again)
    };
    match kind {
        _ if again => hand_out_again::<VM>(factory),
        PauseKind::Short | PauseKind::Whole => scan_slots::<VM>(factory),
        PauseKind::InitialMark => begin_marking::<VM>(factory),
        PauseKind::FinalMark => {}
    }
    stacks.round.lock().roots += begun.elapsed();
}

/// Roots will be asked for again: they are the same slots.
pub fn prepare_for_roots_re_scanning<VM: StackHost>() {
    VM::stacks().round.lock().again = true;
}

/// Whether return barriers are in use.
pub fn supports_return_barrier<VM: StackHost>() -> bool {
    VM::stacks().has_barriers()
}

/// With [`Options::verify`](crate::Options::verify), checks that MMTk has reached what stacks refer
/// to. To be called in `process_weak_refs`, before objects that are not reached are kept alive.
pub fn check_roots<VM: StackHost>() {
    if VM::stacks().options().verify {
        verify::roots_are_reached::<VM>();
    }
}

fn scan_slots<VM: StackHost>(factory: impl RootsWorkFactory<VM::VMSlot>) {
    let stacks = VM::stacks();
    let gatherer = Gatherer::<VM, _>::new(factory);
    let begun = stacks.world.with_mut(|stopped| {
        stacks.handles().visit(stopped, &|slots| gatherer.all(slots));
        stopped.begin_slots(&|slots| gatherer.stack(slots))
    });
    begun.unwrap_or_else(|error| VM::fatal(&error));
    if stacks.runtime().has_frozen() {
        for _ in 1..num_of_workers(stacks.mmtk()) {
            let packet = VisitSlots::<VM, _>::new(gatherer.factory());
            add_work_packet(stacks.mmtk(), WorkBucketStage::Prepare, packet);
        }
        gatherer.visit();
    }
    gatherer.finish();
}

fn hand_out_again<VM: StackHost>(mut factory: impl RootsWorkFactory<VM::VMSlot>) {
    let round = VM::stacks().round.lock();
    for slots in &round.kept {
        factory.create_process_roots_work(slots.clone());
    }
    if !round.pinned.is_empty() {
        factory.create_process_pinning_roots_work(round.pinned.clone());
    }
}

fn begin_marking<VM: StackHost>(factory: impl RootsWorkFactory<VM::VMSlot>) {
    let stacks = VM::stacks();
    let gatherer = Gatherer::<VM, _>::new(factory);
    let begun = stacks.world.with_mut(|stopped| {
        stacks.handles().visit(stopped, &|slots| gatherer.all(slots));
        stopped.scan_goroutines()
    });
    begun.unwrap_or_else(|error| VM::fatal(&error));
    let found = stacks.marking.take_gathered();
    stacks.round.lock().slots += found.len() as u64;
    let mut factory = gatherer.factory();
    for objects in found.chunks(EDGES_WORK_BUFFER_SIZE) {
        factory.create_process_pinning_roots_work(objects.to_vec());
    }
    gatherer.finish();
    if stacks.runtime().has_frozen() {
        // The bucket is closed until the world goes on.
        for _ in 0..num_of_workers(stacks.mmtk()) {
            add_work_packet(stacks.mmtk(), WorkBucketStage::Concurrent, ScanFrozen);
        }
    }
}
