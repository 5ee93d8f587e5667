//! A heap of MMTk's, as minigo sees it.

use crate::binding::{GLOBALS, Minigo, PAUSES, SLOTS, STACKS};
use crate::objects::{ALIGNMENT, Descriptor, HEADER, initialize, object_at, resolve, with_header};
use minigo::stack::{Caller, Runtime};
use mmtk::memory_manager as mm;
use mmtk::util::alloc::AllocationOptions;
use mmtk::util::opaque_pointer::VMThread;
use mmtk::{AllocationSemantics, MMTKBuilder};
use stackmark_mmtk::{Fault, Options, StackHost, connect, machine};
use std::any::Any;
use std::error::Error;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

/// The plans that programs do not run on, and why.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    ("SemiSpace", MOVES),
    ("GenCopy", MOVES),
    ("GenImmix", MOVES),
    ("MarkCompact", MOVES),
    ("Compressor", MOVES),
    ("StickyImmix", REMEMBERS),
];

const MOVES: &str = "its objects move, and cannot be pinned: references point into objects, C \
    holds addresses, maps have addresses as keys";
const REMEMBERS: &str = "it must hear into which object a reference is stored, and channels and \
    maps report the reference alone";

/// The plans that programs run on.
pub(crate) const PLANS: &[&str] = &["NoGC", "MarkSweep", "Immix", "ConcurrentImmix"];

/// A plan, and how it is set up.
pub(crate) struct Heap {
    pub(crate) plan: &'static str,
    pub(crate) bytes: usize,
    /// A collection after so many bytes, for tests.
    pub(crate) every: Option<usize>,
    /// Whether all roots of stacks are looked at in each collection.
    pub(crate) verify: bool,
    /// For a test of that: a collection gets the slots of the last one.
    pub(crate) keeps_slots: bool,
}

impl Heap {
    fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = vec![
            ("plan", self.plan.to_owned()),
            ("gc_trigger", format!("FixedHeapSize:{}", self.bytes)),
        ];
        if let Some(every) = self.every.filter(|_| self.plan != "NoGC") {
            options.push(("stress_factor", every.to_string()));
            // Where pins are left out, objects move then.
            options.push(("immix_always_defrag", "true".to_owned()));
            options.push(("immix_defrag_every_block", "true".to_owned()));
        }
        options
    }

    fn is_concurrent(&self) -> bool {
        self.plan == "ConcurrentImmix"
    }
}

impl minigo::Heap for Heap {
    fn start(&self, runtime: &Arc<Runtime>) -> Result<(), Box<dyn Error>> {
        let mut builder = MMTKBuilder::new_no_env_vars();
        for (name, value) in self.options() {
            if !builder.set_option(name, &value) {
                return Err(format!("MMTk refuses {name}={value}").into());
            }
        }
        let mmtk: &'static _ = Box::leak(mm::mmtk_init::<Minigo>(&builder));
        let mut options = Options { verify: self.verify || self.keeps_slots, ..Options::default() };
        if self.keeps_slots {
            // SAFETY: verification is on, and ends the process.
            options.fault = unsafe { Fault::kept_slots() };
        }
        let stacks = connect(runtime, mmtk, options)?;
        assert!(STACKS.set(stacks).is_ok(), "a process has one heap");
        mm::initialize_collection(mmtk, VMThread::UNINITIALIZED);
        if !mmtk.get_plan().constraints().collects_garbage {
            // It would end a worker that is asked for one. `allocate` limits its heap.
            mmtk.disable_collection().map_err(|status| format!("MMTk is {status:?}"))?;
        }
        Ok(())
    }

    fn machine_attached(&self) -> usize {
        machine::attach::<Minigo>()
    }

    fn machine_detached(&self, word: usize) {
        // SAFETY: the word of this thread's machine.
        unsafe { machine::detach::<Minigo>(word) };
    }

    fn descriptor(&self, references: &[bool]) -> usize {
        std::ptr::from_ref(Descriptor::of(references)) as usize
    }

    fn allocate(
        &self,
        caller: &Caller<'_>,
        descriptor: usize,
        bytes: usize,
        collects: bool,
    ) -> Result<usize, Box<dyn Error>> {
        let out_of_memory = || format!("out of memory: {bytes} bytes do not fit into the heap");
        // SAFETY: used within this function.
        let mutator = unsafe { machine::mutator::<Minigo>(caller) };
        let size = with_header(bytes).filter(|size| *size <= self.bytes);
        let size = size.ok_or_else(out_of_memory)?;
        let mmtk = Minigo::stacks().mmtk();
        let constraints = mmtk.get_plan().constraints();
        if !constraints.collects_garbage && mm::used_bytes(mmtk) > self.bytes {
            return Err(out_of_memory().into());
        }
        let semantics = match size > constraints.max_non_los_default_alloc_bytes {
            true => AllocationSemantics::Los,
            false => AllocationSemantics::Default,
        };
        // A native that holds references in plain words must not wait for a collection: the next
        // poll does.
        let options = AllocationOptions {
            allow_overcommit: !collects,
            at_safepoint: collects,
            ..AllocationOptions::default()
        };
        let mut at = mm::alloc_with_options(mutator, size, ALIGNMENT, 0, semantics, options);
        if at.is_zero() && collects && constraints.collects_garbage {
            // ConcurrentImmix gives up where marking beside the program is too slow.
            self.collect(caller);
            // SAFETY: as above; the goroutine is still on this thread.
            let mutator = unsafe { machine::mutator::<Minigo>(caller) };
            at = mm::alloc_with_options(mutator, size, ALIGNMENT, 0, semantics, options);
        }
        if at.is_zero() {
            return Err(out_of_memory().into());
        }
        // SAFETY: `descriptor` is of `Heap::descriptor`.
        let descriptor = unsafe { &*(descriptor as *const Descriptor) };
        // SAFETY: memory for the object.
        unsafe { initialize(at, descriptor, bytes) };
        let object = object_at(at.as_usize() + HEADER);
        mm::post_alloc(mutator, object, size, semantics);
        // Where objects move, which plans of the Immix family do if that helps. Others refuse.
        mm::pin_object(object);
        Ok(at.as_usize() + HEADER)
    }

    fn hold(&self, caller: &Caller<'_>, word: usize) -> Box<dyn Any + Send> {
        let inside = caller.inside().expect("natives hold references when they run");
        Box::new(Minigo::stacks().handles().create(inside, word))
    }

    unsafe fn add_globals(&self, words: Range<usize>) {
        GLOBALS.lock().unwrap_or_else(PoisonError::into_inner).push(words);
    }

    fn collect(&self, caller: &Caller<'_>) {
        // SAFETY: the native holds no reference.
        unsafe { machine::collect::<Minigo>(caller) };
    }

    fn reports_stores(&self) -> bool {
        self.is_concurrent()
    }

    /// Marking is from a snapshot: what is overwritten belongs to it. What is stored is as good as
    /// found.
    fn shade(&self, caller: &Caller<'_>, word: usize) {
        if let Some(object) = resolve(word) {
            let inside = caller.inside().expect("a native stores references when it runs");
            Minigo::stacks().load_weak_reference(inside, object);
        }
    }

    fn report(&self) -> String {
        let [pauses, slots] = [&PAUSES, &SLOTS].map(|count| count.load(Relaxed));
        let marking = Minigo::stacks().found_while_marking();
        format!(
            "{}: {pauses} pauses, {slots} slots of stacks, {marking} roots found while marking",
            self.plan
        )
    }
}
