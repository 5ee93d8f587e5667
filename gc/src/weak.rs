//! Weak references, finalisation callbacks and weak maps: what native code knows of objects without
//! keeping them alive.
//!
//! All of it lies in one table behind one lock. When marking is complete and the world is stopped,
//! the collector takes the lock, traces the values of weak maps whose keys are marked, again and
//! again until there are none left (Hayes, "Ephemerons: a new finalization mechanism", 1997),
//! clears what refers to unmarked objects, and makes handles of the objects whose callbacks are
//! due. Whoever gets a reference out of the table does so under the lock, and shades it while
//! marking runs: so either marking sees it, or it is gone.
//!
//! Weak references to an object are cleared before its callback runs, as in Java and in Go; an
//! object that its callback makes reachable again has no callback any more. The time that the world
//! is stopped for this grows with the number of entries in the table, not with the heap.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::handle::{Handle, Handles};
use crate::write_barrier::WriteBarrier;

/// What is called with an object that became unreachable. See [`WeakReferences::on_unreachable`].
pub type Callback = Box<dyn FnOnce(Handle) + Send>;

/// The weak references of one collector.
pub struct WeakReferences {
    table: Mutex<Table>,
    handles: Arc<Handles>,
    barrier: Arc<WriteBarrier>,
}

impl std::fmt::Debug for WeakReferences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let table = self.table.lock();
        let counts =
            (table.references.len() - table.free.len(), table.callbacks.len(), table.maps.len());
        f.debug_struct("WeakReferences")
            .field("references_callbacks_maps", &counts)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Table {
    /// Words; 0 where there is none, or where the object is gone.
    references: Vec<usize>,
    free: Vec<usize>,
    callbacks: Vec<(usize, Callback)>,
    /// By number: entries by the word of their key.
    maps: HashMap<u64, HashMap<usize, usize>>,
    next_map: u64,
}

/// A reference that does not keep its object alive.
pub struct WeakReference {
    owner: Arc<WeakReferences>,
    index: usize,
}

/// A map from objects to words. An entry keeps its key alive no more than a weak reference would,
/// and its value only as long as the key is alive, also where the value refers to the key. Keys are
/// compared as words.
pub struct WeakMap {
    owner: Arc<WeakReferences>,
    number: u64,
}

impl std::fmt::Debug for WeakReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WeakReference")
            .field(&format_args!("{:#x}", self.owner.table.lock().references[self.index]))
            .finish()
    }
}

