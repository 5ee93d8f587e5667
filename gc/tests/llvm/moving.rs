//! Programs of LLVM on a heap that moves every object at every safepoint, or every young one. Their
//! derived pointers keep their distance from their bases.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::c_void;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use stackmark::stack::{
    self, BarrierMode, Caller, CycleDriver, CycleStopped, Goroutine, Host, Left, Machine,
    NextCycle, RootSink, RootSlot, Runtime, ScanScope, StackKind, asm,
};
use stackmark::unwind::Code;

use crate::images::{HAS_BARRIERS, argument, libraries};
use crate::support::Library;
use crate::world::{caught, throw};

/// Words of each space.
const WORDS: usize = 1 << 16;
/// In the header of an object that has moved; the rest is its new address.
const MOVED: u64 = 1 << 63;

/// Which objects move, and how their places are found.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scans {
    /// All, by one thread.
    Whole,
    /// All, a few frames at a time, by several threads at times.
    Chunked,
    /// As a rule those made since the last time, by short scans.
    Short,
}

/// One of so many scans is whole where the others are short.
const WHOLE_OF_SHORT: u64 = 8;

/// One of so many scans by chunks is by several threads. Emulators keep memory for each thread that
/// ever was.
const OF_SEVERAL_THREADS: u64 = 8;

/// The space that objects are made in. They move to one of the first two.
const YOUNG: usize = 2;

/// Three spaces. An object is a word with its size, and then its words, each a reference or a
/// number.
struct Heap {
    spaces: [Box<[u64]>; 3],
    used: [usize; 3],
    /// The space of old objects.
    current: usize,
    moved: u64,
}

impl Heap {
    fn new() -> Heap {
        let space = || vec![0; WORDS].into_boxed_slice();
        Heap { spaces: [space(), space(), space()], used: [0; 3], current: 0, moved: 0 }
    }

    fn addresses(&self, space: usize) -> Range<usize> {
        let words = self.spaces[space].as_ptr_range();
        words.start as usize..words.end as usize
    }

    /// The space that has an object.
    fn space_of(&self, word: usize) -> Option<usize> {
        (0..self.spaces.len()).find(|space| self.addresses(*space).contains(&word))
    }

    fn allocate(&mut self, words: usize, to: usize) -> usize {
        let space = &mut self.spaces[to][self.used[to]..];
        space[..words + 1].fill(0);
        space[0] = words as u64;
        self.used[to] += words + 1;
        &raw const space[1] as usize
    }

    /// The index of an object of a space, by its address.
    fn index(&self, space: usize, object: usize) -> usize {
        (object - self.addresses(space).start) / size_of::<u64>() - 1
    }

    /// Where an object is now: one of another space than the current one moves if it has not yet.
    fn forward(&mut self, word: usize) -> usize {
        let Some(from) = self.space_of(word).filter(|from| *from != self.current) else {
            return word;
        };
        let at = self.index(from, word);
        let header = self.spaces[from][at];
        if header & MOVED != 0 {
            return (header & !MOVED) as usize;
        }
        let new = self.allocate(header as usize, self.current);
        let to = self.index(self.current, new) + 1;
        for word in 0..header as usize {
            self.spaces[self.current][to + word] = self.spaces[from][at + 1 + word];
        }
        self.spaces[from][at] = MOVED | new as u64;
        self.moved += 1;
        new
    }

    /// Moves all objects that the roots lead to, or the young ones of them. Where they were is no
    /// object afterwards.
    fn move_objects(&mut self, roots: &[RootSlot], old_ones: bool) {
        let mut next = self.used[self.current];
        if old_ones {
            self.current = 1 - self.current;
            next = 0;
        } else {
            // What was young was promoted before each store, so nothing old refers to it.
            let young = self.addresses(YOUNG);
            let old = &self.spaces[self.current][..next];
            assert!(!old.iter().any(|word| young.contains(&(*word as usize))), "an old reference");
        }
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
        while next < self.used[self.current] {
            let end = next + 1 + self.spaces[self.current][next] as usize;
            for at in next + 1..end {
                let word = self.spaces[self.current][at] as usize;
                self.spaces[self.current][at] = self.forward(word) as u64;
            }
            next = end;
        }
        let left = if old_ones { [1 - self.current, YOUNG] } else { [YOUNG; 2] };
        for space in left {
            self.spaces[space].fill(0);
            self.used[space] = 0;
        }
    }

