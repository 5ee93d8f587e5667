//! The binding: what MMTk asks of minigo.

use crate::objects::{self, ALIGNMENT, HEADER, InteriorSlot};
use mmtk::Mutator;
use mmtk::scheduler::GCWorker;
use mmtk::util::alloc::AllocationError;
use mmtk::util::copy::{CopySemantics, GCWorkerCopyContext};
use mmtk::util::opaque_pointer::VMWorkerThread;
use mmtk::util::{Address, ObjectReference};
use mmtk::vm::slot::UnimplementedMemorySlice;
use mmtk::vm::{
    ObjectModel, ObjectTracerContext, RootsWorkFactory, Scanning, SlotVisitor, VMBinding,
    VMGlobalLogBitSpec, VMLocalForwardingBitsSpec, VMLocalForwardingPointerSpec,
    VMLocalLOSMarkNurserySpec, VMLocalMarkBitSpec, VMLocalPinningBitSpec,
};
use stackmark_mmtk::active_plan::Machines;
use stackmark_mmtk::collection::Pauses;
use stackmark_mmtk::reference_glue::OneSlot;
use stackmark_mmtk::{FromStack, Pause, StackHost, Stacks, scanning};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

#[derive(Default)]
pub(crate) struct Minigo;

pub(crate) static STACKS: OnceLock<Stacks<Minigo>> = OnceLock::new();
/// Words outside of the heap that may refer to objects.
pub(crate) static GLOBALS: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());
/// How many pauses there were, and how many slots of stacks.
pub(crate) static PAUSES: AtomicUsize = AtomicUsize::new(0);
pub(crate) static SLOTS: AtomicUsize = AtomicUsize::new(0);

impl StackHost for Minigo {
    fn stacks() -> &'static Stacks<Minigo> {
        STACKS.get().expect("made before MMTk collects")
    }
    fn ambiguous(word: usize) -> Option<ObjectReference> {
        objects::resolve(word)
    }
    fn object_of(word: usize) -> Option<ObjectReference> {
        objects::resolve(word)
    }
    /// Words that may be references are also numbers, and addresses of constants.
    fn is_no_reference(word: usize) -> bool {
        !objects::is_in_heap(word)
    }
    /// The allocation returns null then, and the program ends with an error.
    fn out_of_memory(_: AllocationError) {}
    fn paused(pause: &Pause) {
        PAUSES.fetch_add(1, Relaxed);
        SLOTS.fetch_add(pause.slots as usize, Relaxed);
    }
}

impl VMBinding for Minigo {
    type VMObjectModel = Minigo;
    type VMScanning = Minigo;
    type VMCollection = Pauses<Minigo>;
    type VMActivePlan = Machines<Minigo>;
    type VMReferenceGlue = OneSlot<Minigo>;
    type VMSlot = InteriorSlot;
    type VMMemorySlice = UnimplementedMemorySlice<InteriorSlot>;
    const ALIGNMENT_VALUE: u8 = 0;
    const MIN_ALIGNMENT: usize = 8;
    const MAX_ALIGNMENT: usize = ALIGNMENT;
    const USE_ALLOCATION_OFFSET: bool = false;
}

impl Scanning<Minigo> for Minigo {
    fn scan_object<V: SlotVisitor<InteriorSlot>>(
        _: VMWorkerThread,
        object: ObjectReference,
        visitor: &mut V,
    ) {
        objects::references(object, |slot| visitor.visit_slot(slot));
    }
    fn notify_initial_thread_scan_complete(_partial: bool, _: VMWorkerThread) {}
    fn scan_roots_in_mutator_thread(
        _: VMWorkerThread,
        _: &'static mut Mutator<Minigo>,
        _: impl RootsWorkFactory<InteriorSlot>,
    ) {
    }
    fn scan_vm_specific_roots(_: VMWorkerThread, mut factory: impl RootsWorkFactory<InteriorSlot>) {
        let globals = GLOBALS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let words = globals.into_iter().flat_map(|words| words.step_by(size_of::<usize>()));
        // SAFETY: words that live as long as the process.
        factory.create_process_roots_work(
            words.map(|at| unsafe { InteriorSlot::plain(at) }).collect(),
        );
        scanning::scan_stacks::<Minigo>(factory);
    }
    fn supports_return_barrier() -> bool {
        scanning::supports_return_barrier::<Minigo>()
    }
    fn prepare_for_roots_re_scanning() {
        scanning::prepare_for_roots_re_scanning::<Minigo>();
    }
    fn process_weak_refs(_: &mut GCWorker<Minigo>, _: impl ObjectTracerContext<Minigo>) -> bool {
        scanning::check_roots::<Minigo>();
        false
    }
}

impl ObjectModel<Minigo> for Minigo {
    const GLOBAL_LOG_BIT_SPEC: VMGlobalLogBitSpec = VMGlobalLogBitSpec::side_first();
    const LOCAL_FORWARDING_POINTER_SPEC: VMLocalForwardingPointerSpec =
        VMLocalForwardingPointerSpec::in_header(0);
    const LOCAL_FORWARDING_BITS_SPEC: VMLocalForwardingBitsSpec =
        VMLocalForwardingBitsSpec::side_first();
    const LOCAL_MARK_BIT_SPEC: VMLocalMarkBitSpec =
        VMLocalMarkBitSpec::side_after(Self::LOCAL_FORWARDING_BITS_SPEC.as_spec());
    const LOCAL_PINNING_BIT_SPEC: VMLocalPinningBitSpec =
        VMLocalPinningBitSpec::side_after(Self::LOCAL_MARK_BIT_SPEC.as_spec());
    const LOCAL_LOS_MARK_NURSERY_SPEC: VMLocalLOSMarkNurserySpec =
        VMLocalLOSMarkNurserySpec::side_after(Self::LOCAL_PINNING_BIT_SPEC.as_spec());
    const NEED_VO_BITS_DURING_TRACING: bool = true;
    const UNIFIED_OBJECT_REFERENCE_ADDRESS: bool = false;
    const OBJECT_REF_OFFSET_LOWER_BOUND: isize = HEADER as isize;

    fn copy(
        object: ObjectReference,
        _: CopySemantics,
        _: &mut GCWorkerCopyContext<Minigo>,
    ) -> ObjectReference {
        Minigo::fatal(&format_args!("{object} is pinned, and MMTk moves it"))
    }
    fn copy_to(object: ObjectReference, _: ObjectReference, _: Address) -> Address {
        Minigo::fatal(&format_args!("{object} is not to move"))
    }
    fn get_reference_when_copied_to(_: ObjectReference, to: Address) -> ObjectReference {
        objects::object_at(to.as_usize() + HEADER)
    }
    fn get_current_size(object: ObjectReference) -> usize {
        objects::size(object)
    }
    fn get_size_when_copied(object: ObjectReference) -> usize {
        objects::size(object)
    }
    fn get_align_when_copied(_: ObjectReference) -> usize {
        ALIGNMENT
    }
    fn get_align_offset_when_copied(_: ObjectReference) -> usize {
        0
    }
    fn get_type_descriptor(_: ObjectReference) -> &'static [i8] {
        unreachable!("MMTk asks for none")
    }
    fn ref_to_object_start(object: ObjectReference) -> Address {
        object.to_raw_address() - HEADER
    }
    fn ref_to_header(object: ObjectReference) -> Address {
        object.to_raw_address() - HEADER
    }
    fn dump_object(object: ObjectReference) {
        eprintln!("{object}, {} bytes", objects::size(object));
    }
}
