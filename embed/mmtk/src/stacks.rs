//! What a binding makes once: the runtime, MMTk, and what stands between them.

use crate::fault::{Fault, Memory};
use crate::marking::Marking;
use crate::mutators::{MachineState, Mutators};
use crate::pause::{Pause, PauseKind};
use crate::world::{Stop, World};
use mmtk::MMTK;
use mmtk::util::ObjectReference;
use mmtk::vm::VMBinding;
use parking_lot::Mutex;
use stackmark_stack::handles::Handles;
use stackmark_stack::{AlreadyDriven, BarrierMode, CycleDriver, Inside, Runtime, ScanError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How stacks are scanned.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nursery collections of generational plans visit the frames that have run since the last
    /// collection, and no others.
    pub short_scans: bool,
    /// While ConcurrentImmix marks, stacks are visited beside the running world. If not, they are
    /// visited whole in its first pause.
    pub incremental: bool,
    /// For debugging: all stacks are walked twice more in each collection. Once MMTk has reached
    /// all objects, each root must refer to one of them; and before the world goes on, to an object
    /// where it is now.
    pub verify: bool,
    /// For tests of the verification.
    #[doc(hidden)]
    pub fault: Fault,
}

impl Default for Options {
    fn default() -> Options {
        Options { short_scans: true, incremental: true, verify: false, fault: Fault::default() }
    }
}

/// The stacks of a runtime as MMTk sees them. A binding keeps it in a static.
pub struct Stacks<VM: VMBinding> {
    runtime: Arc<Runtime>,
    mmtk: &'static MMTK<VM>,
    options: Options,
    handles: Arc<Handles>,
    pub(crate) mutators: Mutators<VM>,
    /// See [`Stacks::set_whole_scans`].
    whole_scans: AtomicBool,
    pub(crate) world: Arc<World>,
    pub(crate) marking: Arc<Marking<VM>>,
    pub(crate) round: Mutex<Round<VM>>,
    /// For tests.
    pub(crate) fault: Memory,
}

/// What the present pause has found.
pub(crate) struct Round<VM: VMBinding> {
    pub(crate) kind: PauseKind,
    /// Whether roots are asked for again: then they are the slots of the first time.
    pub(crate) again: bool,
    /// The slots of the first time, if MMTk will ask again.
    pub(crate) kept: Vec<Vec<VM::VMSlot>>,
    pub(crate) pinned: Vec<ObjectReference>,
    pub(crate) begun: Instant,
    pub(crate) stopping: Duration,
    pub(crate) roots: Duration,
    pub(crate) verifying: Duration,
    pub(crate) slots: u64,
}

impl<VM: VMBinding> std::fmt::Debug for Stacks<VM> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stacks").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<VM: VMBinding> Stacks<VM> {
    /// See [`connect`](crate::connect).
    pub(crate) fn new(
        runtime: &Arc<Runtime>,
        mmtk: &'static MMTK<VM>,
        options: Options,
        object_of: fn(usize) -> Option<ObjectReference>,
        failed: fn(&ScanError) -> !,
    ) -> Result<Stacks<VM>, AlreadyDriven> {
        let marking = Arc::new(Marking::new(object_of));
        let driver = CycleDriver::new(runtime, marking.clone())?;
        let told = marking.clone();
        let world = World::start(driver, failed, move |marks| told.set_gathering(marks));
        let stacks = Stacks {
            runtime: runtime.clone(),
            mmtk,
            options,
            handles: Handles::new(runtime),
            mutators: Mutators::new(mmtk),
            whole_scans: AtomicBool::new(false),
            world,
            marking,
            round: Mutex::new(Round::new(PauseKind::Whole)),
            fault: Memory::default(),
        };
        if mmtk.get_plan().concurrent().is_some() {
            // A mutator without a thread, by which roots that are found later go to MMTk.
            let own = stacks.mutators.bind() as *mut MachineState<VM>;
            // SAFETY: made just now, and never given back.
            unsafe { stacks.marking.sends_by(own) };
        }
        Ok(stacks)
    }

    /// The runtime.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// MMTk.
    pub fn mmtk(&self) -> &'static MMTK<VM> {
        self.mmtk
    }

    /// References of native code, which are roots.
    pub fn handles(&self) -> &Arc<Handles> {
        &self.handles
    }

    /// How stacks are scanned.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// From the next collection on, pauses visit whole stacks, whatever [`Options`] say, or do what
    /// those say again. To compare the two.
    pub fn set_whole_scans(&self, whole: bool) {
        // Relaxed: a pause that begins meanwhile does the one or the other.
        self.whole_scans.store(whole, Relaxed);
    }

    /// See [`Stacks::set_whole_scans`].
    pub(crate) fn scans_whole(&self) -> bool {
        self.whole_scans.load(Relaxed)
    }

    /// Keeps an object alive that managed code gets by a weak reference while ConcurrentImmix
    /// marks. As `Barrier::load_weak_reference`, which does nothing if its mutator was bound while
    /// MMTk marks. Without effect at other times. Called by native code that managed code has
    /// called.
    pub fn load_weak_reference(&self, _inside: Inside<'_>, object: ObjectReference) {
        self.marking.tell(object);
    }

    /// How many roots were found while the world ran and ConcurrentImmix marked.
    pub fn found_while_marking(&self) -> u64 {
        self.marking.found()
    }

    /// How many pauses there were.
    pub fn pauses(&self) -> u64 {
        self.world.pauses()
    }

    /// Whether the runtime's barriers allow short and incremental scans.
    pub(crate) fn has_barriers(&self) -> bool {
        self.runtime.mode().mode != BarrierMode::Off
    }

    /// Stops the world for a pause of this kind.
    pub(crate) fn stop(&self, kind: PauseKind, stop: Stop) {
        *self.round.lock() = Round::new(kind);
        let is_whole = self.world.stop(stop);
        let mut round = self.round.lock();
        if is_whole {
            round.kind = PauseKind::Whole;
        }
        round.stopping = round.begun.elapsed();
    }

    /// The present pause, for the binding.
    pub(crate) fn pause(&self) -> Pause {
        let generational = self.mmtk.get_plan().generational();
        let nursery = generational.is_some_and(|plan| plan.is_current_gc_nursery());
        let round = self.round.lock();
        Pause {
            kind: round.kind,
            nursery,
            stopping: round.stopping,
            roots: round.roots,
            total: round.begun.elapsed().saturating_sub(round.verifying),
            slots: round.slots,
        }
    }
}

impl<VM: VMBinding> Round<VM> {
    fn new(kind: PauseKind) -> Round<VM> {
        Round {
            kind,
            again: false,
            kept: Vec::new(),
            pinned: Vec::new(),
            begun: Instant::now(),
            stopping: Duration::ZERO,
            roots: Duration::ZERO,
            verifying: Duration::ZERO,
            slots: 0,
        }
    }
}
