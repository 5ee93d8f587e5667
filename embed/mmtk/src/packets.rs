//! Work packets, and what gathers slots for MMTk's own.

use crate::fault::Fault;
use crate::host::StackHost;
use crate::pause::PauseKind;
use crate::slot::FromStack;
use crate::verify::{self, read};
use mmtk::MMTK;
use mmtk::scheduler::{EDGES_WORK_BUFFER_SIZE, GCWork, GCWorker};
use mmtk::util::ObjectReference;
use mmtk::vm::RootsWorkFactory;
use stackmark_stack::RootSlot;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::time::Instant;

/// Gathers the slots that one worker finds, and gives them to MMTk, many at a time.
///
/// MMTk writes no slot before all roots are gathered: its packets wait for the next stage. So the
/// distance of a derived pointer is that before the move, whatever becomes of the slot of its base.
pub(crate) struct Gatherer<VM: StackHost, F> {
    factory: RefCell<F>,
    slots: RefCell<Vec<VM::VMSlot>>,
    pinned: RefCell<Vec<ObjectReference>>,
    count: Cell<u64>,
    /// Whether MMTk will ask for the roots again.
    keeps: bool,
}

impl<VM: StackHost, F: RootsWorkFactory<VM::VMSlot>> Gatherer<VM, F> {
    pub(crate) fn new(factory: F) -> Gatherer<VM, F> {
        Gatherer {
            factory: RefCell::new(factory),
            slots: RefCell::default(),
            pinned: RefCell::default(),
            count: Cell::new(0),
            keeps: VM::stacks().mmtk().get_plan().constraints().needs_forward_after_liveness,
        }
    }

    pub(crate) fn factory(&self) -> F {
        self.factory.borrow().clone()
    }

    /// Takes roots of stacks.
    pub(crate) fn stack(&self, slots: &[RootSlot]) {
        let stacks = VM::stacks();
        let fault = stacks.options().fault;
        if fault == Fault::default() {
            return self.all(slots);
        }
        let short = stacks.round.lock().kind == PauseKind::Short;
        self.all(&stacks.fault.wrong(fault, stacks.pauses() + 1, short, slots));
    }

    /// Takes roots.
    pub(crate) fn all(&self, slots: &[RootSlot]) {
        let verifies = VM::stacks().options().verify;
        for slot in slots {
            if verifies {
                verify::may_be_handed_over::<VM>(slot);
            }
            self.add(slot);
        }
        if self.slots.borrow().len() >= EDGES_WORK_BUFFER_SIZE {
            self.flush();
        }
    }

    fn add(&self, slot: &RootSlot) {
        self.count.set(self.count.get() + 1);
        match *slot {
            // SAFETY: a place of a root, which is valid until the world goes on; until then MMTk
            // uses it.
            RootSlot::Reference { base, derived } => self.slots.borrow_mut().push(unsafe {
                if base == derived {
                    VM::VMSlot::plain(base)
                } else {
                    VM::VMSlot::derived(derived, read(derived).wrapping_sub(read(base)))
                }
            }),
            RootSlot::Ambiguous(at) => {
                // SAFETY: as above.
                let object = VM::ambiguous(unsafe { read(at) });
                self.pinned.borrow_mut().extend(object);
            }
        }
    }

    fn flush(&self) {
        let slots = self.slots.take();
        if slots.is_empty() {
            return;
        }
        if self.keeps {
            VM::stacks().round.lock().kept.push(slots.clone());
        }
        self.factory.borrow_mut().create_process_roots_work(slots);
    }

    /// Visits what is left of stacks, together with other workers.
    pub(crate) fn visit(&self) {
        let world = &VM::stacks().world;
        while world
            .with(|stopped| stopped.visit_slots(&|slots| self.stack(slots)))
            .unwrap_or_else(|error| VM::fatal(&error))
        {}
    }

    /// Gives the rest to MMTk.
    pub(crate) fn finish(self) {
        self.flush();
        let pinned = self.pinned.take();
        let mut round = VM::stacks().round.lock();
        round.slots += self.count.get();
        if !pinned.is_empty() {
            if self.keeps {
                round.pinned.extend(&pinned);
            }
            self.factory.borrow_mut().create_process_pinning_roots_work(pinned);
        }
    }
}

/// Visits what is left of stacks, in the stopped world.
pub(crate) struct VisitSlots<VM, F> {
    factory: F,
    binding: PhantomData<fn() -> VM>,
}

impl<VM, F> VisitSlots<VM, F> {
    pub(crate) fn new(factory: F) -> VisitSlots<VM, F> {
        VisitSlots { factory, binding: PhantomData }
    }
}

impl<VM: StackHost, F: RootsWorkFactory<VM::VMSlot>> GCWork<VM> for VisitSlots<VM, F> {
    fn do_work(&mut self, _worker: &mut GCWorker<VM>, _mmtk: &'static MMTK<VM>) {
        let begun = Instant::now();
        let gatherer = Gatherer::<VM, F>::new(self.factory.clone());
        gatherer.visit();
        gatherer.finish();
        VM::stacks().round.lock().roots += begun.elapsed();
    }
}

/// Visits what is left of stacks, while the world runs and MMTk marks.
pub(crate) struct ScanFrozen;

impl<VM: StackHost> GCWork<VM> for ScanFrozen {
    fn do_work(&mut self, _worker: &mut GCWorker<VM>, _mmtk: &'static MMTK<VM>) {
        let stacks = VM::stacks();
        while stacks.runtime().scan_frozen().unwrap_or_else(|error| VM::fatal(&error)) {}
        stacks.marking.flush();
    }
}