impl std::fmt::Debug for WeakMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeakMap").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl WeakReferences {
    pub(crate) fn new(handles: Arc<Handles>, barrier: Arc<WriteBarrier>) -> Arc<WeakReferences> {
        Arc::new(WeakReferences { table: Mutex::default(), handles, barrier })
    }

    /// A weak reference to the object that `word` points to or into. The caller's goroutine is
    /// Running, or `word` comes from a handle that it holds: otherwise the object may be gone
    /// already.
    pub fn create(self: &Arc<Self>, word: usize) -> WeakReference {
        let mut table = self.table.lock();
        let index = table.free.pop().unwrap_or(table.references.len());
        if index == table.references.len() {
            table.references.push(0);
        }
        table.references[index] = word;
        WeakReference { owner: Arc::clone(self), index }
    }

    /// Has `callback` called once, when the object that `word` points to or into has become
    /// unreachable but for weak references: by the collector's thread, after the cycle that has
    /// found that, with a handle that keeps the object and everything that it refers to. The
    /// callback should be short, and must not wait for a collection. See [`WeakReferences::create`]
    /// about `word`.
    pub fn on_unreachable(&self, word: usize, callback: impl FnOnce(Handle) + Send + 'static) {
        self.table.lock().callbacks.push((word, Box::new(callback)));
    }

    /// A weak map without entries.
    pub fn map(self: &Arc<Self>) -> WeakMap {
        let mut table = self.table.lock();
        let number = table.next_map;
        table.next_map += 1;
        table.maps.insert(number, HashMap::new());
        WeakMap { owner: Arc::clone(self), number }
    }

    fn shade(&self, word: usize) {
        if self.barrier.is_marking() {
            self.barrier.shade(word);
        }
    }

    /// Shades the values of entries whose keys are marked; whether there were any that were not.
    pub(crate) fn shade_values(&self, marked: impl Fn(usize) -> bool) -> bool {
        self.table.lock().shade_values(&marked, |word| self.barrier.shade(word))
    }

    /// Marking is complete but for what lies in the table, and the world is stopped. Traces and
    /// clears, see the module. `marked` tells whether what a word refers to is marked or no object
    /// at all; `drain` traces what has been shaded. Returns the callbacks that are due.
    pub(crate) fn settle(
        &self,
        marked: impl Fn(usize) -> bool,
        mut drain: impl FnMut(),
    ) -> Vec<(Handle, Callback)> {
        let mut table = self.table.lock();
        // Somebody in native code may have taken a reference out of the table until just now.
        drain();
        let trace_values = |table: &Table, drain: &mut dyn FnMut()| {
            while table.shade_values(&marked, |word| self.barrier.shade(word)) {
                drain();
            }
        };
        trace_values(&table, &mut drain);
        for word in &mut table.references {
            if !marked(*word) {
                *word = 0;
            }
        }
        let mut due = Vec::new();
        // All are found before the first is shaded: an object that another due one refers to is due
        // too.
        let (alive, dead) =
            std::mem::take(&mut table.callbacks).into_iter().partition(|(word, _)| marked(*word));
        table.callbacks = alive;
        let dead: Vec<(usize, Callback)> = dead;
        for (word, callback) in dead {
            // Shades it: the barrier is on.
            due.push((self.handles.create(word), callback));
        }
        drain();
        trace_values(&table, &mut drain);
        for map in table.maps.values_mut() {
            map.retain(|key, _| marked(*key));
        }
        due
    }

    /// The values of all maps, for verification.
    pub(crate) fn visit_values(&self, mut visit: impl FnMut(usize)) {
        self.table.lock().maps.values().flat_map(HashMap::values).for_each(|word| visit(*word));
    }
}

impl Table {
    fn shade_values(&self, marked: &impl Fn(usize) -> bool, shade: impl Fn(usize)) -> bool {
        let mut any = false;
        for (key, value) in self.maps.values().flatten() {
            if marked(*key) && !marked(*value) {
                shade(*value);
                any = true;
            }
        }
        any
    }
}

impl WeakReference {
    /// The word, or `None` if the object is gone. The caller's goroutine is Running; other threads
    /// use [`WeakReference::upgrade`].
    pub fn get(&self) -> Option<usize> {
        let table = self.owner.table.lock();
        let word = table.references[self.index];
        self.owner.shade(word);
        (word != 0).then_some(word)
    }

    /// A handle on the object, or `None` if it is gone. From any thread.
    pub fn upgrade(&self) -> Option<Handle> {
        let table = self.owner.table.lock();
        let word = table.references[self.index];
        // Under the lock, so that the table is not settled meanwhile.
        (word != 0).then(|| self.owner.handles.create(word))
    }
}

impl Drop for WeakReference {
    fn drop(&mut self) {
        let mut table = self.owner.table.lock();
        table.references[self.index] = 0;
        table.free.push(self.index);
    }
}

impl WeakMap {
    /// Adds or replaces an entry. The caller's goroutine is Running, or both words come from
    /// handles that it holds.
    pub fn insert(&self, key: usize, value: usize) {
        let mut table = self.owner.table.lock();
        // Shaded whether the key is marked or not: a cycle that runs keeps it, the next one may
        // not.
        self.owner.shade(value);
        table.maps.get_mut(&self.number).expect("as long as its owner").insert(key, value);
    }

    /// The value of a key. The caller's goroutine is Running.
    pub fn get(&self, key: usize) -> Option<usize> {
        let table = self.owner.table.lock();
        let value = table.maps[&self.number].get(&key).copied();
        value.inspect(|word| self.owner.shade(*word))
    }

    /// Takes an entry out; tells its value. The caller's goroutine is Running.
    pub fn remove(&self, key: usize) -> Option<usize> {
        let mut table = self.owner.table.lock();
        let value = table.maps.get_mut(&self.number).and_then(|map| map.remove(&key));
        value.inspect(|word| self.owner.shade(*word))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.owner.table.lock().maps[&self.number].len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for WeakMap {
    fn drop(&mut self) {
        self.owner.table.lock().maps.remove(&self.number);
    }
}
