//! Roots that are found after the first pause of ConcurrentImmix.
//!
//! MMTk marks from a snapshot: what managed code overwrites goes to MMTk by the mutators' buffers.
//! A frame that is visited later belongs to the same snapshot, since its goroutine has not run it
//! before. MMTk has no call that takes roots after the first pause. It has one that takes the
//! referent of a weak reference when a mutator loads it, into a buffer of the mutator: that buffer,
//! of a mutator without a thread, is what roots go to here.

use crate::mutators::MachineState;
use mmtk::util::ObjectReference;
use mmtk::vm::VMBinding;
use parking_lot::Mutex;
use stackmark_stack::RootSink;
use std::ptr::NonNull;

/// Takes the roots of stacks as words, while ConcurrentImmix marks.
pub(crate) struct Marking<VM: VMBinding> {
    object_of: fn(usize) -> Option<ObjectReference>,
    state: Mutex<State<VM>>,
}

struct State<VM: VMBinding> {
    phase: Phase,
    /// The mutator without a thread.
    sends_by: Option<NonNull<MachineState<VM>>>,
    found: u64,
}

// SAFETY: the mutator is used under the lock of `Marking`, and by MMTk in pauses, in which no roots
// come: see `Marking::sends_by`.
unsafe impl<VM: VMBinding> Send for State<VM> {}

enum Phase {
    /// No root is needed.
    Idle,
    /// In the first pause: MMTk's factory takes them together.
    Gathering(Vec<ObjectReference>),
    /// The world runs, and MMTk marks.
    Running,
}

impl<VM: VMBinding> Marking<VM> {
    pub(crate) fn new(object_of: fn(usize) -> Option<ObjectReference>) -> Marking<VM> {
        let state = State { phase: Phase::Idle, sends_by: None, found: 0 };
        Marking { object_of, state: Mutex::new(state) }
    }

    /// Roots go to MMTk by the buffer of this mutator.
    ///
    /// # Safety
    /// It lives as long as the process, and MMTk alone uses it besides, in pauses, after
    /// `Collection::stop_all_mutators` has begun to visit the mutators.
    pub(crate) unsafe fn sends_by(&self, mutator: *mut MachineState<VM>) {
        self.state.lock().sends_by = NonNull::new(mutator);
    }

    /// The first pause is about to begin, or the last one ends.
    pub(crate) fn set_gathering(&self, gathering: bool) {
        self.state.lock().phase =
            if gathering { Phase::Gathering(Vec::new()) } else { Phase::Idle };
    }

    /// What has been found in the first pause.
    pub(crate) fn take_gathered(&self) -> Vec<ObjectReference> {
        match &mut self.state.lock().phase {
            Phase::Gathering(objects) => std::mem::take(objects),
            Phase::Idle | Phase::Running => Vec::new(),
        }
    }

    /// MMTk marks from now on. To be called before it resumes, since its workers visit stacks at
    /// once, and after it has ended the first pause, since before that it takes no roots this way.
    pub(crate) fn run(&self) {
        self.state.lock().phase = Phase::Running;
    }

    /// Hands what has been found to MMTk's workers, not at the end, but now.
    pub(crate) fn flush(&self) {
        let state = &mut *self.state.lock();
        if let (Phase::Running, Some(own)) = (&state.phase, &mut state.sends_by) {
            // SAFETY: see `sends_by`; the world runs, or is about to be stopped for the last pause.
            unsafe { own.as_mut() }.mutator.barrier.flush();
        }
    }

    /// Tells MMTk of an object. To be called where the world does not stop.
    pub(crate) fn tell(&self, object: ObjectReference) {
        let state = &mut *self.state.lock();
        if let (Phase::Running, Some(own)) = (&state.phase, &mut state.sends_by) {
            // SAFETY: see `sends_by`; the world runs.
            unsafe { own.as_mut() }.mutator.barrier.load_weak_reference(object);
        }
    }

    /// How many roots were found while the world ran.
    pub(crate) fn found(&self) -> u64 {
        self.state.lock().found
    }
}

impl<VM: VMBinding> RootSink for Marking<VM> {
    fn roots(&self, words: &[usize]) {
        let objects = words.iter().filter_map(|word| (self.object_of)(*word));
        let state = &mut *self.state.lock();
        match &mut state.phase {
            Phase::Gathering(gathered) => gathered.extend(objects),
            Phase::Running => {
                let own = state.sends_by.as_mut().expect("a concurrent plan has one");
                // SAFETY: see `sends_by`: roots come while the world runs, and from the thread that
                // stops it, before MMTk visits the mutators.
                let barrier = &mut unsafe { own.as_mut() }.mutator.barrier;
                for object in objects {
                    barrier.load_weak_reference(object);
                    state.found += 1;
                }
            }
            // A collection of slots has begun, and the world has not stopped yet: what native code
            // hands to goroutines by then is visited in its place.
            Phase::Idle => {}
        }
    }
}
