//! Weak references, finalisation callbacks and weak maps: native code knows objects through them
//! without keeping the objects alive.
//!
//! All of it lies in one table behind one lock. When marking is complete and the world is stopped,
//! the collector takes the lock. It traces the values of weak maps whose keys are marked, again and
//! again until there are none left (Hayes, "Ephemerons: a new finalization mechanism", 1997). From
//! then on marks say which objects are gone. It clears what refers to unmarked objects, and makes
//! handles of the objects whose callbacks are due. A thread that gets a reference out of the table
//! does so under the lock, and shades it while marking runs. So either marking sees the reference,
//! or it is gone.
//!
//! With many entries the world runs again meanwhile (`WeakReferences::is_large`): it stops once
//! more before the heap condemns what is unmarked. What goroutines have by then is marked, and so
//! is all that they can come to without the table. Invariants:
//!
//! 1. *Held*: the lock is taken in the stopped world, and kept until the values of live keys are
//!    traced. A goroutine that got one before could take its only reference to a third object out
//!    of it, before it is traced. So who asks the table waits that long.
//! 2. *Looked at*: while entries are cleared (`Table::is_clearing`), who asks gets no unmarked
//!    object, whether its entry has come up or not.
//! 3. *Cleared first*: objects whose callbacks are due are marked when no weak reference to them is
//!    left. No goroutine can come to them before their callbacks are called.
//!
//! Weak references to an object are cleared before its callback runs, as in Java and in Go. An
//! object that its callback makes reachable again has no callback any more.

use std::collections::HashMap;
use std::sync::Arc;
// No model runs what it decides.
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use stackmark_stack::sync::{LeftOut, Mutex, MutexGuard, left_out};

use crate::handle::{Handle, Handles};
use crate::write_barrier::WriteBarrier;

/// Called with an object that became unreachable. See [`WeakReferences::on_unreachable`].
pub(crate) type Callback = Box<dyn FnOnce(Handle) + Send>;

/// So many entries are cleared in the stopped world at most. That takes some microseconds, as long
/// as it takes to stop the world once more.
const MOST_STOPPED: usize = 512;

/// So many references are looked at under one lock.
#[cfg(not(stackmark_loom))]
const PORTION: usize = 1024;
/// A model has few references.
#[cfg(stackmark_loom)]
const PORTION: usize = 1;

/// The weak references, callbacks and weak maps of one collector.
pub struct WeakReferences {
    table: Mutex<Table>,
    handles: Arc<Handles>,
    barrier: Arc<WriteBarrier>,
    /// Any number of entries is many. Relaxed: it is set before anything is in the table.
    always_large: AtomicBool,
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
    /// Words; 0 in free entries, and where the object is gone.
    references: Vec<usize>,
    free: Vec<usize>,
    callbacks: Vec<(usize, Callback)>,
    /// The maps, by number. Each maps words of keys to words of values.
    maps: HashMap<u64, HashMap<usize, usize>>,
    next_map: u64,
    /// Unmarked objects are gone, though entries may still refer to them.
    is_clearing: bool,
}

/// The table, locked when marking was complete. Nothing is taken out of it meanwhile.
pub(crate) struct Held<'w>(MutexGuard<'w, Table>);

/// A reference that does not keep its object alive. Any thread may hold and drop it.
pub struct WeakReference {
    owner: Arc<WeakReferences>,
    index: usize,
}

