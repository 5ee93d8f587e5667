//! The heap against a model of it, and under threads.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use parking_lot::Mutex;
use proptest::prelude::*;
use stackmark_stack::reservation::Reservation;

use super::class::BLOCK;
use super::{
    AllocationError, AllocationSlot, Allocator, Descriptor, DescriptorId, MarkSweep, Options,
};
use crate::heap::{BY_COLLECTOR, Heap, Marked, Object};
use crate::heap_owner::GrowthListener;

/// Bytes of a word.
const WORD: usize = size_of::<usize>();

fn heap() -> Arc<MarkSweep> {
    MarkSweep::new(&Options { limit: 256 << 20, poison: true, ..Options::default() })
        .expect("a heap")
}

/// Marks from `roots`, as a collector would with the world stopped.
fn mark(heap: &MarkSweep, roots: &[usize]) -> Marked {
    let mut marked = Marked::default();
    let mut grey = Vec::new();
    let mut words = roots.to_vec();
    loop {
        for word in words.drain(..) {
            if let Some(object) = heap.resolve(word)
                && heap.mark(object, BY_COLLECTOR)
            {
                marked.objects += 1;
                marked.bytes += heap.size(object) as u64;
                grey.push(object);
            }
        }
        let Some(object) = grey.pop() else { return marked };
        heap.trace(object, 0..usize::MAX, &mut |word| words.push(word), BY_COLLECTOR);
    }
}

fn collect(heap: &MarkSweep, roots: &[usize]) -> Marked {
    heap.finish_sweep(BY_COLLECTOR);
    heap.begin_cycle(BY_COLLECTOR);
    let marked = mark(heap, roots);
    heap.end_cycle(marked, BY_COLLECTOR);
    heap.finish_sweep(BY_COLLECTOR);
    marked
}

fn store(object: usize, word: usize, value: usize) {
    // SAFETY: the tests store within objects that they have allocated and that are live.
    unsafe { AtomicUsize::from_ptr((object + word * WORD) as *mut usize) }.store(value, Relaxed);
}

fn load(object: usize, word: usize) -> usize {
    // SAFETY: as in `store`.
    unsafe { AtomicUsize::from_ptr((object + word * WORD) as *mut usize) }.load(Relaxed)
}

fn new(allocator: &Allocator, descriptor: DescriptorId, bytes: usize) -> usize {
    let object = allocator.hand_out(descriptor, bytes).expect("room").as_ptr() as usize;
    for word in 0..bytes / WORD {
        assert_eq!(load(object, word), 0, "memory is handed out zeroed");
    }
    object
}

#[test]
fn words_resolve_to_the_object_that_they_point_into() {
    let heap = heap();
    let allocator = heap.allocator().expect("an allocator");
    let bytes = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    for size in [1, 8, 24, 100, 4096, 5000, 8192] {
        let object = new(&allocator, bytes, size);
        let cell = heap.size(heap.resolve(object).expect("an object"));
        assert!(cell >= size);
        for inside in [0, 1, cell / 2, cell - 1] {
            assert_eq!(heap.resolve(object + inside).map(Object::address), Some(object));
        }
    }
    for size in [8193, BLOCK, BLOCK + 1, 10 * BLOCK - 9] {
        let object = new(&allocator, bytes, size);
        assert_eq!(heap.size(heap.resolve(object).expect("an object")), size);
        for inside in [0, size / 2, size - 1] {
            assert_eq!(heap.resolve(object + inside).map(Object::address), Some(object));
        }
        if size % BLOCK != 0 {
            assert_eq!(heap.resolve(object + size), None, "past the end");
        }
    }
    let on_stack = 0usize;
    for word in [
        0,
        1,
        8,
        usize::MAX,
        &raw const on_stack as usize,
        heap.arena.address_of(0).wrapping_sub(1),
    ] {
        assert_eq!(heap.resolve(word), None);
    }
}

