//! Programs of LLVM on a heap that moves every object at every safepoint. Their derived pointers
//! keep their distance from their bases.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use stackmark::stack::{
    self, BarrierMode, Caller, CycleDriver, Goroutine, Host, Left, Machine, NextCycle, RootSink,
    RootSlot, Runtime, ScanScope, StackKind, asm,
};
use stackmark::unwind::Code;

use crate::images::{argument, libraries};
use crate::support::Library;
use crate::world::{caught, throw};

/// Words of each space.
const WORDS: usize = 1 << 16;
/// In the header of an object that has moved; the rest is its new address.
const MOVED: u64 = 1 << 63;

/// Two spaces. An object is a word with its size, and then its words, each a reference or a number.
struct Heap {
    spaces: [Box<[u64]>; 2],
    current: usize,
    used: usize,
    moved: u64,
}

impl Heap {
    fn new() -> Heap {
        let space = || vec![0; WORDS].into_boxed_slice();
        Heap { spaces: [space(), space()], current: 0, used: 0, moved: 0 }
    }

    fn addresses(&self, space: usize) -> Range<usize> {
        let words = self.spaces[space].as_ptr_range();
        words.start as usize..words.end as usize
    }

    fn allocate(&mut self, words: usize) -> usize {
        let space = &mut self.spaces[self.current][self.used..];
        space[..words + 1].fill(0);
        space[0] = words as u64;
        self.used += words + 1;
        &raw const space[1] as usize
    }

    /// The index of an object of a space, by its address.
    fn index(&self, space: usize, object: usize) -> usize {
        (object - self.addresses(space).start) / size_of::<u64>() - 1
    }

    /// Where an object of the last space is now: it moves if it has not yet.
    fn forward(&mut self, word: usize) -> usize {
        let from = 1 - self.current;
        if !self.addresses(from).contains(&word) {
            return word;
        }
        let at = self.index(from, word);
        let header = self.spaces[from][at];
        if header & MOVED != 0 {
            return (header & !MOVED) as usize;
        }
        let new = self.allocate(header as usize);
        let to = self.index(self.current, new) + 1;
        let [old, fresh] = &mut self.spaces;
        let (old, fresh) = if from == 0 { (old, fresh) } else { (fresh, old) };
        fresh[to..to + header as usize].copy_from_slice(&old[at + 1..at + 1 + header as usize]);
        old[at] = MOVED | new as u64;
        self.moved += 1;
        new
    }

    /// Moves all objects that the roots lead to. The old space has no object afterwards.
    fn move_all(&mut self, roots: &[RootSlot]) {
        self.current = 1 - self.current;
        self.used = 0;
        let roots = pairs(roots);
        // SAFETY: the places of roots, while the world stands still.
        let read = |at: usize| unsafe { *(at as *const usize) };
        let values: Vec<_> = roots.iter().map(|&(b, d)| (read(b), read(d))).collect();
        for (&(base, derived), (object, pointer)) in roots.iter().zip(values) {
            let new = self.forward(object);
            // SAFETY: as above.
            unsafe {
                *(base as *mut usize) = new;
                *(derived as *mut usize) = new.wrapping_add(pointer.wrapping_sub(object));
            }
        }
        let mut next = 0;
        while next < self.used {
            let end = next + 1 + self.spaces[self.current][next] as usize;
            for at in next + 1..end {
                let word = self.spaces[self.current][at] as usize;
                self.spaces[self.current][at] = self.forward(word) as u64;
            }
            next = end;
        }
        self.spaces[1 - self.current].fill(0);
    }

    /// Whether each root refers to an object, or is null, and each derived pointer lies within the
    /// object of its base or at its end.
    fn is_right(&self, roots: &[RootSlot]) -> bool {
        let here = self.addresses(self.current);
        pairs(roots).into_iter().all(|(base, derived)| {
            // SAFETY: as in `move_all`.
            let (object, pointer) =
                unsafe { (*(base as *const usize), *(derived as *const usize)) };
            if !here.contains(&object) {
                return false;
            }
            let words = self.spaces[self.current][self.index(self.current, object)] as usize;
            (object..=object + words * size_of::<u64>()).contains(&pointer)
        })
    }
}

/// The places of references, with those derived from them.
fn pairs(roots: &[RootSlot]) -> Vec<(usize, usize)> {
    let pair = |root: &RootSlot| match *root {
        RootSlot::Reference { base, derived } => (base, derived),
        RootSlot::Ambiguous(at) => panic!("the program has handed over no word: {at:#x}"),
    };
    roots.iter().map(pair).collect()
}

struct World {
    heap: RefCell<Heap>,
    cycles: RefCell<CycleDriver>,
    /// The number of cycles, and of roots whose derived pointers differed from their bases.
    count: Cell<u64>,
    derived: Cell<u64>,
}

