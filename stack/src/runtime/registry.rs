//! The goroutines and machines of a runtime.

use super::debug_info::Listing;
use super::machine_entry::MachineEntry;
use super::stats::Counters;
use crate::goroutine::Goroutine;
use crate::memory::{SignalStack, StackError};
use crate::protocol::sync::fence;
use crate::protocol::{Node, SpareList, Status};
use parking_lot::Mutex;
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many of the latest ended records are tried for reuse.
const RECORDS_TRIED: usize = 4;

/// How many records are taken from the registry at once.
const PORTION: usize = 512;

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    /// The number of the runtime. Every record has it.
    runtime: u64,
    /// See [`Goroutine::new`].
    guard: u32,
    /// The records, as debuggers find them. Before `all`, so that it is dropped first.
    listing: Listing,
    machines: Mutex<Vec<Arc<MachineEntry>>>,
    /// Machines made in advance for threads that call in by themselves.
    spare: SpareList<Spare>,
    /// Threads that have called in by themselves and not ended.
    attached: AtomicUsize,
    /// Every record ever made, dead ones too.
    all: Mutex<Vec<Arc<Goroutine>>>,
    /// Records of goroutines that have ended.
    ended: Mutex<Vec<Arc<Goroutine>>>,
    /// Goroutines whose stacks have shrunk and may have kept their pages.
    shrunk: Mutex<Vec<Arc<Goroutine>>>,
    /// The number for the next goroutine. The first has 1, so it tells how many have begun.
    next_id: AtomicU64,
    /// How many goroutines have ended.
    gone: AtomicU64,
}

impl Registry {
    /// An empty registry for the runtime with this number, of whose stacks `guard` bytes stay free.
    pub(crate) fn new(runtime: u64, guard: u32) -> Registry {
        Registry {
            runtime,
            guard,
            listing: Listing::new(runtime),
            machines: Mutex::default(),
            spare: SpareList::new(),
            attached: AtomicUsize::new(0),
            all: Mutex::default(),
            ended: Mutex::default(),
            shrunk: Mutex::default(),
            next_id: AtomicU64::new(1),
            gone: AtomicU64::new(0),
        }
    }

    /// The runtime's number.
    #[inline]
    pub(crate) fn runtime(&self) -> u64 {
        self.runtime
    }

    /// The number for the next goroutine, which begins.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A dead record: one of an ended goroutine to which no handle is left, or a new one.
    pub(crate) fn record(&self) -> Arc<Goroutine> {
        {
            let mut ended = self.ended.lock();
            // Two owners are left: the lists `all` and `ended`. Another thread may still have a
            // handle to a record that ended just now.
            let mut latest = ended.iter().rev().take(RECORDS_TRIED);
            if let Some(back) = latest.position(|g| Arc::strong_count(g) == 2) {
                // Acquire: the count is a relaxed load. The fence pairs with the Release by which
                // the last other handle was dropped: its user is done with the record.
                fence(Ordering::Acquire);
                let at = ended.len() - 1 - back;
                return ended.swap_remove(at);
            }
        }
        let goroutine = Arc::new(Goroutine::new(self.runtime, self.guard));
        let mut all = self.all.lock();
        all.push(goroutine.clone());
        self.listing.add(&goroutine);
        drop(all);
        goroutine
    }

    /// A goroutine has ended. Its record may be reused.
    pub(crate) fn has_ended(&self, goroutine: Arc<Goroutine>) {
        self.count_ended();
        self.ended.lock().push(goroutine);
    }

    /// Counts a goroutine that has ended. Its record stays with its spare machine.
    pub(crate) fn count_ended(&self) {
        // Release: with the end, a reader sees the beginning of what the goroutine has started.
        self.gone.fetch_add(1, Ordering::Release);
    }

