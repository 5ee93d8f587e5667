//! Handles for heaps that move objects: references that native code keeps over safepoints. The
//! collector writes them in the stopped world, as it writes the slots of frames.
//!
//! A heap that does not move has handles of its own, whose stores a write barrier can follow while
//! marking goes on. These have no barrier: a cycle visits them in the stopped world.

use crate::cycle::CycleStopped;
use crate::machine::Inside;
use crate::protocol::sync::Mutex;
use crate::runtime::Runtime;
use crate::scan::RootSlot;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Entries that are made at a time. They stay where they are.
const CHUNK: usize = 64;

/// The handles of one runtime. Any thread may use them.
///
/// References are read and written on threads that count as running, and by the collector in a
/// stopped world. So no two threads have to agree on the moment in which an object moves.
pub struct Handles {
    table: Mutex<Table>,
    /// The number of the runtime.
    runtime: u64,
}

#[derive(Default)]
struct Table {
    /// Relaxed: a thread that counts as running is not there while the collector is. The stop and
    /// the start of the world order the two. Threads that share a handle order their own accesses.
    chunks: Vec<Box<[AtomicUsize]>>,
    /// By entry: whether a handle has it.
    used: Vec<bool>,
    /// The entries that no handle has.
    free: Vec<usize>,
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handles").field("live", &self.live()).finish_non_exhaustive()
    }
}

/// A reference that native code keeps. Its object lives as long as the handle, wherever it moves
/// to. Any thread may drop a handle, at any time.
pub struct Handle {
    handles: Arc<Handles>,
    index: usize,
    /// The entry. The chunks live as long as `handles`, and do not move.
    word: NonNull<AtomicUsize>,
}

// SAFETY: the entry is an atomic word, which lives as long as the `Arc` beside it.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Handles {
    /// No handles.
    pub fn new(runtime: &Runtime) -> Arc<Handles> {
        Arc::new(Handles { table: Mutex::default(), runtime: runtime.id() })
    }

    /// A handle on the object that `reference` refers to, or on none if that is 0. The thread has
    /// counted as running, and has not been at a safepoint, since it got the reference.
    ///
    /// # Panics
    /// If the thread has gone outside since it got `inside`: the object may have moved. If `inside`
    /// is of another runtime.
    pub fn create(self: &Arc<Self>, inside: Inside<'_>, reference: usize) -> Handle {
        self.check(inside);
        let table = &mut *self.table.lock();
        if table.free.is_empty() {
            let first = table.used.len();
            table.chunks.push((0..CHUNK).map(|_| AtomicUsize::new(0)).collect());
            table.used.resize(first + CHUNK, false);
            table.free.extend((first..first + CHUNK).rev());
        }
        let index = table.free.pop().expect("made just now if there was none");
        table.used[index] = true;
        let word = &table.chunks[index / CHUNK][index % CHUNK];
        word.store(reference, Relaxed);
        Handle { handles: Arc::clone(self), index, word: NonNull::from(word) }
    }

    /// How many handles there are.
    pub fn live(&self) -> usize {
        let table = self.table.lock();
        table.used.len() - table.free.len()
    }

    /// Gives the places of the references to `to`, which may write there until the world goes on.
    /// Handles that hold 0 have none.
    ///
    /// # Panics
    /// If the stopped world is another runtime's. In `to`.
    pub fn visit(&self, stopped: &CycleStopped<'_>, to: &dyn Fn(&[RootSlot])) {
        assert_eq!(stopped.runtime().id(), self.runtime, "the handles are of another runtime");
        // Not under the lock: the taker may drop handles.
        self.slots().chunks(CHUNK).for_each(to);
    }

    fn slots(&self) -> Vec<RootSlot> {
        let table = self.table.lock();
        let words = table.chunks.iter().flat_map(|chunk| chunk.iter());
        let used = words.zip(&table.used).filter(|(word, used)| **used && word.load(Relaxed) != 0);
        used.map(|(word, _)| {
            let at = word.as_ptr() as usize;
            RootSlot::Reference { base: at, derived: at }
        })
        .collect()
    }

    fn check(&self, inside: Inside<'_>) {
        assert!(
            inside.is_unbroken(),
            "a handle is used before its thread goes outside: the object may have moved by now"
        );
        assert_eq!(inside.runtime().id(), self.runtime, "the handle is of another runtime");
    }
}

impl Handle {
    /// The reference, which holds until the thread comes to a safepoint or goes outside.
    ///
    /// # Panics
    /// As [`Handles::create`].
    pub fn get(&self, inside: Inside<'_>) -> usize {
        self.handles.check(inside);
        // SAFETY: see the field.
        unsafe { self.word.as_ref() }.load(Relaxed)
    }

    /// Makes it hold another reference, of which [`Handles::create`] says what must be true.
    ///
    /// # Panics
    /// As [`Handles::create`].
    pub fn set(&self, inside: Inside<'_>, reference: usize) {
        self.handles.check(inside);
        // SAFETY: see the field.
        unsafe { self.word.as_ref() }.store(reference, Relaxed);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let table = &mut *self.handles.table.lock();
        // The word stays: a collector that has its place may still write it. A new handle of it
        // comes when the world goes on.
        table.used[self.index] = false;
        table.free.push(self.index);
    }
}
