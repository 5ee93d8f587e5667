//! What the table says and shades, over a heap of a few objects. A word is 2 k or 2 k + 1 for
//! object k, 0 for none.

use super::*;
use crate::write_barrier::{Kind, Sink};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const OBJECTS: usize = 8;

#[derive(Default)]
struct Heap {
    marked: [AtomicBool; OBJECTS],
    /// Words that have been shaded and not traced.
    shaded: Mutex<Vec<usize>>,
}

impl Heap {
    fn is_marked(&self, word: usize) -> bool {
        word / 2 == 0 || self.marked[word / 2].load(Relaxed)
    }
    fn mark(&self, word: usize) {
        self.marked[word / 2].store(true, Relaxed);
    }
    /// Objects refer to none.
    fn drain(&self) {
        std::mem::take(&mut *self.shaded.lock()).into_iter().for_each(|word| self.mark(word));
    }
    fn shaded(&self) -> Vec<usize> {
        std::mem::take(&mut *self.shaded.lock())
    }
}

impl Sink for Heap {
    fn is_unmarked(&self, word: usize) -> bool {
        !self.is_marked(word)
    }
    fn take(&self, words: Vec<usize>) {
        self.shaded.lock().extend(words);
    }
}

fn weak() -> (Arc<Heap>, Arc<WriteBarrier>, Arc<WeakReferences>) {
    let heap = Arc::new(Heap::default());
    let barrier = WriteBarrier::new(Kind::Insertion, heap.clone());
    let handles = Handles::new(barrier.clone(), 1);
    (heap, barrier.clone(), WeakReferences::new(handles, barrier))
}

#[test]
fn a_reference_gives_its_word_and_shades_it_while_a_cycle_marks() {
    let (heap, barrier, weak) = weak();
    let references = [2, 5, 0].map(|word| weak.create(word));
    let get = || references.each_ref().map(WeakReference::get);
    assert_eq!(get(), [Some(2), Some(5), None]);
    assert!(heap.shaded().is_empty(), "no cycle marks");
    barrier.turn_on();
    heap.mark(2);
    assert_eq!(get(), [Some(2), Some(5), None]);
    assert_eq!(heap.shaded(), [5], "the one that is not marked");
    let upgraded = references.each_ref().map(|reference| reference.upgrade().map(|h| h.get()));
    assert_eq!(upgraded, [Some(2), Some(5), None]);
    assert_eq!(heap.shaded(), [5]);
}

#[test]
fn entries_of_dropped_references_are_used_again_and_of_dropped_maps_forgotten() {
    let (_, _, weak) = weak();
    let one = weak.create(2);
    for word in 2..OBJECTS * 2 {
        let other = weak.create(word);
        assert_eq!((one.get(), other.get()), (Some(2), Some(word)));
        assert_eq!(weak.table.lock().references.len(), 2);
        drop(other);
        assert_eq!(weak.table.lock().references[1], 0, "nothing to trace or clear");
    }
    let maps = [weak.map(), weak.map()];
    assert_eq!(weak.table.lock().maps.len(), 2);
    drop(maps);
    assert!(weak.table.lock().maps.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, usize),
    Get(usize),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let word = || 2..OBJECTS * 2;
    prop_oneof![
        3 => (word(), word()).prop_map(|(key, value)| Step::Insert(key, value)),
        2 => word().prop_map(Step::Get),
        1 => word().prop_map(Step::Remove),
    ]
}

proptest! {
    /// Three maps, beside maps of the standard library. What passes through them is shaded while a
    /// cycle marks.
    #[test]
    fn a_map_has_the_entries_that_were_put_into_it(
        steps in prop::collection::vec((0..3usize, step()), 0..60),
        marks in any::<bool>(),
    ) {
        let (heap, barrier, weak) = weak();
        if marks {
            barrier.turn_on();
        }
        let maps = [(); 3].map(|()| weak.map());
        let mut wanted = [(); 3].map(|()| HashMap::new());
        for (number, step) in steps {
            let (map, wanted) = (&maps[number], &mut wanted[number]);
            let passed = match step {
                Step::Insert(key, value) => {
                    map.insert(key, value);
                    wanted.insert(key, value);
                    Some(value)
                }
                Step::Get(key) => {
                    let got = map.get(key);
                    prop_assert_eq!(got, wanted.get(&key).copied());
                    got
                }
                Step::Remove(key) => {
                    let removed = map.remove(key);
                    prop_assert_eq!(removed, wanted.remove(&key));
                    removed
                }
            };
            prop_assert_eq!(heap.shaded(), Vec::from_iter(passed.filter(|_| marks)));
            prop_assert_eq!((map.len(), map.is_empty()), (wanted.len(), wanted.is_empty()));
        }
        let mut values = Vec::new();
        weak.visit_values(|word| values.push(word));
        let mut all: Vec<usize> = wanted.iter().flat_map(HashMap::values).copied().collect();
        values.sort_unstable();
        all.sort_unstable();
        prop_assert_eq!(values, all);
    }

    /// The end of a cycle, against the definition: an object lives if it is marked, if it is the
    /// value of a key that lives, or if its callback is due.
    #[test]
    fn a_cycle_keeps_values_of_live_keys_and_objects_of_due_callbacks_and_clears_the_rest(
        marked in prop::collection::vec(1..OBJECTS, 0..4),
        entries in prop::collection::hash_map(1..OBJECTS, 1..OBJECTS, 0..6),
        callbacks in prop::collection::vec(1..OBJECTS, 0..3),
    ) {
        let (heap, barrier, weak) = weak();
        barrier.turn_on();
        marked.iter().for_each(|object| heap.mark(2 * object));
        let references: Vec<_> = (0..OBJECTS).map(|object| weak.create(2 * object + 1)).collect();
        let map = weak.map();
        entries.iter().for_each(|(key, value)| map.insert(2 * key, 2 * value));
        callbacks.iter().for_each(|object| weak.on_unreachable(2 * object, |_| ()));
        // What `insert` has shaded is not marked: the entries might be older.
        heap.shaded();
        let mut alive = [false; OBJECTS];
        let trace = |alive: &mut [bool; OBJECTS]| {
            (0..OBJECTS).for_each(|_| {
                entries.iter().for_each(|(key, value)| alive[*value] |= alive[*key]);
            });
        };
        marked.iter().for_each(|object| alive[*object] = true);
        trace(&mut alive);
        let before = alive;
        callbacks.iter().for_each(|object| alive[*object] = true);
        trace(&mut alive);

        let values = entries.iter().any(|(key, value)| {
            heap.is_marked(2 * key) && !heap.is_marked(2 * value)
        });
        prop_assert_eq!(weak.shade_values(|word| heap.is_marked(word)), values);
        prop_assert_eq!(heap.shaded().is_empty(), !values);
        let mut drains = 0;
        let due = weak.process(|word| heap.is_marked(word), || {
            drains += 1;
            assert!(drains <= 2 * OBJECTS + 2, "each time but the last it marks an object");
            heap.drain();
        });
        let due: Vec<_> = due.iter().map(|(handle, _)| handle.get() / 2).collect();
        let wanted: Vec<_> = callbacks.into_iter().filter(|object| !before[*object]).collect();
        prop_assert_eq!(due, wanted);
        for object in 1..OBJECTS {
            prop_assert_eq!(heap.is_marked(2 * object), alive[object], "object {}", object);
            let word = before[object].then_some(2 * object + 1);
            prop_assert_eq!(references[object].get(), word, "a reference to {}", object);
            let value = entries.get(&object).filter(|_| alive[object]).map(|value| 2 * value);
            prop_assert_eq!(map.get(2 * object), value, "the entry of {}", object);
        }
        prop_assert_eq!(references[0].get(), Some(1), "it refers to no object");
    }
}