#[test]
fn free_cells_and_leftovers_of_a_block_resolve_to_nothing() {
    let heap = heap();
    let allocator = heap.allocator().expect("an allocator");
    let references = heap.register(Descriptor::references()).expect("a descriptor");
    let dead = new(&allocator, references, 5456);
    let live = new(&allocator, references, 5456);
    store(dead, 0, live);
    collect(&heap, &[live]);
    assert_eq!(heap.resolve(dead), None);
    assert_eq!(heap.resolve(live + 5455).map(Object::address), Some(live));
    let block = heap.arena.index_of(live).expect("in the heap");
    assert_eq!(heap.resolve(heap.arena.address_of(block) + BLOCK - 1), None, "after the last cell");
}

#[test]
fn a_heap_lies_on_huge_pages_if_asked_to_where_the_system_has_them() {
    // Some systems have none, and emulators do not pass the advice on.
    let other = Reservation::new(8 << 20).expect("address space");
    other.ask_for_huge_pages();
    let has_some = is_advised_huge(other.start());
    if !has_some {
        println!("skipped: the system takes no advice to use huge pages");
    }
    for huge_pages in [false, true] {
        let options = Options { limit: 64 << 20, huge_pages, ..Options::default() };
        let heap = MarkSweep::new(&options).expect("a heap");
        let allocator = heap.allocator().expect("an allocator");
        let bytes = heap.register(Descriptor::no_pointers()).expect("a descriptor");
        let object = allocator.hand_out(bytes, 8 << 20).expect("room").as_ptr() as usize;
        let words = (8 << 20) / WORD;
        (0..words).for_each(|word| store(object, word, word));
        assert!((0..words).all(|word| load(object, word) == word));
        assert_eq!(is_advised_huge(object), huge_pages && has_some);
    }
}

/// Whether the system was asked for huge pages at `address`.
fn is_advised_huge(address: usize) -> bool {
    // It takes no such advice.
    if cfg!(windows) {
        return false;
    }
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("this system's list of mappings");
    let mut is_here = false;
    for line in maps.lines() {
        let mut ends = line.split(' ').next().unwrap_or("").split('-');
        let mut end = || usize::from_str_radix(ends.next()?, 16).ok();
        if let (Some(lo), Some(hi)) = (end(), end()) {
            is_here = (lo..hi).contains(&address);
        } else if let (true, Some(flags)) = (is_here, line.strip_prefix("VmFlags:")) {
            return flags.split(' ').any(|flag| flag == "hg");
        }
    }
    panic!("{address:#x} lies in no mapping");
}

#[test]
fn an_object_that_no_heap_holds_is_refused_with_its_size() {
    let heap = MarkSweep::new(&Options { limit: 4 << 20, poison: true, ..Options::default() })
        .expect("a heap");
    let allocator = heap.allocator().expect("an allocator");
    let bytes = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    for size in [usize::MAX, usize::MAX - 7, usize::MAX / 2, usize::MAX >> 8] {
        let error = allocator.hand_out(bytes, size).expect_err("it is larger than the heap");
        let AllocationError::OutOfMemory { requested, .. } = error else { panic!("{error}") };
        assert!(requested >= size, "{error}");
    }
}

