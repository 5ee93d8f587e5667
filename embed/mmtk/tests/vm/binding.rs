//! A binding of MMTk: what is this machine's own, and one line for the rest.

use super::trigger;
use mmtk::util::alloc::AllocationError;
use mmtk::util::copy::{CopySemantics, GCWorkerCopyContext};
use mmtk::util::heap::GCTriggerPolicy;
use mmtk::util::opaque_pointer::VMWorkerThread;
use mmtk::util::{Address, ObjectReference};
use mmtk::vm::slot::UnimplementedMemorySlice;
use mmtk::vm::{
    ObjectModel, ObjectTracerContext, RootsWorkFactory, Scanning, SlotVisitor, VMBinding,
    VMGlobalLogBitSpec, VMLocalForwardingBitsSpec, VMLocalForwardingPointerSpec,
    VMLocalLOSMarkNurserySpec, VMLocalMarkBitSpec,
};
use mmtk::{MMTK, Mutator, scheduler::GCWorker};
use stackmark_mmtk::active_plan::Machines;
use stackmark_mmtk::collection::Pauses;
use stackmark_mmtk::reference_glue::OneSlot;
use stackmark_mmtk::{FromStack, Pause, PauseKind, StackHost, StackSlot, Stacks, scanning};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

#[derive(Default)]
pub(crate) struct TestVm;

pub(crate) static MMTK: OnceLock<&'static MMTK<TestVm>> = OnceLock::new();
pub(crate) static STACKS: OnceLock<Stacks<TestVm>> = OnceLock::new();
/// References of the machine's own.
pub(crate) static GLOBALS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
/// How many objects have moved.
pub(crate) static MOVED: AtomicU64 = AtomicU64::new(0);
/// Whether collections scan stacks whole and as they can, by turns; and whether the next one does.
pub(crate) static ALTERNATES: AtomicBool = AtomicBool::new(false);
static WHOLE: AtomicBool = AtomicBool::new(false);
/// The status that the process ends with when verification has found something.
pub(crate) const FATAL: i32 = 4;
pub(crate) static PAUSES: Mutex<Vec<Pause>> = Mutex::new(Vec::new());

/// An object is a word with this mark, the number of its references, and its bytes; then its
/// references; then numbers.
const MARK: usize = 0x5ac << 52;

pub(crate) fn header(bytes: usize, references: usize) -> usize {
    MARK | references << 32 | bytes
}

fn word(object: ObjectReference) -> usize {
    // SAFETY: the first word of an object.
    unsafe { object.to_raw_address().load() }
}

// ANCHOR: host
impl StackHost for TestVm {
    fn stacks() -> &'static Stacks<TestVm> {
        STACKS.get().expect("made before MMTk collects")
    }
    fn is_object(object: ObjectReference) -> bool {
        object.is_in_any_space() && word(object) >> 52 == MARK >> 52
    }
    fn referent(reference: ObjectReference) -> StackSlot {
        // SAFETY: the word behind a weak reference's header.
        unsafe { StackSlot::plain(reference.to_raw_address().as_usize() + 8) }
    }
    fn out_of_memory(error: AllocationError) {
        eprintln!("out of memory: {error:?}");
        std::process::exit(3);
    }
    fn trigger() -> Box<dyn GCTriggerPolicy<TestVm>> {
        Box::new(trigger::Often)
    }
    fn paused(pause: &Pause) {
        PAUSES.lock().expect("no panic").push(*pause);
        let stacks = TestVm::stacks();
        // A collection in two pauses ends with the second.
        let marks_beside = stacks.mmtk().get_plan().concurrent().is_some();
        let ends = !marks_beside || pause.kind == PauseKind::FinalMark;
        if ALTERNATES.load(Relaxed) && ends {
            let before = WHOLE.fetch_xor(true, Relaxed);
            stacks.set_whole_scans(!before);
        }
    }
    fn fatal(error: &dyn Display) -> ! {
        eprintln!("{error}, in pause {}", TestVm::stacks().pauses() + 1);
        std::process::exit(FATAL);
    }
}
// ANCHOR_END: host

// ANCHOR: binding
impl VMBinding for TestVm {
    type VMObjectModel = TestVm;
    type VMScanning = TestVm;
    type VMCollection = Pauses<TestVm>;
    type VMActivePlan = Machines<TestVm>;
    type VMReferenceGlue = OneSlot<TestVm>;
    type VMSlot = StackSlot;
    type VMMemorySlice = UnimplementedMemorySlice<StackSlot>;
    const ALIGNMENT_VALUE: u8 = 0;
    const MIN_ALIGNMENT: usize = 8;
    const MAX_ALIGNMENT: usize = 16;
    const USE_ALLOCATION_OFFSET: bool = false;
}
// ANCHOR_END: binding