/// A map from objects to words. An entry does not keep its key alive. It keeps its value alive as
/// long as the key is alive, and no longer if the value refers to the key. Keys are compared as
/// words. Any thread may hold and drop the map.
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
        Arc::new(WeakReferences {
            table: Mutex::default(),
            handles,
            barrier,
            always_large: AtomicBool::new(false),
        })
    }

    /// A weak reference to the object that `word` points to or into. The caller's goroutine is
    /// Running, or the caller holds a handle on the object: otherwise the object may be gone
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
    /// unreachable but for weak references. The collector's thread calls it, after the cycle that
    /// has found that. Its argument is a handle, which keeps the object and everything that it
    /// refers to. The callback is short, and may not wait for a
    /// collection. A panic in it ends the process. What
    /// [`WeakReferences::create`] says of `word` holds here too.
    pub fn on_unreachable(&self, word: usize, callback: impl FnOnce(Handle) + Send + 'static) {
        self.table.lock().callbacks.push((word, Box::new(callback)));
    }

    /// A new, empty weak map.
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

    /// Shades the unmarked values of entries whose keys are marked. Returns whether there were any.
    pub(crate) fn shade_values(&self, marked: impl Fn(usize) -> bool) -> bool {
        self.table.lock().shade_values(&marked, |word| self.barrier.shade(word))
    }

    /// Whether there are so many entries that the world should not wait until they are cleared.
    pub(crate) fn is_large(&self) -> bool {
        let most = if self.always_large.load(Relaxed) { 0 } else { MOST_STOPPED };
        let table = self.table.lock();
        let mut entries = table.references.len() + table.callbacks.len();
        let mut maps = table.maps.values();
        while entries <= most
            && let Some(map) = maps.next()
        {
            entries += 1 + map.len();
        }
        entries > most
    }

    /// Counts any number of entries as many. For tests.
    #[doc(hidden)]
    pub fn count_as_large(&self) {
        self.always_large.store(true, Relaxed);
    }

    /// Holds and clears the table in one stopped world: see [`hold`](WeakReferences::hold) and
    /// [`clear`](WeakReferences::clear).
    pub(crate) fn process(
        &self,
        marked: impl Fn(usize) -> bool,
        mut drain: impl FnMut(),
    ) -> Vec<(Handle, Callback)> {
        self.clear(self.hold(&mut drain), marked, drain)
    }

    /// Locks the table. Marking is complete but for it, and the world is stopped. `drain` traces
    /// what has been shaded.
    pub(crate) fn hold(&self, mut drain: impl FnMut()) -> Held<'_> {
        let table = self.table.lock();
        // Threads in native code may have taken references out of the table before it was locked.
        drain();
        Held(table)
    }

    /// Traces and clears, as the module says, and returns the callbacks that are due. The world may
    /// run again. `marked` says whether a word refers to a marked object or to none; `drain` traces
    /// what has been shaded.
    pub(crate) fn clear(
        &self,
        held: Held<'_>,
        marked: impl Fn(usize) -> bool,
        mut drain: impl FnMut(),
    ) -> Vec<(Handle, Callback)> {
        let mut table = held.0;
        if left_out(LeftOut::TableHeld) {
            drop(table);
            table = self.table.lock();
        }
        table.trace_values(&marked, |word| self.barrier.shade(word), &mut drain);
        table.is_clearing = true;
        drop(table);
        self.clear_references(&marked);
        // All dead objects are found before the first is shaded: one that another refers to is due
        // as well.
        let callbacks = std::mem::take(&mut self.table.lock().callbacks);
        let (alive, dead): (Vec<_>, Vec<_>) =
            callbacks.into_iter().partition(|(word, _)| marked(*word));
        // `create` shades the object: the barrier is on.
        let due = dead.into_iter().map(|(word, callback)| (self.handles.create(word), callback));
        let due: Vec<_> = due.collect();
        drain();
        let mut table = self.table.lock();
        let new = std::mem::replace(&mut table.callbacks, alive);
        table.callbacks.extend(new);
        table.trace_values(&marked, |word| self.barrier.shade(word), &mut drain);
        for map in table.maps.values_mut() {
            map.retain(|key, _| marked(*key));
        }
        table.is_clearing = false;
        due
    }

    fn clear_references(&self, marked: &impl Fn(usize) -> bool) {
        let mut from = 0;
        loop {
            // Each portion under a lock of its own: threads that ask wait for a few microseconds.
            // What they add meanwhile is marked.
            let mut table = self.table.lock();
            let Some(rest) = table.references.get_mut(from..).filter(|rest| !rest.is_empty())
            else {
                return;
            };
            let dead = rest.iter_mut().take(PORTION).filter(|word| !marked(**word));
            dead.for_each(|word| *word = 0);
            from += PORTION;
        }
    }

    /// What an entry of the table has: `None` if the object is gone.
    fn look(&self, table: &Table, word: usize) -> Option<usize> {
        let gone =
            table.is_clearing && self.barrier.is_unmarked(word) && !left_out(LeftOut::WeakMark);
        (word != 0 && !gone).then_some(word)
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

    /// Has the values of all keys marked that are marked, or will be by that.
    fn trace_values(
        &self,
        marked: &impl Fn(usize) -> bool,
        shade: impl Fn(usize),
        drain: &mut impl FnMut(),
    ) {
        while self.shade_values(marked, &shade) {
            drain();
        }
    }
}

impl WeakReference {
    /// The word, or `None` if the object is gone. The caller's goroutine is Running. Other callers
    /// use [`WeakReference::upgrade`].
    pub fn get(&self) -> Option<usize> {
        let table = self.owner.table.lock();
        let word = self.owner.look(&table, table.references[self.index]);
        word.inspect(|word| self.owner.shade(*word))
    }

    /// A handle on the object, or `None` if it is gone. Any thread may call this.
    pub fn upgrade(&self) -> Option<Handle> {
        let table = self.owner.table.lock();
        let word = self.owner.look(&table, table.references[self.index]);
        // Under the lock, so that the collector does not clear the table meanwhile.
        word.map(|word| self.owner.handles.create(word))
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
    /// Adds or replaces an entry. The caller's goroutine is Running, or the caller holds handles on
    /// both objects.
    pub fn insert(&self, key: usize, value: usize) {
        let mut table = self.owner.table.lock();
        // Shaded whether the key is marked or not: the present cycle keeps the value, the next one
        // need not.
        self.owner.shade(value);
        table.maps.get_mut(&self.number).expect("as long as its owner").insert(key, value);
    }

    /// The value of a key. The caller's goroutine is Running.
    pub fn get(&self, key: usize) -> Option<usize> {
        let table = self.owner.table.lock();
        let value = table.maps[&self.number].get(&key).copied();
        let value = value.filter(|word| *word == 0 || self.owner.look(&table, *word).is_some());
        value.inspect(|word| self.owner.shade(*word))
    }

    /// Removes an entry. Returns its value. The caller's goroutine is Running.
    pub fn remove(&self, key: usize) -> Option<usize> {
        let mut table = self.owner.table.lock();
        let value = table.maps.get_mut(&self.number).and_then(|map| map.remove(&key));
        let value = value.filter(|word| *word == 0 || self.owner.look(&table, *word).is_some());
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

#[cfg(all(test, stackmark_loom))]
mod models;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
