//! Sticky marks: minor collections against a model of old and young objects.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use super::{Allocator, Descriptor, DescriptorId, MarkSweep, Options};
use crate::heap::{BY_COLLECTOR, Heap, Marked, Object};

#[derive(Clone, Debug)]
enum Step {
    /// Allocate this number of objects, of this number of bytes each.
    Allocate(usize, usize),
    /// Allocate this number of objects of 32 bytes while a minor cycle marks: black.
    AllocateBlack(usize),
    /// Drop each n-th root.
    Drop(usize),
    Minor,
    Major,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![8usize..600, 2000usize..9000, 16_000usize..80_000];
    prop_oneof![
        4 => (1usize..40, bytes).prop_map(|(n, bytes)| Step::Allocate(n, bytes / 8 * 8)),
        1 => (600usize..1500, Just(24)).prop_map(|(n, bytes)| Step::Allocate(n, bytes)),
        1 => (1usize..600).prop_map(Step::AllocateBlack),
        2 => (1usize..5).prop_map(Step::Drop),
        4 => Just(Step::Minor),
        1 => Just(Step::Major),
    ]
}

struct Tested {
    heap: Arc<MarkSweep>,
    allocator: Allocator,
    descriptor: DescriptorId,
    stamp: usize,
    /// Address and stamp of rooted objects.
    rooted: Vec<(usize, usize)>,
    /// Address and stamp of old objects that are not rooted.
    floating: Vec<(usize, usize)>,
    /// How many young objects are not rooted.
    dead: usize,
    swept: u64,
    old: std::collections::HashSet<usize>,
}

fn word(object: usize) -> &'static AtomicUsize {
    // SAFETY: the first word of an object that the heap has not freed.
    unsafe { AtomicUsize::from_ptr(object as *mut usize) }
}

impl Tested {
    fn new() -> Tested {
        let heap =
            MarkSweep::new(&Options { limit: 256 << 20, poison: true, ..Options::default() })
                .expect("a heap");
        assert!(heap.keep_marks(true, BY_COLLECTOR));
        let allocator = heap.allocator().expect("an allocator");
        let descriptor = heap.register(Descriptor::no_pointers()).expect("a descriptor");
        let (rooted, floating, old) = Default::default();
        Tested { heap, allocator, descriptor, stamp: 1, rooted, floating, dead: 0, swept: 0, old }
    }

    fn allocate(&mut self, bytes: usize) -> usize {
        let object =
            self.allocator.hand_out(self.descriptor, bytes).expect("room").as_ptr() as usize;
        assert_eq!(word(object).load(Relaxed), 0, "memory is handed out zeroed");
        self.stamp += 1;
        word(object).store(self.stamp, Relaxed);
        self.rooted.push((object, self.stamp));
        object
    }

    fn named(&self, address: usize) -> Object {
        self.heap.resolve(address).expect("an object that has not been freed")
    }

    fn collect(&mut self, major: bool, black: usize) {
        let heap = Arc::clone(&self.heap);
        heap.finish_sweep(BY_COLLECTOR);
        if major {
            heap.clear_marks(BY_COLLECTOR);
            self.old.clear();
            self.dead += self.floating.len();
            self.floating.clear();
        }
        heap.begin_cycle(BY_COLLECTOR);
        let mut marked = Marked::default();
        for (address, _) in &self.rooted {
            let object = self.named(*address);
            assert_eq!(
                heap.is_marked(object),
                self.old.contains(address),
                "what is old is marked, and nothing else"
            );
            if heap.mark(object, BY_COLLECTOR) {
                marked.objects += 1;
                marked.bytes += heap.size(object) as u64;
            }
        }
        for _ in 0..black {
            let object = self.allocate(32);
            assert!(heap.is_marked(self.named(object)));
        }
        heap.end_cycle(marked, BY_COLLECTOR);
        heap.finish_sweep(BY_COLLECTOR);
        self.old = self.rooted.iter().chain(&self.floating).map(|(address, _)| *address).collect();
        let live: usize = self.old.iter().map(|address| heap.size(self.named(*address))).sum();
        assert_eq!(heap.counts().live_bytes, live as u64);
        self.swept += self.dead as u64;
        self.dead = 0;
        assert_eq!(heap.counts().objects_swept, self.swept);
    }

    fn check(&self) {
        for (address, stamp) in self.rooted.iter().chain(&self.floating) {
            assert_eq!(word(*address).load(Relaxed), *stamp, "the object is as it was");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn minor_collections_free_what_is_young_and_unmarked_and_nothing_else(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut t = Tested::new();
        for step in steps {
            match step {
                Step::Allocate(count, bytes) => {
                    for _ in 0..count {
                        t.allocate(bytes.max(8));
                    }
                }
                Step::AllocateBlack(count) => t.collect(false, count),
                Step::Drop(every) => {
                    let mut at = 0;
                    let is_dropped = |_: &mut (usize, usize)| {
                        at += 1;
                        at % every == 0
                    };
                    let dropped: Vec<_> = t.rooted.extract_if(.., is_dropped).collect();
                    for object in dropped {
                        if t.old.contains(&object.0) {
                            t.floating.push(object);
                        } else {
                            t.dead += 1;
                        }
                    }
                }
                Step::Minor => t.collect(false, 0),
                Step::Major => t.collect(true, 0),
            }
            t.check();
        }
    }
}

#[test]
fn a_minor_collection_does_not_sweep_blocks_full_of_old_objects() {
    let mut t = Tested::new();
    for _ in 0..100_000 {
        t.allocate(32);
    }
    t.collect(false, 0);
    t.allocate(32);
    t.heap.begin_cycle(BY_COLLECTOR);
    t.heap.end_cycle(Marked::default(), BY_COLLECTOR);
    let unswept: usize = t
        .heap
        .registry
        .used_spaces()
        .iter()
        .map(|space| t.heap.registry.space(*space).lock().unswept.len())
        .sum();
    assert!((1..=2).contains(&unswept), "{unswept} blocks");
}