#[test]
fn a_callback_is_due_once() {
    let (heap, barrier, weak) = weak();
    weak.on_unreachable(2, |_| ());
    for due in [1, 0] {
        barrier.turn_on();
        let callbacks = weak.process(|word| heap.is_marked(word), || heap.drain());
        assert_eq!(callbacks.len(), due);
        heap.marked.iter().for_each(|mark| mark.store(false, Relaxed));
    }
}

#[test]
fn who_asks_while_entries_are_cleared_gets_no_unmarked_object() {
    let (heap, barrier, weak) = weak();
    barrier.turn_on();
    heap.mark(2);
    let references = [2, 4, 0].map(|word| weak.create(word));
    let map = weak.map();
    map.insert(2, 2);
    map.insert(4, 4);
    map.insert(6, 0);
    heap.shaded();
    weak.table.lock().is_clearing = true;
    assert_eq!(references.each_ref().map(WeakReference::get), [Some(2), None, None]);
    let upgraded = references.each_ref().map(|reference| reference.upgrade().map(|h| h.get()));
    assert_eq!(upgraded, [Some(2), None, None]);
    assert_eq!([2, 4, 6].map(|key| map.get(key)), [Some(2), None, Some(0)]);
    assert_eq!([2, 4, 6].map(|key| map.remove(key)), [Some(2), None, Some(0)]);
    assert!(heap.shaded().is_empty(), "nothing is marked any more");
}

#[test]
fn all_portions_of_references_are_cleared() {
    for count in [PORTION - 1, PORTION, PORTION + 1, 3 * PORTION] {
        let (heap, barrier, weak) = weak();
        barrier.turn_on();
        heap.mark(2);
        let references: Vec<_> = (0..count).map(|at| weak.create(2 + at % 4)).collect();
        weak.process(|word| heap.is_marked(word), || heap.drain());
        barrier.turn_off(false);
        for (at, reference) in references.iter().enumerate() {
            let word = 2 + at % 4;
            assert_eq!(reference.get(), (word < 4).then_some(word), "reference {at} of {count}");
        }
    }
}

/// Makes so many entries, and returns what keeps them.
type Fill = dyn Fn(&Arc<WeakReferences>, usize) -> Box<dyn std::any::Any>;

#[test]
fn a_table_is_large_with_many_entries_of_any_kind() {
    let large = |fill: &Fill| {
        [MOST_STOPPED, MOST_STOPPED + 1].map(|entries| {
            let (_, _, weak) = weak();
            let _filled = fill(&weak, entries);
            weak.is_large()
        })
    };
    let references = |weak: &Arc<WeakReferences>, count| -> Box<dyn std::any::Any> {
        Box::new((0..count).map(|_| weak.create(2)).collect::<Vec<_>>())
    };
    assert_eq!(large(&references), [false, true]);
    assert_eq!(
        large(&|weak, count| {
            (0..count).for_each(|_| weak.on_unreachable(2, |_| ()));
            Box::new(())
        }),
        [false, true]
    );
    assert_eq!(
        large(&|weak, count| {
            let map = weak.map();
            (1..count).for_each(|key| map.insert(key, 2));
            Box::new(map)
        }),
        [false, true]
    );
    let (_, _, weak) = weak();
    assert!(!weak.is_large());
    weak.count_as_large();
    assert!(!weak.is_large(), "nothing is to be cleared");
    let _one = weak.create(2);
    assert!(weak.is_large());
}
