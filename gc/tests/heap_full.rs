//! A full heap: a thread that allocates waits for a collection, and goes on.

use std::sync::Arc;

use stackmark::mark_sweep::{
    AllocationError, Allocator, Descriptor, DescriptorId, MarkSweep, Options,
};
use stackmark::stack::{self, Goroutine, Host, Machine, Runtime};
use stackmark::{Collector, Config, handle::Handle, heap::Heap, unwind::Code};

const LIMIT: usize = 8 << 20;
/// Bytes that are live at a time.
const LIVE: usize = 64 << 10;
/// Bytes of an object.
const OBJECT: usize = 1 << 10;

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }
}

struct World {
    runtime: Arc<Runtime>,
    heap: Arc<MarkSweep>,
    collector: Collector<MarkSweep>,
    bytes: DescriptorId,
}

fn world(percent: Option<u32>) -> World {
    let runtime = Runtime::new(stack::Config::default(), Arc::new(Code::new()), Box::new(Embedder))
        .expect("a runtime");
    let heap = MarkSweep::new(&Options { limit: LIMIT, poison: true, ..Options::default() })
        .expect("a heap");
    let config = Config { workers: 1, percent, verify: true, ..Config::default() };
    let collector = Collector::start(heap.clone(), runtime.clone(), &config).expect("a collector");
    let bytes = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    World { runtime, heap, collector, bytes }
}

impl World {
    // ANCHOR: retry
    fn allocate(&self, on: &(Machine, Allocator), bytes: usize) -> Result<Handle, AllocationError> {
        self.collector.retry_when_full(|| {
            on.0.inside(|inside| {
                let fresh = on.1.allocate(&inside, self.bytes, bytes)?;
                Ok(self.collector.handles().create_fresh(&fresh))
            })
        })
    }
    // ANCHOR_END: retry

    fn attach(&self) -> (Machine, Allocator) {
        let machine = Machine::attach(&self.runtime).expect("a new thread");
        (machine, self.heap.allocator().expect("an allocator"))
    }
}

#[test]
fn threads_allocate_many_times_the_limit_while_little_is_live() {
    for percent in [Some(100), None] {
        let world = world(percent);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let on = world.attach();
                    let mut live: Vec<_> = (0..LIVE / OBJECT).map(|_| None).collect();
                    for i in 0..10 * LIMIT / OBJECT {
                        let at = i % live.len();
                        live[at] = Some(world.allocate(&on, OBJECT).expect("little is live"));
                    }
                });
            }
        });
        assert!(world.heap.counts().allocated_bytes >= 20 * LIMIT as u64);
    }
}

#[test]
fn what_collections_make_no_room_for_is_refused() {
    let world = world(None);
    let on = world.attach();
    // More than the limit: no collection is waited for.
    let huge = world.allocate(&on, 2 * LIMIT);
    assert!(matches!(huge, Err(AllocationError::OutOfMemory { .. })), "{huge:?}");
    assert_eq!(world.collector.statistics().cycles, 0);
    let mut live = Vec::new();
    let error = loop {
        match world.allocate(&on, OBJECT) {
            Ok(object) => live.push(object),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AllocationError::OutOfMemory { .. }), "{error}");
    assert!(live.len() * OBJECT > LIMIT * 9 / 10, "{} objects", live.len());
    assert!(world.collector.statistics().cycles > 0);
    live.clear();
    assert!(world.allocate(&on, OBJECT).is_ok(), "there is room again");
}