    /// Whether each root refers to an object of these spaces, and each derived pointer lies within
    /// the object of its base or at its end.
    fn is_right(&self, roots: &[RootSlot], spaces: &[usize]) -> bool {
        pairs(roots).into_iter().all(|(base, derived)| {
            // SAFETY: as in `move_all`.
            let (object, pointer) =
                unsafe { (*(base as *const usize), *(derived as *const usize)) };
            let space = self.space_of(object);
            let Some(space) = space.filter(|space| spaces.contains(space)) else {
                return false;
            };
            let words = self.spaces[space][self.index(space, object)] as usize;
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

/// What a program has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    cycles: u64,
    moved: u64,
    /// Roots whose derived pointers differed from their bases, and whose bases moved.
    derived: u64,
    /// Of them, those of short scans, and those that one of several threads has visited.
    derived_in_short: u64,
    derived_in_chunks: u64,
}

struct World {
    heap: RefCell<Heap>,
    cycles: RefCell<CycleDriver>,
    scans: Scans,
    stores: Cell<u64>,
    shown: Cell<Shown>,
}

thread_local! {
    /// The world of the program that runs on this thread.
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

fn with<R>(f: impl FnOnce(&World) -> R) -> R {
    WORLD.with(|world| f(world.get().expect("the program runs on the thread that made its world")))
}

/// Moves objects. Called on the goroutine's thread, by native code that holds no reference.
fn collect() {
    // SAFETY: used within this function, which native code of this thread's goroutine calls.
    let caller = unsafe { Caller::current() };
    caller.foreign(|| with(collect_in));
}

fn collect_in(world: &World) {
    let mut shown = world.shown.get();
    let is_short = world.scans == Scans::Short && !shown.cycles.is_multiple_of(WHOLE_OF_SHORT);
    let (scope, next) = match world.scans {
        Scans::Short if is_short => (ScanScope::Short, NextCycle::MayBeShort),
        Scans::Short => (ScanScope::Whole, NextCycle::MayBeShort),
        Scans::Whole | Scans::Chunked => (ScanScope::Whole, NextCycle::IsWhole),
    };
    shown.cycles += 1;
    let mut cycles = world.cycles.borrow_mut();
    assert!(cycles.begin_scanning(shown.cycles, scope));
    cycles.stop_world(|stopped| {
        let with_others =
            world.scans == Scans::Chunked && shown.cycles.is_multiple_of(OF_SEVERAL_THREADS);
        let (mut roots, in_chunks) = slots(stopped, with_others);
        let mut heap = world.heap.borrow_mut();
        assert!(heap.is_right(&roots, &[heap.current, YOUNG]), "before");
        let moves = |&&(base, derived): &&(usize, usize)| {
            // SAFETY: the places of roots, while the world stands still.
            let (object, pointer) =
                unsafe { (*(base as *const usize), *(derived as *const usize)) };
            object != pointer && (!is_short || heap.space_of(object) == Some(YOUNG))
        };
        let count = |roots: &[RootSlot]| pairs(roots).iter().filter(moves).count() as u64;
        shown.derived_in_chunks += count(&in_chunks);
        roots.extend(in_chunks);
        let derived = count(&roots);
        shown.derived += derived;
        shown.derived_in_short += if is_short { derived } else { 0 };
        heap.move_objects(&roots, !is_short);
        // Whatever was visited, all roots of whole stacks are right now.
        let all = RefCell::new(Vec::new());
        let taken = stopped.all_slots(&|slots| all.borrow_mut().extend_from_slice(slots));
        taken.expect("stacks that can be walked");
        assert!(heap.is_right(&all.into_inner(), &[heap.current]), "after");
        control(&heap, &roots, is_short);
        stopped.end_scanning(next);
    });
    shown.moved = world.heap.borrow().moved;
    world.shown.set(shown);
}

/// The places that one thread has found, and those that several have, a few frames at a time.
fn slots(stopped: &mut CycleStopped<'_>, with_others: bool) -> (Vec<RootSlot>, Vec<RootSlot>) {
    let [first, rest] = [(); 2].map(|()| Mutex::new(Vec::new()));
    let take = |to: &Mutex<Vec<RootSlot>>, slots: &[RootSlot]| {
        to.lock().expect("no thread panics").extend_from_slice(slots);
    };
    stopped.begin_slots(&|slots| take(&first, slots)).expect("stacks that can be walked");
    let (stopped, workers) = (&*stopped, if with_others { 3 } else { 1 });
    let visit = |to: &Mutex<Vec<RootSlot>>| {
        while stopped.visit_slots(&|slots| take(to, slots)).expect("stacks that can be walked") {}
    };
    match workers {
        1 => visit(&first),
        _ => std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| visit(&rest));
            }
        }),
    }
    [first, rest].map(|slots| slots.into_inner().expect("no thread panics")).into()
}

