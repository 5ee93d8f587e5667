//! Weak references, finalisation callbacks, weak maps.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use stackmark::mark_sweep::{Allocator, Descriptor, DescriptorId, MarkSweep, Options};
use stackmark::stack::{self, Goroutine, Host, Machine, Runtime};
use stackmark::{Collector, Config, Generational, heap::Heap, unwind::Code};

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }
}

struct World {
    collector: Collector<MarkSweep>,
    /// Of the test's thread.
    machine: Machine,
    allocator: Allocator,
    references: DescriptorId,
}

/// Worlds in which weak references are cleared while the world is stopped, or while it runs.
const WHILE_IT_RUNS: [bool; 2] = [false, true];

fn world(while_it_runs: bool) -> World {
    world_with(while_it_runs, None)
}

fn world_with(while_it_runs: bool, generational: Option<Generational>) -> World {
    let code = Arc::new(Code::new());
    let runtime =
        Runtime::new(stack::Config::default(), code, Box::new(Embedder)).expect("a runtime");
    let heap = MarkSweep::new(&Options { limit: 256 << 20, poison: true, ..Options::default() })
        .expect("a heap");
    let config =
        Config { workers: 2, percent: None, verify: true, generational, ..Config::default() };
    let collector = Collector::start(Arc::clone(&heap), runtime, &config).expect("threads");
    if while_it_runs {
        collector.weak_references().count_as_large();
    }
    let references = heap.register(Descriptor::references()).expect("a descriptor");
    let machine = Machine::attach(collector.runtime()).expect("a new thread");
    let allocator = heap.allocator().expect("an allocator");
    World { collector, machine, allocator, references }
}

impl World {
    /// An object that refers to another one. No cycle runs meanwhile.
    fn object(&self, next: usize) -> usize {
        self.machine.inside(|inside| {
            let object = self.allocator.allocate(&inside, self.references, 16).expect("room");
            // SAFETY: within an object that was just allocated.
            unsafe { object.as_ptr().cast::<usize>().write(next) };
            object.address()
        })
    }

    fn is_live(&self, word: usize) -> bool {
        self.collector.heap().resolve(word).is_some()
    }

    fn collect(&self) {
        (0..2).for_each(|_| self.collector.collect());
    }
}

#[test]
fn a_weak_reference_is_cleared_when_its_object_is_gone_and_not_before() {
    for while_it_runs in WHILE_IT_RUNS {
        let world = world(while_it_runs);
        let (one, other) = (world.object(0), world.object(0));
        let handle = world.collector.handles().create(one);
        let weak = [one, one + 8, other].map(|word| world.collector.weak_references().create(word));
        world.collect();
        assert_eq!(weak.each_ref().map(|weak| weak.get()), [Some(one), Some(one + 8), None]);
        let second = weak[1].upgrade().expect("the object lives");
        drop(handle);
        world.collect();
        assert_eq!((weak[0].get(), second.get()), (Some(one), one + 8));
        drop(second);
        world.collect();
        assert!(weak[0].get().is_none() && weak[1].upgrade().is_none() && !world.is_live(one));
        // A word outside of the heap refers to nothing that could go.
        let outside = world.collector.weak_references().create(8);
        world.collect();
        assert_eq!(outside.get(), Some(8));
    }
}

#[test]
fn minor_cycles_clear_young_objects_and_major_ones_the_rest() {
    for while_it_runs in WHILE_IT_RUNS {
        let world = world_with(while_it_runs, Some(Generational::default()));
        let minor = || {
            let (send, receive) = std::sync::mpsc::channel();
            world.collector.request_minor(move || send.send(()).expect("the test waits"));
            receive.recv().expect("the collector lives");
        };
        let weak = |object| world.collector.weak_references().create(object);
        let map = world.collector.weak_references().map();
        let old = world.object(0);
        let handle = world.collector.handles().create(old);
        minor();
        assert_eq!(
            world.collector.statistics().minor_cycles,
            0,
            "the first cycle makes objects old"
        );
        // Minor cycles visit handles and values of weak maps too, so stores there between cycles
        // are not remembered.
        let (kept, value, dead) = (world.object(0), world.object(0), world.object(0));
        let other = world.collector.handles().create(kept);
        map.insert(old, value);
        let [old_weak, kept_weak, value_weak, dead_weak] = [old, kept, value, dead].map(weak);
        drop(handle);
        minor();
        minor();
        assert_eq!(old_weak.get(), Some(old), "an old object floats until a major cycle");
        assert_eq!(
            (kept_weak.get(), value_weak.get(), dead_weak.get()),
            (Some(kept), Some(value), None)
        );
        assert!(!world.is_live(dead));
        drop(other);
        world.collect();
        assert_eq!(
            (old_weak.get(), kept_weak.get(), value_weak.get(), map.len()),
            (None, None, None, 0)
        );
        assert!(!world.is_live(old) && !world.is_live(value));
        let statistics = world.collector.statistics();
        assert_eq!((statistics.cycles, statistics.minor_cycles), (5, 2));
    }
}