thread_local! {
    /// The world of the program that runs on this thread.
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

fn with<R>(f: impl FnOnce(&World) -> R) -> R {
    WORLD.with(|world| f(world.get().expect("the program runs on the thread that made its world")))
}

/// Moves everything. Called on the goroutine's thread, by native code that holds no reference.
fn collect() {
    // SAFETY: used within this function, which native code of this thread's goroutine calls.
    let caller = unsafe { Caller::current() };
    let collect = |world: &World| {
        let number = world.count.get() + 1;
        world.count.set(number);
        let mut cycles = world.cycles.borrow_mut();
        assert!(cycles.begin_scanning(number, ScanScope::Whole));
        cycles.stop_world(|stopped| {
            let roots = RefCell::new(Vec::new());
            let to = |slots: &[RootSlot]| roots.borrow_mut().extend_from_slice(slots);
            stopped.begin_slots(&to).expect("stacks that can be walked");
            while stopped.visit_slots(&to).expect("stacks that can be walked") {}
            let roots = roots.into_inner();
            let mut heap = world.heap.borrow_mut();
            assert!(heap.is_right(&roots), "before");
            // SAFETY: the places of roots, while the world stands still.
            let read = |at: usize| unsafe { *(at as *const usize) };
            let differs = |&&(base, derived): &&(usize, usize)| read(base) != read(derived);
            let differing = pairs(&roots).iter().filter(differs).count();
            world.derived.set(world.derived.get() + differing as u64);
            heap.move_all(&roots);
            assert!(heap.is_right(&roots), "after");
            // The control: a place that is left as it was is noticed.
            if let Some(&(_, derived)) = pairs(&roots).first() {
                let now = read(derived);
                let old = now ^ heap.addresses(0).start ^ heap.addresses(1).start;
                // SAFETY: as above.
                let write = |word| unsafe { *(derived as *mut usize) = word };
                write(old);
                assert!(!heap.is_right(&roots), "a place that was not written");
                write(now);
            }
            stopped.end_scanning(NextCycle::IsWhole);
        });
    };
    caller.foreign(|| with(collect));
}

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }

    fn at_poll(&self, _goroutine: &Goroutine) {
        collect();
    }
}

struct NoWords;

impl RootSink for NoWords {
    fn roots(&self, words: &[usize]) {
        assert!(words.is_empty(), "the cycles have places alone: {words:x?}");
    }
}

unsafe extern "C-unwind" fn new(words: *mut c_void, _: usize) -> usize {
    collect();
    with(|world| world.heap.borrow_mut().allocate(words as usize))
}

/// Called before each store, with the place of the store live in the managed frame.
unsafe extern "C-unwind" fn before_store(_: *mut c_void, _: usize) -> usize {
    collect();
    0
}

/// The flag of the write barrier: on.
static ON: u64 = 1;

/// Runs the program. Returns the number of cycles, of objects moved, and of roots that were derived
/// from others.
fn run(library: &Library, barriers: BarrierMode, argument: &mut [u64]) -> [u64; 3] {
    let config =
        stack::Config { barriers, poll_always: true, poison: true, ..stack::Config::default() };
    let code = Arc::new(Code::new());
    let runtime = Runtime::new(config, code, Box::new(Embedder)).expect("a runtime");
    let image = runtime.register_image(library.address("entry")).expect("a correct image");
    let natives = [
        asm::call_system_address(),
        stack::poll as *const () as usize,
        new as *const () as usize,
        before_store as *const () as usize,
        &raw const ON as usize,
        throw as *const () as usize,
        caught as *const () as usize,
    ];
    // SAFETY: the program's table, of seven words.
    unsafe {
        let host = library.address("host") as *mut usize;
        std::ptr::copy_nonoverlapping(natives.as_ptr(), host, natives.len());
    }
    let cycles = CycleDriver::new(&runtime, Arc::new(NoWords)).expect("one collector");
    let world = World {
        heap: RefCell::new(Heap::new()),
        cycles: RefCell::new(cycles),
        count: Cell::new(0),
        derived: Cell::new(0),
    };
    WORLD.with(|cell| assert!(cell.set(world).is_ok(), "one program a thread"));
    let machine = Machine::attach(&runtime).expect("a thread of its own");
    let argument = stack::Word::Plain(argument.as_mut_ptr() as usize);
    // SAFETY: as in `world.rs`. No store needs a barrier: no cycle marks while the program runs.
    let goroutine =
        unsafe { runtime.spawn_on(StackKind::Fixed, library.address("entry"), argument) };
    let mut next = goroutine.expect("a stack");
    while let Left::Yielded(goroutine) = machine.run(next) {
        next = goroutine;
    }
    drop(machine);
    runtime.unregister_image(&image).expect("no frame is left");
    with(|world| [world.count.get(), world.heap.borrow().moved, world.derived.get()])
}

#[test]
fn images_run_on_a_heap_that_moves_every_object_at_every_safepoint() {
    for (name, library) in &libraries() {
        for barriers in [BarrierMode::Incremental, BarrierMode::EveryFrame, BarrierMode::Off] {
            let (mut argument, expected) = argument(4, 20);
            let [cycles, moved, derived] = std::thread::scope(|scope| {
                let thread = scope.spawn(|| run(library, barriers, &mut argument));
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            assert_eq!(argument, expected, "{name}, {barriers}");
            assert!(cycles > 200 && moved > 1000, "{name}: {cycles} cycles, {moved} moved");
            assert!(derived > 10, "{name}: {derived} derived pointers");
        }
    }
}
