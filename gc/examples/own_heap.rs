//! A heap of one's own under the collector: cells of one size, handed out from the bottom up and
//! from a list of free ones, with a mark for each. Everything is done the simplest way; what
//! matters is that the contract of [`Heap`] is kept.
//!
//! `cargo run -p stackmark --example own_heap`; it checks what it shows.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};

use stackmark::heap::{GrowthListener, Heap, HeapCounts, Marked, Object};
use stackmark::stack::{self, Goroutine, Host, Left, Machine, Runtime};
use stackmark::{Collector, Config, unwind::Code};

/// Words of a cell. Each may be a reference.
const WORDS: usize = 4;
const CELL: usize = WORDS * 8;

/// Cells, and what the heap knows of them.
struct Cells {
    memory: Box<[[AtomicUsize; WORDS]]>,
    /// 0: free. 1: an object. 2: a marked object.
    states: Box<[AtomicUsize]>,
    inner: Mutex<Inner>,
    allocated: AtomicU64,
    at_end: AtomicU64,
    swept: AtomicU64,
    marked: AtomicU64,
    live: AtomicU64,
    trigger: AtomicUsize,
    growth: OnceLock<Box<dyn GrowthListener>>,
}

#[derive(Default)]
struct Inner {
    /// Cells below it have been handed out.
    next: usize,
    free: Vec<usize>,
    /// Objects are born black.
    black: bool,
    /// The last cycle's garbage has not been swept.
    unswept: bool,
}

impl Cells {
    fn new(cells: usize) -> Arc<Cells> {
        Arc::new(Cells {
            memory: (0..cells).map(|_| Default::default()).collect(),
            states: (0..cells).map(|_| AtomicUsize::new(0)).collect(),
            inner: Mutex::default(),
            allocated: AtomicU64::new(0),
            at_end: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            marked: AtomicU64::new(0),
            live: AtomicU64::new(0),
            trigger: AtomicUsize::new(usize::MAX),
            growth: OnceLock::new(),
        })
    }

    /// A new object, all zero.
    fn allocate(&self) -> Option<usize> {
        let mut inner = self.inner.lock().expect("nobody panics");
        if inner.free.is_empty() && inner.unswept {
            self.sweep(&mut inner);
        }
        let cell = inner.free.pop().or_else(|| {
            inner.next += 1;
            (inner.next <= self.memory.len()).then(|| inner.next - 1)
        })?;
        self.memory[cell].iter().for_each(|word| word.store(0, Relaxed));
        // Release: whoever resolves a word to the object sees zeros or newer there.
        self.states[cell].store(if inner.black { 2 } else { 1 }, Release);
        let black = inner.black;
        drop(inner);
        self.allocated.fetch_add(CELL as u64, Relaxed);
        if let Some(growth) = self.growth.get() {
            if black {
                growth.handed_out(CELL);
            }
            if self.allocated_since_cycle() >= self.trigger.load(Relaxed) {
                self.trigger.store(usize::MAX, Relaxed);
                growth.reached_trigger();
            }
        }
        Some(self.memory[cell].as_ptr() as usize)
    }

    fn sweep(&self, inner: &mut Inner) {
        let mut live = 0;
        for (cell, state) in self.states[..inner.next.min(self.memory.len())].iter().enumerate() {
            match state.load(Relaxed) {
                2 => {
                    live += CELL as u64;
                    state.store(1, Relaxed);
                }
                1 => {
                    state.store(0, Relaxed);
                    inner.free.push(cell);
                    self.swept.fetch_add(1, Relaxed);
                }
                _ => {}
            }
        }
        self.live.store(live, Relaxed);
        inner.unswept = false;
    }

    fn cell(&self, object: Object) -> usize {
        (object.address() - self.memory.as_ptr() as usize) / CELL
    }
}

// SAFETY: a cell whose state is not 0 is an object; sweeping frees those with state 1 alone, and
// what is marked, or born while marking is on, has state 2; `trace` visits every word.
unsafe impl Heap for Cells {
    fn resolve(&self, word: usize) -> Option<Object> {
        let start = self.memory.as_ptr() as usize;
        let cell = word.checked_sub(start)? / CELL;
        let address = NonZeroUsize::new(start + cell * CELL)?;
        // SAFETY: an object begins there: the state says so.
        (self.states.get(cell)?.load(Acquire) != 0)
            .then(|| unsafe { Object::from_address(address) })
    }

    fn mark(&self, object: Object) -> bool {
        self.states[self.cell(object)].swap(2, Relaxed) == 1
    }

    fn is_marked(&self, object: Object) -> bool {
        self.states[self.cell(object)].load(Relaxed) == 2
    }