    /// The number of goroutines that have begun.
    fn begun(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed) - 1
    }

    /// The number of goroutines that have not ended.
    pub(crate) fn live(&self) -> usize {
        // Before the other: what has ended has begun. Acquire: pairs with `count_ended`.
        let gone = self.gone.load(Ordering::Acquire);
        (self.begun() - gone) as usize
    }

    /// The stack of a goroutine has shrunk in place.
    pub(crate) fn has_shrunk(&self, goroutine: Arc<Goroutine>) {
        self.shrunk.lock().push(goroutine);
    }

    /// Takes the goroutines whose stacks have shrunk in place.
    pub(crate) fn take_shrunk(&self) -> Vec<Arc<Goroutine>> {
        std::mem::take(&mut *self.shrunk.lock())
    }

    /// Every record, dead ones too, in portions: the lock, which spawning also takes, is held
    /// shortly. A record that is made meanwhile comes last.
    pub(crate) fn portions(&self) -> impl Iterator<Item = Vec<Arc<Goroutine>>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let portion: Vec<_> = {
                let all = self.all.lock();
                all[at..].iter().take(PORTION).cloned().collect()
            };
            at += portion.len();
            (!portion.is_empty()).then_some(portion)
        })
    }

    /// The goroutines that have not ended.
    pub(crate) fn goroutines(&self) -> Vec<Arc<Goroutine>> {
        self.portions().flatten().filter(|g| g.status() != Status::Dead).collect()
    }

    /// Every record, at the end of the runtime.
    pub(crate) fn all(&mut self) -> Vec<Arc<Goroutine>> {
        self.all.get_mut().clone()
    }

    /// The machines, spare ones too.
    pub(crate) fn machines(&self) -> Vec<Arc<MachineEntry>> {
        self.machines.lock().clone()
    }

    /// The number of machines, spare ones too.
    pub(crate) fn count_machines(&self) -> usize {
        self.machines.lock().len()
    }

    /// Adds a machine.
    pub(crate) fn add_machine(&self, entry: Arc<MachineEntry>) {
        self.machines.lock().push(entry);
    }

    /// Removes a machine. What it has counted goes to `counters`.
    pub(crate) fn remove_machine(&self, entry: &Arc<MachineEntry>, counters: &Counters) {
        let mut machines = self.machines.lock();
        machines.retain(|machine| !Arc::ptr_eq(machine, entry));
        entry.gather(counters);
    }

    /// Adds what the machines have counted to `counters`, and sets what is counted here.
    pub(crate) fn gather_counts(&self, counters: &Counters) {
        counters.started.store(self.begun(), Ordering::Relaxed);
        self.machines.lock().iter().for_each(|machine| machine.gather(counters));
    }

    /// Takes a spare machine, or makes one if there is none.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`].
    pub(crate) fn take_spare(&self) -> Result<SpareMachine, StackError> {
        match self.spare.take() {
            Some(node) => {
                let spare = SpareMachine(node);
                self.renew_record(&spare);
                Ok(spare)
            }
            None => self.make_spare(),
        }
    }

    /// Gives the spare machine another record if there are handles to the goroutine of the last
    /// thread: they must not refer to the next one's.
    fn renew_record(&self, spare: &SpareMachine) {
        let mut record = spare.spare().goroutine.lock();
        // Two owners are left: the list `all` and the spare machine.
        if Arc::strong_count(&record) > 2 {
            let last = std::mem::replace(&mut *record, self.record());
            self.ended.lock().push(last);
        } else {
            // Acquire: as in `record`.
            fence(Ordering::Acquire);
        }
    }

    /// Makes a spare machine and adds it to the machines.
    fn make_spare(&self) -> Result<SpareMachine, StackError> {
        let signal_stack = SignalStack::in_advance()?;
        let entry = Arc::new(MachineEntry::new());
        let goroutine = self.record();
        let signal_stack = Cell::new(signal_stack);
        let spare = Spare { entry: entry.clone(), goroutine: Mutex::new(goroutine), signal_stack };
        let node = self.spare.make(spare).ok_or_else(|| StackError::OutOfMemory {
            bytes: size_of::<Node<Spare>>(),
            reason: "the address has more than 48 bits".into(),
        })?;
        self.add_machine(entry);
        Ok(SpareMachine(node))
    }

    /// Makes a spare machine if there is none. If there is no memory for it now, the next thread
    /// that calls in makes its own.
    pub(crate) fn replenish_spares(&self) {
        if self.spare.is_empty()
            && let Ok(SpareMachine(node)) = self.make_spare()
        {
            // SAFETY: made just now, and not used yet.
            unsafe { self.spare.give(node) };
        }
    }

    /// Takes a spare machine back: the thread that took it has ended, or could not be attached.
    pub(crate) fn give_spare_back(&self, spare: SpareMachine, signal_stack: Option<SignalStack>) {
        spare.spare().signal_stack.set(signal_stack);
        // SAFETY: the machine is taken, and not used any more: the value is consumed.
        unsafe { self.spare.give(spare.0) };
    }

    /// The number of spare machines made, and the number of those that no thread has taken.
    pub(crate) fn count_spares(&self) -> (usize, usize) {
        self.spare.count()
    }

    /// Counts a thread that has called in by itself and is attached.
    pub(crate) fn thread_attached(&self) {
        self.attached.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a thread that had called in by itself.
    pub(crate) fn thread_ended(&self) {
        self.attached.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number of threads that have called in by themselves and not ended.
    pub(crate) fn attached_threads(&self) -> usize {
        self.attached.load(Ordering::Relaxed)
    }
}

/// What is made in advance for a thread that calls in by itself.
struct Spare {
    entry: Arc<MachineEntry>,
    /// Dead while the machine is spare. Only the thread that has taken the machine uses the lock.
    goroutine: Mutex<Arc<Goroutine>>,
    signal_stack: Cell<Option<SignalStack>>,
}

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spare").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// A spare machine that a thread has taken.
#[derive(Debug)]
pub(crate) struct SpareMachine(NonNull<Node<Spare>>);

impl SpareMachine {
    fn spare(&self) -> &Spare {
        // SAFETY: nodes live as long as the runtime, and this value has taken its node.
        unsafe { &(*self.0.as_ptr()).value }
    }

    /// The machine's entry in the registry.
    pub(crate) fn entry(&self) -> Arc<MachineEntry> {
        self.spare().entry.clone()
    }

    /// The record of the machine's goroutine.
    pub(crate) fn goroutine(&self) -> Arc<Goroutine> {
        self.spare().goroutine.lock().clone()
    }

    /// Takes the alternate signal stack that the machine was made with.
    pub(crate) fn take_signal_stack(&self) -> Option<SignalStack> {
        self.spare().signal_stack.take()
    }
}