#[test]
fn a_callback_gets_its_object_whole_and_once() {
    for while_it_runs in WHILE_IT_RUNS {
        let world = world(while_it_runs);
        let inner = world.object(0);
        let outer = world.object(inner);
        let weak = world.collector.weak_references().create(outer);
        let handle = world.collector.handles().create(outer);
        let got = Arc::new(Mutex::new(Vec::new()));
        for word in [outer, inner] {
            let got = Arc::clone(&got);
            world
                .collector
                .weak_references()
                .on_unreachable(word, move |object| got.lock().unwrap().push(object));
        }
        world.collect();
        assert!(got.lock().unwrap().is_empty());
        drop(handle);
        world.collect();
        let handles = std::mem::take(&mut *got.lock().unwrap());
        let mut words: Vec<usize> = handles.iter().map(|handle| handle.get()).collect();
        words.sort_unstable();
        assert_eq!(words, if inner < outer { [inner, outer] } else { [outer, inner] });
        assert!(weak.get().is_none(), "weak references are cleared first");
        assert!(world.is_live(outer) && world.is_live(inner));
        // SAFETY: the handles keep both objects.
        assert_eq!(unsafe { *(outer as *const usize) }, inner);
        drop(handles);
        world.collect();
        assert!(!world.is_live(outer) && !world.is_live(inner) && got.lock().unwrap().is_empty());
    }
}

#[test]
fn a_weak_map_keeps_values_by_their_keys_alone() {
    for while_it_runs in WHILE_IT_RUNS {
        let world = world(while_it_runs);
        let map = world.collector.weak_references().map();
        // A value that refers to its key keeps neither.
        let cyclic = world.object(0);
        map.insert(cyclic, world.object(cyclic));
        // A chain: each value is the next key. The map alone leads from one to the next.
        let chain: Vec<usize> = (0..50).map(|_| world.object(0)).collect();
        for pair in chain.windows(2) {
            map.insert(pair[0], pair[1]);
        }
        let first = world.collector.handles().create(chain[0]);
        world.collect();
        assert_eq!(map.len(), 49);
        assert!(chain.iter().all(|word| world.is_live(*word)) && !world.is_live(cyclic));
        assert_eq!((map.get(chain[7]), map.get(cyclic)), (Some(chain[8]), None));
        assert_eq!(map.remove(chain[20]), Some(chain[21]));
        world.collect();
        assert_eq!(
            (map.len(), world.is_live(chain[20]), world.is_live(chain[21])),
            (20, true, false)
        );
        drop(first);
        world.collect();
        assert!(map.is_empty() && !world.is_live(chain[0]));
    }
}

#[test]
fn values_reached_through_a_callbacks_object_are_kept() {
    for while_it_runs in WHILE_IT_RUNS {
        let world = world(while_it_runs);
        let map = world.collector.weak_references().map();
        let (key, value) = (world.object(0), world.object(0));
        map.insert(key, value);
        let (send, receive) = std::sync::mpsc::channel();
        world
            .collector
            .weak_references()
            .on_unreachable(key, move |object| send.send(object).expect("the test waits"));
        world.collector.collect();
        let object = receive.recv().expect("it is due");
        world.collect();
        assert_eq!((object.get(), map.get(key)), (key, Some(value)));
        assert!(world.is_live(value));
    }
}

#[test]
fn upgrades_and_cycles_at_the_same_time_never_give_a_dead_object() {
    for while_it_runs in WHILE_IT_RUNS {
        let world = world(while_it_runs);
        let done = AtomicBool::new(false);
        let upgraded = AtomicUsize::new(0);
        for _ in 0..30 {
            let inner = world.object(0);
            let outer = world.object(inner);
            let handle = world.collector.handles().create(outer);
            let weak = world.collector.weak_references().create(outer);
            done.store(false, SeqCst);
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    let mut last = None;
                    while !done.load(SeqCst) {
                        let Some(handle) = weak.upgrade() else { break };
                        // SAFETY: the handle keeps the object.
                        assert_eq!(unsafe { *(handle.get() as *const usize) }, inner);
                        upgraded.fetch_add(1, SeqCst);
                        last = Some(handle);
                    }
                    last
                });
                drop(handle);
                (0..4).for_each(|_| world.collector.collect());
                done.store(true, SeqCst);
                let last = thread.join().expect("no panic");
                // Each cycle has verified all marks. What is left is consistent.
                assert_eq!(last.is_some() || weak.get().is_some(), world.is_live(outer));
            });
        }
    }
}