    fn size(&self, _object: Object) -> usize {
        CELL
    }

    fn trace(&self, object: Object, range: Range<usize>, visit: &mut impl FnMut(usize)) {
        let words = self.memory[self.cell(object)].iter().enumerate();
        words
            .filter(|(i, _)| range.contains(&(i * 8)))
            .for_each(|(_, word)| visit(word.load(Relaxed)));
    }

    fn begin_cycle(&self) {
        self.finish_sweep();
        self.inner.lock().expect("nobody panics").black = true;
    }

    fn end_cycle(&self, marked: Marked) {
        let mut inner = self.inner.lock().expect("nobody panics");
        inner.black = false;
        inner.unswept = true;
        self.marked.fetch_add(marked.objects, Relaxed);
        self.at_end.store(self.allocated.load(Relaxed), Relaxed);
    }

    fn finish_sweep(&self) {
        let mut inner = self.inner.lock().expect("nobody panics");
        if inner.unswept {
            self.sweep(&mut inner);
        }
    }

    fn set_trigger(&self, bytes: usize) {
        self.trigger.store(bytes, Relaxed);
    }

    fn on_growth(&self, growth: Box<dyn GrowthListener>) {
        let _ = self.growth.set(growth);
    }

    fn allocated_since_cycle(&self) -> usize {
        (self.allocated.load(Relaxed) - self.at_end.load(Relaxed)) as usize
    }

    fn counts(&self) -> HeapCounts {
        HeapCounts {
            allocated_bytes: self.allocated.load(Relaxed),
            objects_marked: self.marked.load(Relaxed),
            objects_swept: self.swept.load(Relaxed),
            live_bytes: self.live.load(Relaxed),
            resident_bytes: (self.memory.len() * CELL) as u64,
        }
    }
}

/// Managed code of the C convention that makes no calls: it reverses the list that it is given, in
/// place. (It has no safepoint, so it runs between two cycles or within one that waits for it, and
/// needs no write barrier.)
extern "C-unwind" fn reverse(_goroutine: usize, holder: &[AtomicUsize; WORDS]) {
    let (mut done, mut rest) = (0, holder[0].load(Relaxed));
    while rest != 0 {
        // SAFETY: the list consists of cells of the heap.
        let node = unsafe { &*(rest as *const [AtomicUsize; WORDS]) };
        let next = node[0].swap(done, Relaxed);
        (done, rest) = (rest, next);
    }
    holder[0].store(done, Relaxed);
}

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let heap = Cells::new(40_000);
    let runtime =
        Runtime::new(stack::Config::default(), Arc::new(Code::new()), Box::new(Embedder))?;
    let config = Config { percent: None, verify: true, ..Config::default() };
    let collector = Collector::start(Arc::clone(&heap), Arc::clone(&runtime), &config)?;
    let machine = Machine::attach(&runtime)?;

    // SAFETY: what it is called with are live cells of the heap.
    let word = |object: usize| unsafe { &(*(object as *const [AtomicUsize; WORDS]))[0] };
    // A list of 1,000 among much garbage, made between cycles. The heap holds all of it eight times
    // only because garbage is collected.
    for round in 0..30 {
        let holder = collector.handles().create(heap.allocate().expect("room"));
        for _ in 0..1_000 {
            let node = heap.allocate().expect("room: garbage is collected");
            word(node).store(word(holder.get()).load(Relaxed), Relaxed);
            word(holder.get()).store(node, Relaxed);
            (0..3).for_each(|_| _ = heap.allocate().expect("room: garbage is collected"));
        }
        let first = word(holder.get()).load(Relaxed);
        // SAFETY: `reverse` keeps the contracts: it makes no calls and has a small frame.
        let goroutine = unsafe { runtime.spawn(reverse as *const () as usize, holder.get())? };
        assert!(matches!(machine.run(goroutine), Left::Exited));
        collector.collect();
        let mut length = 0;
        let mut at = word(holder.get()).load(Relaxed);
        let mut last = 0;
        while at != 0 {
            length += 1;
            (last, at) = (at, word(at).load(Relaxed));
        }
        assert_eq!(
            (length, last),
            (1_000, first),
            "round {round}: the list is whole, and reversed"
        );
    }
    drop(machine);
    collector.collect();
    collector.collect();
    let statistics = collector.statistics();
    assert_eq!(statistics.heap.live_bytes, 0);
    assert_eq!(statistics.heap.objects_swept, 30 * 4_001);
    println!("{} cycles, {} objects swept", statistics.cycles, statistics.heap.objects_swept);
    Ok(())
}

#[test]
fn a_heap_of_ones_own_keeps_what_is_reachable_and_takes_back_the_rest() {
    main().expect("it checks itself");
}