/// A place that is left as it was is noticed.
fn control(heap: &Heap, roots: &[RootSlot], is_short: bool) {
    let Some(&(_, derived)) = pairs(roots).first().filter(|_| !is_short) else { return };
    // SAFETY: the place of a root, while the world stands still.
    let now = unsafe { *(derived as *const usize) };
    let old = now - heap.addresses(heap.current).start + heap.addresses(1 - heap.current).start;
    // SAFETY: as above.
    let write = |word| unsafe { *(derived as *mut usize) = word };
    write(old);
    assert!(!heap.is_right(roots, &[heap.current]), "a place that was not written");
    write(now);
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
    with(|world| world.heap.borrow_mut().allocate(words as usize, YOUNG))
}

/// Called before each store, with the place of the store live in the managed frame. A new object is
/// stored in twice, at its beginning and behind it. Where scans are short it moves the second time
/// alone, when the place differs from the object.
unsafe extern "C-unwind" fn before_store(_: *mut c_void, _: usize) -> usize {
    let moves = with(|world| {
        let before = world.stores.replace(world.stores.get() + 1);
        world.scans != Scans::Short || before % 2 == 1
    });
    if moves {
        collect();
    }
    0
}

/// The flag of the write barrier: on.
static ON: u64 = 1;

/// Runs the program.
fn run(library: &Library, barriers: BarrierMode, scans: Scans, argument: &mut [u64]) -> Shown {
    let config = stack::Config {
        barriers,
        poll_always: true,
        poison: true,
        scan_few_frames: scans == Scans::Chunked,
        ..stack::Config::default()
    };
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
        scans,
        stores: Cell::new(0),
        shown: Cell::default(),
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
    with(|world| world.shown.get())
}

/// Runs the programs of all versions of LLVM.
fn each(barriers: BarrierMode, scans: Scans, check: impl Fn(&Shown)) {
    for (name, library) in &libraries() {
        let (mut argument, expected) = argument(4, 20);
        let shown = std::thread::scope(|scope| {
            let thread = scope.spawn(|| run(library, barriers, scans, &mut argument));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        assert_eq!(argument, expected, "{name}, {barriers}, {scans:?}");
        println!("{name}, {barriers}, {scans:?}: {shown:?}");
        assert!(shown.cycles > 200 && shown.moved > 200 && shown.derived > 10, "{shown:?}");
        check(&shown);
    }
}

#[test]
fn images_run_on_a_heap_that_moves_every_object_at_every_safepoint() {
    for barriers in [BarrierMode::Incremental, BarrierMode::EveryFrame, BarrierMode::Off] {
        each(barriers, Scans::Whole, |shown| assert!(shown.moved > 1000, "{shown:?}"));
    }
}

#[test]
fn derived_pointers_follow_their_bases_where_several_threads_visit_a_stack() {
    for barriers in [BarrierMode::Incremental, BarrierMode::EveryFrame] {
        // A chunk ends where a barrier may lie.
        each(barriers, Scans::Chunked, |shown| {
            assert!(!HAS_BARRIERS || shown.derived_in_chunks > 10, "{shown:?}");
        });
    }
}

#[test]
fn derived_pointers_follow_young_bases_in_short_scans() {
    for barriers in [BarrierMode::Incremental, BarrierMode::EveryFrame] {
        each(barriers, Scans::Short, |shown| assert!(shown.derived_in_short > 10, "{shown:?}"));
    }
}
