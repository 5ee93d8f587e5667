//! Cycles over native roots: handles, globals, requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use stackmark::mark_sweep::{Allocator, Descriptor, DescriptorId, MarkSweep, Options};
use stackmark::stack::{self, Goroutine, Host, Inside, Left, Machine, Runtime};
use stackmark::{Collector, Config, heap::Heap, unwind::Code};

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

fn world(percent: Option<u32>) -> World {
    let runtime = Runtime::new(stack::Config::default(), Arc::new(Code::new()), Box::new(Embedder))
        .expect("a runtime");
    let heap = MarkSweep::new(&Options { limit: 256 << 20, poison: true, ..Options::default() })
        .expect("a heap");
    let config = Config { workers: 2, percent, verify: true, ..Config::default() };
    let collector = Collector::start(Arc::clone(&heap), runtime, &config).expect("threads");
    let references = heap.register(Descriptor::references()).expect("a descriptor");
    let machine = Machine::attach(collector.runtime()).expect("a new thread");
    let allocator = heap.allocator().expect("an allocator");
    World { collector, machine, allocator, references }
}

impl World {
    /// A list of `length` objects. No cycle runs meanwhile.
    fn list(&self, length: usize) -> usize {
        self.machine.inside(|inside| {
            (0..length).fold(0, |next, _| {
                let node = self
                    .allocator
                    .allocate(&inside, self.references, 2 * size_of::<usize>())
                    .expect("room");
                // SAFETY: within an object that was just allocated.
                unsafe { node.as_ptr().cast::<usize>().write(next) };
                node.address()
            })
        })
    }

    fn is_live(&self, word: usize) -> bool {
        self.collector.heap().resolve(word).is_some()
    }
}

#[test]
fn what_a_handle_or_a_global_refers_to_stays_until_it_does_no_more() {
    static GLOBAL: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
    let world = world(None);
    let start = GLOBAL.as_ptr() as usize;
    // SAFETY: a static of atomic words.
    unsafe { world.collector.add_globals(start..start + size_of_val(&GLOBAL)) };
    let (held, global, garbage) = (world.list(1000), world.list(1000), world.list(1000));
    let handle = world.collector.handles().create(held + size_of::<usize>());
    GLOBAL[3].store(global, SeqCst);
    // When the next cycle begins, what this one found dead is swept.
    let collect = || (0..2).for_each(|_| world.collector.collect());
    collect();
    assert_eq!([held, global, garbage].map(|word| world.is_live(word)), [true, true, false]);
    assert_eq!(world.collector.statistics().cycles_detail[0].objects_marked, 2000);
    drop(handle);
    collect();
    assert_eq!([held, global].map(|word| world.is_live(word)), [false, true]);
    GLOBAL[3].store(0, SeqCst);
    collect();
    assert!(!world.is_live(global));
    let statistics = world.collector.statistics();
    assert_eq!((statistics.heap.objects_swept, statistics.heap.live_bytes), (3000, 0));
    assert_eq!(
        (statistics.cycles, statistics.pauses_ns.count, statistics.cycles_detail.len()),
        (6, 6, 6)
    );
}

#[test]
fn every_request_is_answered_once_by_a_cycle_that_began_after_it() {
    let world = world(None);
    let answered = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let before = world.collector.statistics().cycles;
                    let answered = Arc::clone(&answered);
                    world.collector.request(move || _ = answered.fetch_add(1, SeqCst));
                    world.collector.collect();
                    assert!(world.collector.statistics().cycles > before);
                }
            });
        }
    });
    assert_eq!(answered.load(SeqCst), 80);
}

/// Managed code of the C convention. It sets `running`, and ends when it is asked for a safepoint,
/// which shows in the first word of its header.
extern "C-unwind" fn runs_until_asked(header: &AtomicUsize, running: &AtomicUsize) {
    running.store(1, SeqCst);
    while header.load(SeqCst) != usize::MAX {
        std::hint::spin_loop();
    }
}

#[test]
fn the_statistics_name_the_goroutines_that_were_waited_for() {
    let world = world(None);
    world.collector.collect();
    let runtime = world.collector.runtime();
    for _ in 0..3 {
        let running = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let machine = Machine::attach(runtime).expect("a new thread");
                let entry = runs_until_asked as *const () as usize;
                // SAFETY: the function makes no calls and has a small frame.
                let goroutine =
                    unsafe { runtime.spawn(entry, running.as_ptr() as usize).expect("a stack") };
                assert!(matches!(machine.run(goroutine), Left::Exited));
            });
            while running.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            world.collector.collect();
        });
    }
    let cycles = world.collector.statistics().cycles_detail;
    assert_eq!((cycles[0].answered_last, cycles[0].stopped_last), (None, None));
    for (cycle, number) in cycles[1..].iter().zip(1..) {
        let waited_for = cycle.answered_last.expect("a goroutine ran");
        assert!(waited_for.goroutine == number && waited_for.nanos > 0, "{cycle:?}");
        assert_eq!(cycle.stopped_last, None);
    }
}

#[test]
fn handles_come_and_go_on_many_threads_while_cycles_run() {
    let world = world(None);
    let shared = world.collector.handles().create(world.list(10));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let mut mine = shared.clone();
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        let copy = mine.clone();
                        mine = copy;
                    }
                    mine
                })
            })
            .collect();
        let expected = shared.get();
        drop(shared);
        for _ in 0..20 {
            world.collector.collect();
            assert!(world.is_live(expected), "some thread holds it at any time");
        }
        threads.into_iter().for_each(|thread| drop(thread.join().expect("no panic")));
    });
    assert_eq!(world.collector.handles().live(), 0);
}

#[test]
fn a_dropped_collector_ends_its_threads_and_leaves_the_heap() {
    let World { collector, machine, allocator, references } = world(Some(100));
    let heap = Arc::clone(collector.heap());
    drop(collector);
    let allocate =
        |inside: Inside<'_>| allocator.allocate(&inside, references, 16).map(|o| o.address());
    let object = machine.inside(allocate).expect("room");
    assert!(heap.resolve(object).is_some());
}