#[test]
fn objects_that_nobody_refers_to_make_room() {
    let heap = MarkSweep::new(&Options { limit: 4 << 20, poison: true, ..Options::default() })
        .expect("a heap");
    let allocator = heap.allocator().expect("an allocator");
    let bytes = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    for _ in 0..10 {
        let mut count = 0;
        let error = loop {
            match allocator.hand_out(bytes, if count % 10 == 0 { 100_000 } else { 1000 }) {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
        };
        assert!(count > 200, "{count}");
        assert!(matches!(error, AllocationError::OutOfMemory { .. }));
        // Not swept by hand: the allocator has to.
        heap.finish_sweep(BY_COLLECTOR);
        heap.begin_cycle(BY_COLLECTOR);
        heap.end_cycle(mark(&heap, &[]), BY_COLLECTOR);
    }
    heap.finish_sweep(BY_COLLECTOR);
    heap.release(0, BY_COLLECTOR);
    let counts = heap.counts();
    assert_eq!((counts.live_bytes, counts.resident_bytes), (0, 0));
}

#[test]
fn an_unregistered_descriptor_is_refused() {
    let heap = heap();
    let allocator = heap.allocator().expect("an allocator");
    for index in [1, u32::MAX] {
        let descriptor = DescriptorId::from_index(index);
        for size in [8, 100_000] {
            assert_eq!(
                allocator.hand_out(descriptor, size),
                Err(AllocationError::UnknownDescriptor { descriptor })
            );
        }
    }
}

#[test]
fn objects_allocated_while_marking_survive_the_cycle_and_not_the_next() {
    let heap = heap();
    let allocator = heap.allocator().expect("an allocator");
    let references = heap.register(Descriptor::references()).expect("a descriptor");
    let before = new(&allocator, references, 64);
    heap.finish_sweep(BY_COLLECTOR);
    heap.begin_cycle(BY_COLLECTOR);
    let black: Vec<usize> = (0..1000)
        .map(|i| new(&allocator, references, if i % 50 == 0 { 20_000 } else { 64 }))
        .collect();
    assert!(black.iter().all(|object| heap.is_marked(heap.resolve(*object).expect("an object"))));
    assert!(
        !heap.is_marked(heap.resolve(before).expect("an object")),
        "handed out before the cycle"
    );
    heap.end_cycle(Marked::default(), BY_COLLECTOR);
    heap.finish_sweep(BY_COLLECTOR);
    assert_eq!(heap.resolve(before), None);
    assert!(black.iter().all(|object| heap.resolve(*object).is_some()));
    assert_eq!(
        heap.counts().live_bytes,
        black.iter().map(|o| heap.size(heap.resolve(*o).expect("live")) as u64).sum()
    );
    collect(&heap, &[]);
    assert!(black.iter().all(|object| heap.resolve(*object).is_none()));
}

struct Counting {
    reached: Arc<AtomicUsize>,
    told: Arc<AtomicUsize>,
}

impl GrowthListener for Counting {
    fn reached_trigger(&self) {
        self.reached.fetch_add(1, Relaxed);
    }
    fn handed_out(&self, bytes: usize) {
        self.told.fetch_add(bytes, Relaxed);
    }
}

#[test]
fn growth_is_told_while_marking_is_on() {
    let heap = heap();
    let told = Arc::new(AtomicUsize::new(0));
    heap.owner.listen(Box::new(Counting { reached: Arc::default(), told: Arc::clone(&told) }));
    let allocator = heap.allocator().expect("an allocator");
    let bytes = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    let allocate = || {
        (0..10_000).for_each(|_| _ = new(&allocator, bytes, 48));
        new(&allocator, bytes, 1 << 20);
    };
    allocate();
    assert_eq!(told.load(Relaxed), 0);
    heap.begin_cycle(BY_COLLECTOR);
    allocate();
    let expected = 480_000 + (1 << 20);
    assert!(
        told.load(Relaxed).abs_diff(expected) <= 2 * BLOCK,
        "{} of {expected}",
        told.load(Relaxed)
    );
    heap.end_cycle(Marked::default(), BY_COLLECTOR);
    let before = told.load(Relaxed);
    allocate();
    assert_eq!(told.load(Relaxed), before);
}

#[test]
fn the_trigger_fires_once_and_after_the_growth() {
    let heap = heap();
    let fired = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fired);
    heap.owner.listen(Box::new(Counting { reached: counter, told: Arc::default() }));
    heap.set_trigger(1 << 20, BY_COLLECTOR);
    let allocator = heap.allocator().expect("an allocator");
    let bytes = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    while heap.allocated_since_cycle() < (1 << 20) - 2 * BLOCK {
        new(&allocator, bytes, 48);
    }
    assert_eq!(fired.load(Relaxed), 0);
    (0..100_000).for_each(|_| _ = new(&allocator, bytes, 48));
    assert_eq!(fired.load(Relaxed), 1);
}

