//! An embedder's own heap under the collector. Cells of one size are handed out from the bottom up
//! and from a list of free ones; each has a mark. Everything is done the simplest way that keeps
//! the contract of [`Heap`].
//!
//! Run it with `cargo run -p stackmark --example own_heap`. It checks what it shows.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize, fence};
use std::sync::{Arc, Mutex};

use stackmark::heap::{CycleRight, Fresh, Heap, HeapCounts, HeapOwner, Marked, Object};
use stackmark::stack::{self, Goroutine, Host, Inside, Left, Machine, Runtime};
use stackmark::{Collector, Config, unwind::Code};

/// Words of a cell. Each may be a reference.
const WORDS: usize = 4;
/// Bytes of a word.
const WORD: usize = size_of::<usize>();
/// Bytes of a cell.
const CELL: usize = WORDS * WORD;

/// The heap.
struct Cells {
    memory: Box<[[AtomicUsize; WORDS]]>,
    /// 0: free. 1: an object. 2: a marked object.
    states: Box<[AtomicUsize]>,
    supply: Mutex<Supply>,
    allocated: AtomicU64,
    /// `allocated` when the last cycle ended.
    at_end: AtomicU64,
    swept: AtomicU64,
    marked: AtomicU64,
    live: AtomicU64,
    trigger: AtomicUsize,
    owner: HeapOwner,
}

/// What the lock guards: where cells come from.
#[derive(Default)]
struct Supply {
    /// Cells from here on were never handed out.
    next: usize,
    free: Vec<usize>,
    /// Objects are handed out black.
    black: bool,
    /// The last cycle's garbage has not been swept.
    unswept: bool,
}

impl Cells {
    fn new(cells: usize) -> Arc<Cells> {
        Arc::new(Cells {
            memory: (0..cells).map(|_| Default::default()).collect(),
            states: (0..cells).map(|_| AtomicUsize::new(0)).collect(),
            supply: Mutex::default(),
            allocated: AtomicU64::new(0),
            at_end: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            marked: AtomicU64::new(0),
            live: AtomicU64::new(0),
            trigger: AtomicUsize::new(usize::MAX),
            owner: HeapOwner::new(),
        })
    }

    /// A new object, all zero. `None` if there is no room, or if the thread may not allocate.
    fn allocate<'i>(&self, inside: &Inside<'i>) -> Option<Fresh<'i>> {
        self.owner.admit(inside).ok()?;
        let mut supply = self.supply.lock().expect("no thread panics");
        if supply.free.is_empty() && supply.unswept {
            self.sweep(&mut supply);
        }
        let cell = supply.free.pop().or_else(|| {
            supply.next += 1;
            (supply.next <= self.memory.len()).then(|| supply.next - 1)
        })?;
        self.memory[cell].iter().for_each(|word| word.store(0, Relaxed));
        // Release: a thread that resolves a word to the object sees zeros or newer contents.
        self.states[cell].store(if supply.black { 2 } else { 1 }, Release);
        // A reference that is stored without order is not seen before the state.
        fence(Release);
        let black = supply.black;
        drop(supply);
        self.allocated.fetch_add(CELL as u64, Relaxed);
        if black {
            self.owner.handed_out(inside, CELL);
        }
        if self.allocated_since_cycle() >= self.trigger.load(Relaxed) {
            self.trigger.store(usize::MAX, Relaxed);
            self.owner.reached_trigger();
        }
        let address = NonZeroUsize::new(self.memory[cell].as_ptr() as usize)?;
        // SAFETY: the cell was handed out just now.
        Some(unsafe { Fresh::new(address, inside) })
    }

    fn sweep(&self, supply: &mut Supply) {
        let mut live = 0;
        for (cell, state) in self.states[..supply.next.min(self.memory.len())].iter().enumerate() {
            match state.load(Relaxed) {
                2 => {
                    live += CELL as u64;
                    state.store(1, Relaxed);
                }
                1 => {
                    state.store(0, Relaxed);
                    supply.free.push(cell);
                    self.swept.fetch_add(1, Relaxed);
                }
                _ => {}
            }
        }
        self.live.store(live, Relaxed);
        supply.unswept = false;
    }

    fn cell(&self, object: Object) -> usize {
        (object.address() - self.memory.as_ptr() as usize) / CELL
    }
}

// SAFETY: a cell with another state than 0 is an object. Sweeping frees only cells with state 1.
// Objects that are marked, or handed out while marking is on, have state 2. `trace` visits every
// word.
unsafe impl Heap for Cells {
    fn resolve(&self, word: usize) -> Option<Object> {
        let start = self.memory.as_ptr() as usize;
        let cell = word.checked_sub(start)? / CELL;
        let address = NonZeroUsize::new(start + cell * CELL)?;
        // SAFETY: the state says that an object begins there.
        (self.states.get(cell)?.load(Acquire) != 0)
            .then(|| unsafe { Object::from_address(address) })
    }

    fn mark(&self, object: Object, _right: &CycleRight) -> bool {
        self.states[self.cell(object)].swap(2, Relaxed) == 1
    }

    fn is_marked(&self, object: Object) -> bool {
        self.states[self.cell(object)].load(Relaxed) == 2
    }

    fn size(&self, _object: Object) -> usize {
        CELL
    }

    fn trace(
        &self,
        object: Object,
        range: Range<usize>,
        visit: &mut impl FnMut(usize),
        _right: &CycleRight,
    ) -> usize {
        let words = self.memory[self.cell(object)].iter().enumerate();
        words
            .filter(|(i, _)| range.contains(&(i * WORD)))
            .for_each(|(_, word)| visit(word.load(Relaxed)));
        CELL
    }

    fn begin_cycle(&self, right: &CycleRight) {
        self.finish_sweep(right);
        self.supply.lock().expect("no thread panics").black = true;
    }

    fn end_cycle(&self, marked: Marked, _right: &CycleRight) {
        let mut supply = self.supply.lock().expect("no thread panics");
        supply.black = false;
        supply.unswept = true;
        self.marked.fetch_add(marked.objects, Relaxed);
        self.at_end.store(self.allocated.load(Relaxed), Relaxed);
    }

    fn finish_sweep(&self, _right: &CycleRight) {
        let mut supply = self.supply.lock().expect("no thread panics");
        if supply.unswept {
            self.sweep(&mut supply);
        }
    }

    fn set_trigger(&self, bytes: usize, _right: &CycleRight) {
        self.trigger.store(bytes, Relaxed);
    }

    fn owner(&self) -> &HeapOwner {
        &self.owner
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

/// Managed code of the C convention that makes no calls. It reverses the list in `holder` in place.
/// It has no safepoint, so it runs between two cycles, or within one that waits for it, and needs
/// no write barrier.
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

    // SAFETY: it is called with live cells of the heap.
    let word = |object: usize| unsafe { &(*(object as *const [AtomicUsize; WORDS]))[0] };
    // Lists of 1,000 nodes among much garbage, made between cycles. In all 120,030 cells are
    // allocated; the heap has 40,000.
    for round in 0..30 {
        let holder = machine.inside(|inside| {
            let holder = collector.handles().create_fresh(&heap.allocate(&inside).expect("room"));
            for _ in 0..1_000 {
                let allocate = || heap.allocate(&inside).expect("room: garbage is collected");
                let node = allocate().address();
                word(node).store(word(holder.get()).load(Relaxed), Relaxed);
                word(holder.get()).store(node, Relaxed);
                (0..3).for_each(|_| _ = allocate());
            }
            holder
        });
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
fn an_embedders_heap_keeps_what_is_reachable_and_takes_back_the_rest() {
    main().expect("it checks itself");
}