// ANCHOR: scanning
impl Scanning<TestVm> for TestVm {
    fn scan_object<V: SlotVisitor<StackSlot>>(
        _: VMWorkerThread,
        object: ObjectReference,
        visitor: &mut V,
    ) {
        let references = word(object) >> 32 & 0xffff;
        for index in 1..=references {
            // SAFETY: a word of the object that is a reference.
            visitor.visit_slot(unsafe {
                StackSlot::plain(object.to_raw_address().as_usize() + 8 * index)
            });
        }
    }
    fn notify_initial_thread_scan_complete(_partial: bool, _: VMWorkerThread) {}
    fn scan_roots_in_mutator_thread(
        _: VMWorkerThread,
        _: &'static mut Mutator<TestVm>,
        _: impl RootsWorkFactory<StackSlot>,
    ) {
    }
    fn scan_vm_specific_roots(_: VMWorkerThread, mut factory: impl RootsWorkFactory<StackSlot>) {
        // SAFETY: words that live as long as the process.
        let own = GLOBALS.iter().map(|word| unsafe { StackSlot::plain(word.as_ptr() as usize) });
        factory.create_process_roots_work(own.collect());
        scanning::scan_stacks::<TestVm>(factory);
    }
    fn supports_return_barrier() -> bool {
        scanning::supports_return_barrier::<TestVm>()
    }
    fn prepare_for_roots_re_scanning() {
        scanning::prepare_for_roots_re_scanning::<TestVm>();
    }
    fn process_weak_refs(_: &mut GCWorker<TestVm>, _: impl ObjectTracerContext<TestVm>) -> bool {
        scanning::check_roots::<TestVm>();
        false
    }
}
// ANCHOR_END: scanning

impl ObjectModel<TestVm> for TestVm {
    const GLOBAL_LOG_BIT_SPEC: VMGlobalLogBitSpec = VMGlobalLogBitSpec::side_first();
    const LOCAL_FORWARDING_POINTER_SPEC: VMLocalForwardingPointerSpec =
        VMLocalForwardingPointerSpec::in_header(0);
    const LOCAL_FORWARDING_BITS_SPEC: VMLocalForwardingBitsSpec =
        VMLocalForwardingBitsSpec::side_first();
    const LOCAL_MARK_BIT_SPEC: VMLocalMarkBitSpec =
        VMLocalMarkBitSpec::side_after(Self::LOCAL_FORWARDING_BITS_SPEC.as_spec());
    const LOCAL_LOS_MARK_NURSERY_SPEC: VMLocalLOSMarkNurserySpec =
        VMLocalLOSMarkNurserySpec::side_after(Self::LOCAL_MARK_BIT_SPEC.as_spec());
    const UNIFIED_OBJECT_REFERENCE_ADDRESS: bool = true;
    const OBJECT_REF_OFFSET_LOWER_BOUND: isize = 0;

    fn copy(
        from: ObjectReference,
        semantics: CopySemantics,
        context: &mut GCWorkerCopyContext<TestVm>,
    ) -> ObjectReference {
        let bytes = Self::get_current_size(from);
        let to = context.alloc_copy(from, bytes, 8, 0, semantics);
        // SAFETY: MMTk has made room for the object.
        unsafe {
            std::ptr::copy_nonoverlapping::<u8>(
                from.to_raw_address().to_ptr(),
                to.to_mut_ptr(),
                bytes,
            );
        }
        let to = ObjectReference::from_raw_address(to).expect("an object");
        context.post_copy(to, bytes, semantics);
        MOVED.fetch_add(1, Relaxed);
        to
    }
    fn copy_to(from: ObjectReference, to: ObjectReference, _region: Address) -> Address {
        let bytes = Self::get_current_size(from);
        // SAFETY: as above. The two may overlap.
        unsafe {
            std::ptr::copy::<u8>(
                from.to_raw_address().to_ptr(),
                to.to_raw_address().to_mut_ptr(),
                bytes,
            );
        }
        MOVED.fetch_add(u64::from(from != to), Relaxed);
        to.to_raw_address() + bytes
    }
    fn get_reference_when_copied_to(_: ObjectReference, to: Address) -> ObjectReference {
        ObjectReference::from_raw_address(to).expect("an object")
    }
    fn get_current_size(object: ObjectReference) -> usize {
        word(object) & 0xffff_ffff
    }
    fn get_size_when_copied(object: ObjectReference) -> usize {
        Self::get_current_size(object)
    }
    fn get_align_when_copied(_: ObjectReference) -> usize {
        8
    }
    fn get_align_offset_when_copied(_: ObjectReference) -> usize {
        0
    }
    fn get_type_descriptor(_: ObjectReference) -> &'static [i8] {
        unreachable!("MMTk asks for none")
    }
    fn ref_to_object_start(object: ObjectReference) -> Address {
        object.to_raw_address()
    }
    fn ref_to_header(object: ObjectReference) -> Address {
        object.to_raw_address()
    }
    fn dump_object(object: ObjectReference) {
        eprintln!("{object} {:#x}", word(object));
    }
}