#[test]
fn inline_allocation_through_a_slot_is_allocation() {
    let heap = heap();
    let allocator = heap.allocator().expect("an allocator");
    let bytes = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    let (offset, cell) = Allocator::slot_offset(bytes, 40).expect("a small object");
    assert_eq!(cell, 40);
    assert_eq!(Allocator::slot_offset(bytes, 10_000), None);
    assert_eq!(Allocator::slot_offset(DescriptorId::from_index(20_000), 16), None);
    let first = new(&allocator, bytes, 40);
    let slot = allocator.slots_address() + offset;
    let cursor = load(slot, AllocationSlot::CURSOR / WORD);
    assert_eq!(cursor, first + 40);
    assert!(cursor + cell <= load(slot, AllocationSlot::END / WORD));
    store(slot, AllocationSlot::CURSOR / WORD, cursor + cell);
    assert_eq!(heap.resolve(cursor).map(Object::address), Some(cursor));
    assert_eq!(new(&allocator, bytes, 40), cursor + cell);
}

#[test]
fn a_dropped_allocator_leaves_its_blocks_to_others() {
    let heap = heap();
    let bytes = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    for _ in 0..1000 {
        let allocator = heap.allocator().expect("an allocator");
        new(&allocator, bytes, 64);
        drop(allocator);
        collect(&heap, &[]);
    }
    assert!(heap.counts().resident_bytes <= 4 * BLOCK as u64);
    assert!(heap.protocol.allocators.lock().is_empty());
}

/// What the property test does.
#[derive(Clone, Debug)]
enum Step {
    /// Allocate an object of a kind with about so many words.
    New(usize, usize),
    /// Store a reference (or null) to an object, or to its middle, into a place of another.
    Link(usize, usize, usize, usize),
    /// Forget a root.
    Drop(usize),
    Collect,
    /// Begin a cycle, do these steps, and end it. Stores go through an insertion barrier.
    CollectAround(Vec<Step>),
}

fn step() -> impl Strategy<Value = Step> {
    let words = prop_oneof![8 => 1usize..40, 2 => 40usize..900, 1 => 900usize..9000];
    let simple = prop_oneof![
        6 => (0usize..4, words).prop_map(|(kind, words)| Step::New(kind, words)),
        6 => any::<(usize, usize, usize, usize)>().prop_map(|(a, b, c, d)| Step::Link(a, b, c, d)),
        2 => any::<usize>().prop_map(Step::Drop),
    ];
    let around = prop::collection::vec(simple.clone(), 0..20).prop_map(Step::CollectAround);
    prop_oneof![20 => simple, 1 => Just(Step::Collect), 1 => around]
}

/// What the heap should hold. Objects by address: the number of the descriptor, and the words.
#[derive(Default)]
struct Model {
    objects: BTreeMap<usize, (usize, Vec<usize>)>,
    roots: Vec<usize>,
}

impl Model {
    fn reachable(&self, places: &[fn(usize) -> bool]) -> HashSet<usize> {
        let mut seen = HashSet::new();
        let mut rest = self.roots.clone();
        while let Some(object) = rest.pop() {
            if seen.insert(object) {
                let (kind, words) = &self.objects[&object];
                let references =
                    words.iter().enumerate().filter(|(i, word)| places[*kind](*i) && **word != 0);
                // Interior pointers: the object at or before.
                rest.extend(references.map(|(_, word)| {
                    *self.objects.range(..=word).next_back().expect("an object").0
                }));
            }
        }
        seen
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn exactly_the_reachable_objects_survive_with_their_contents(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let heap = heap();
        let allocator = heap.allocator().expect("an allocator");
        let places: [fn(usize) -> bool; 4] =
            [|_| false, |_| true, |i| i % 3 == 1, |i| i % 100 == 99];
        let kinds = [
            Descriptor::no_pointers(),
            Descriptor::references(),
            Descriptor::pattern(3, [1]).expect("valid"),
            Descriptor::pattern(100, [99]).expect("valid"),
        ].map(|descriptor| heap.register(descriptor).expect("a descriptor"));
        let mut model = Model::default();
        // Flat: a cycle around steps becomes its begin, the steps and its end.
        #[derive(Clone)]
        enum Flat { Do(Step), Begin, End }
        let flat: Vec<Flat> = steps.into_iter().flat_map(|step| match step {
            Step::CollectAround(inner) => std::iter::once(Flat::Begin)
                .chain(inner.into_iter().map(Flat::Do)).chain(std::iter::once(Flat::End)).collect(),
            Step::Collect => vec![Flat::Begin, Flat::End],
            other => vec![Flat::Do(other)],
        }).collect();
        let mut cycle: Option<Marked> = None;
        let mut floating = HashSet::new();
        for step in flat {
            match step {
                Flat::Begin => {
                    heap.begin_cycle(BY_COLLECTOR);
                    cycle = Some(mark(&heap, &model.roots));
                    floating = model.reachable(&places);
                }
                Flat::End => {
                    let mut marked = cycle.take().expect("begun");
                    let rest = mark(&heap, &model.roots);
                    marked.objects += rest.objects;
                    marked.bytes += rest.bytes;
                    heap.end_cycle(marked, BY_COLLECTOR);
                    let reachable = model.reachable(&places);
                    heap.finish_sweep(BY_COLLECTOR);
                    for object in &reachable {
                        prop_assert_eq!(heap.resolve(*object).map(Object::address), Some(*object));
                        let words = &model.objects[object].1;
                        prop_assert!((0..words.len()).all(|i| load(*object, i) == words[i]));
                    }
                    // An object that was reachable when the cycle began, or was allocated since,
                    // may float. No other one may.
                    model.objects.retain(|object, _| {
                        let survives = heap.resolve(*object).is_some();
                        let expected = reachable.contains(object);
                        assert!(survives == expected || floating.contains(object));
                        survives
                    });
                    floating.clear();
                }
                Flat::Do(Step::New(kind, words)) => {
                    let object = new(&allocator, kinds[kind], words * WORD);
                    let mut contents = vec![0; words];
                    // Words that are no references hold noise that looks like references.
                    for i in (0..words).filter(|i| !places[kind](*i)) {
                        contents[i] = object ^ i;
                        store(object, i, contents[i]);
                    }
                    model.objects.insert(object, (kind, contents));
                    model.roots.push(object);
                    if cycle.is_some() {
                        floating.insert(object);
                    }
                }
                Flat::Do(Step::Link(from, place, to, inside)) if !model.roots.is_empty() => {
                    let from = model.roots[from % model.roots.len()];
                    let to = model.roots[to % model.roots.len()];
                    let value = to + inside % (model.objects[&to].1.len() * WORD);
                    let (kind, words) = model.objects.get_mut(&from).expect("a root is live");
                    let candidates: Vec<usize> =
                        (0..words.len()).filter(|i| places[*kind](*i)).collect();
                    if !candidates.is_empty() {
                        let place = candidates[place % candidates.len()];
                        if let Some(marked) = &mut cycle {
                            let shaded = mark(&heap, &[value]);
                            marked.objects += shaded.objects;
                            marked.bytes += shaded.bytes;
                        }
                        store(from, place, value);
                        words[place] = value;
                    }
                }
                Flat::Do(Step::Drop(root)) if !model.roots.is_empty() => {
                    model.roots.swap_remove(root % model.roots.len());
                }
                Flat::Do(_) => {}
            }
        }
    }
}

/// Ends the test when a thread ends, by a panic too.
struct StopAll<'a>(&'a AtomicBool);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn threads_allocate_while_others_mark_and_sweep() {
    const THREADS: usize = 3;
    const LIST: usize = 200;
    let heap = MarkSweep::new(&Options { limit: 8 << 20, poison: true, ..Options::default() })
        .expect("a heap");
    let node = heap.register(Descriptor::pattern(3, [0]).expect("valid")).expect("a descriptor");
    // Each thread publishes the head of a list here whenever it answers the collector. A node's
    // words: next, owner, index.
    let heads: Vec<AtomicUsize> = (0..THREADS).map(|_| AtomicUsize::new(0)).collect();
    // An odd number asks the world to stop. A thread answers with the same number.
    let request = AtomicUsize::new(0);
    let answers: Vec<AtomicUsize> = (0..THREADS).map(|_| AtomicUsize::new(0)).collect();
    let stop = AtomicBool::new(false);
    // An insertion barrier. References stored while it is on are put into `shaded`.
    let barrier = AtomicBool::new(false);
    let shaded = Mutex::new(Vec::new());
    use std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (heap, heads, request, answers, stop) = (&heap, &heads, &request, &answers, &stop);
            let (barrier, shaded) = (&barrier, &shaded);
            scope.spawn(move || {
                let _stop_all = StopAll(stop);
                let allocator = heap.allocator().expect("an allocator");
                let mut head = 0;
                let mut length = 0;
                while !stop.load(SeqCst) {
                    let now = request.load(SeqCst);
                    if now != answers[thread].load(SeqCst) {
                        heads[thread].store(head, SeqCst);
                        answers[thread].store(now, SeqCst);
                        while now % 2 == 1 && request.load(SeqCst) == now && !stop.load(SeqCst) {
                            std::thread::yield_now();
                        }
                        continue;
                    }
                    if length == LIST {
                        // Check the list, then begin anew.
                        let mut at = head;
                        for index in (0..LIST).rev() {
                            assert_eq!((load(at, 1), load(at, 2)), (thread, index));
                            at = load(at, 0);
                        }
                        assert_eq!(at, 0);
                        (head, length) = (0, 0);
                    }
                    // Nothing slows allocation down here. Without room, the thread waits for the
                    // collector.
                    let Ok(next) = allocator.hand_out(node, (3 + length % 7) * WORD) else {
                        continue;
                    };
                    let next = next.as_ptr() as usize;
                    assert_eq!((load(next, 0), load(next, 1), load(next, 2)), (0, 0, 0));
                    if barrier.load(Relaxed) {
                        shaded.lock().push(head);
                    }
                    store(next, 0, head);
                    store(next, 1, thread);
                    store(next, 2, length);
                    (head, length) = (next, length + 1);
                }
            });
        }
        let _stop_all = StopAll(&stop);
        let ask = |number: usize| {
            request.store(number, SeqCst);
            while answers.iter().any(|answer| answer.load(SeqCst) != number) {
                assert!(!stop.load(SeqCst), "a thread failed");
                std::thread::yield_now();
            }
        };
        for cycle in 0..40 {
            barrier.store(true, SeqCst);
            ask(4 * cycle + 2);
            heap.finish_sweep(BY_COLLECTOR);
            heap.begin_cycle(BY_COLLECTOR);
            let mut marked =
                mark(&heap, &heads.iter().map(|head| head.load(SeqCst)).collect::<Vec<_>>());
            ask(4 * cycle + 3);
            let mut roots = std::mem::take(&mut *shaded.lock());
            roots.extend(heads.iter().map(|head| head.load(SeqCst)));
            let rest = mark(&heap, &roots);
            marked.objects += rest.objects;
            marked.bytes += rest.bytes;
            barrier.store(false, SeqCst);
            heap.end_cycle(marked, BY_COLLECTOR);
            request.store(4 * cycle + 4, SeqCst);
            if cycle % 2 == 0 {
                heap.finish_sweep(BY_COLLECTOR);
                heap.release(1 << 20, BY_COLLECTOR);
            }
        }
    });
    let counts = heap.counts();
    assert!(counts.objects_swept > 0 && counts.objects_marked > 0);
}
