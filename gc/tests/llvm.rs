//! A program compiled by LLVM, with statepoints, on a goroutine with a fixed stack. It is collected
//! at every safepoint, or all the time while it runs. Every mark is verified.

#[path = "../../unwind/tests/support/llvm.rs"]
mod support;

use std::cell::{Cell, OnceCell};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use stackmark::mark_sweep::{Allocator, Descriptor, DescriptorId, MarkSweep, Options};
use stackmark::stack::{
    self, BarrierMode, Caller, Goroutine, Host, Left, Machine, Runtime, Schedule, StackKind, Word,
    asm,
};
use stackmark::stats::Statistics;
use stackmark::unwind::stack_map::llvm;
use stackmark::unwind::{Code, Function, Region};
use stackmark::write_barrier::BarrierBuffer;
use stackmark::{Collector, Config};

/// When the program is collected.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// At each poll, which returns when the cycle is complete.
    EveryPoll,
    /// One cycle after the other, while the program runs. Twice in [`WAITS`] polls it waits: once
    /// for the end of a cycle, once until the write barrier is on. So both happen however slow the
    /// collector is.
    AllTheTime,
}

struct World {
    collector: Arc<Collector<MarkSweep>>,
    allocator: Allocator,
    words: DescriptorId,
    stores: BarrierBuffer,
    when: When,
    polls: Cell<u64>,
}

/// How many polls there are from one wait for a cycle's end to the next.
const WAITS: u64 = 500;

thread_local! {
    /// The world of the program that runs on this thread.
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

fn with<R>(f: impl FnOnce(&World) -> R) -> R {
    WORLD.with(|world| f(world.get().expect("the program runs on the thread that made its world")))
}

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }

    fn at_poll(&self, _goroutine: &Goroutine) {
        // SAFETY: used within this method, which a poll of this thread's goroutine calls.
        let caller = unsafe { Caller::current() };
        let (collector, when) = with(|world| (Arc::clone(&world.collector), world.when));
        let polls = with(|world| world.polls.replace(world.polls.get() + 1));
        match when {
            When::AllTheTime if polls % WAITS == WAITS / 2 => {
                collector.request(|| {});
                // The barrier stays on until this goroutine answers a handshake at its next poll.
                while !collector.write_barrier().is_on() {
                    std::thread::yield_now();
                }
            }
            When::AllTheTime if !polls.is_multiple_of(WAITS) => collector.request(|| {}),
            _ => {
                let goroutine = caller.handle();
                let publish = move || {
                    let runtime = Arc::clone(collector.runtime());
                    collector.request(move || runtime.ready(goroutine, Word::Plain(0)));
                };
                // SAFETY: the library's poll owns nothing when it calls this, and what this
                // function owned has moved.
                unsafe { caller.park(publish) };
            }
        }
    }
}

struct Queue(Mutex<Sender<Arc<Goroutine>>>);

impl Schedule for Queue {
    fn ready(&self, goroutine: Arc<Goroutine>) {
        self.0.lock().expect("no thread panics").send(goroutine).expect("the test waits for it");
    }
}

unsafe extern "C-unwind" fn new(words: *mut c_void, _: usize) -> usize {
    // SAFETY: used within this native function.
    let inside = unsafe { Caller::current() }.inside().expect("not in a foreign call");
    with(|world| {
        let bytes = words as usize * 8;
        world.allocator.allocate(&inside, world.words, bytes).expect("room").address()
    })
}

/// How many stores went through the barrier.
static SHADED: AtomicU64 = AtomicU64::new(0);

unsafe extern "C-unwind" fn shade(word: *mut c_void, _: usize) -> usize {
    SHADED.fetch_add(1, Ordering::Relaxed);
    with(|world| world.stores.shade(word as usize));
    0
}

/// How large a run is: the number of trees, their height, the depth of the recursion.
#[derive(Clone, Copy)]
struct Size {
    trees: u64,
    height: u32,
    depth: u64,
}

impl Size {
    /// The number that the program computes.
    fn result(self) -> u64 {
        let tree = (1..=u64::from(self.height)).fold(0, |below, height| 2 * below + height);
        // The recursion sums the first tree and one of height 1 for each frame.
        tree + self.depth + self.trees * tree
    }
}

fn region(library: &support::Library) -> Region {
    let functions = library
        .functions
        .iter()
        .filter(|(name, _)| !name.starts_with('_') && !name.contains("_tm_"));
    let functions: Vec<Function> = functions
        .map(|(name, range)| Function {
            name: name.clone(),
            start: range.start,
            len: range.len(),
            moves_return_address: false,
        })
        .collect();
    let start = functions.iter().map(|function| function.start).min().expect("functions");
    let end =
        functions.iter().map(|function| function.start + function.len).max().expect("functions");
    // Frames with a frame pointer have no size in their maps, so the region cannot hold a limit.
    for record in llvm::records(library.stack_maps).expect("stack maps") {
        assert!(record.stack_size.expect("a fixed size") < stack::MAX_FRAME as u64);
    }
    let stack_maps = llvm::stack_maps(library.stack_maps).expect("stack maps").into_iter();
    Region {
        name: "program.ll".into(),
        start,
        len: end - start,
        functions,
        stack_maps: stack_maps.collect::<Result<_, _>>().expect("statepoints"),
        ..Region::default()
    }
}

/// Runs the program; `None` if LLVM is missing.
fn run(
    name: &str,
    options: &[&str],
    barriers: BarrierMode,
    when: When,
    size: Size,
) -> Option<Statistics> {
    let program = include_str!("llvm/program.ll").replace("REF", "i64 addrspace(1)*");
    let library = support::load(name, &program, options)?;
    let code = Arc::new(Code::new());
    code.register(region(&library)).expect("a correct region");
    let config =
        stack::Config { barriers, poll_always: true, poison: true, ..stack::Config::default() };
    let runtime = Runtime::new(config, code, Box::new(Embedder)).expect("a runtime");
    let (sender, queue) = channel();
    runtime.set_scheduler(Arc::new(Queue(Mutex::new(sender))));
    let heap = MarkSweep::new(&Options { limit: 64 << 20, poison: true }).expect("a heap");
    let config = Config { workers: 1, percent: None, verify: true, ..Config::default() };
    let collector = Arc::new(
        Collector::start(Arc::clone(&heap), Arc::clone(&runtime), &config).expect("threads"),
    );
    let words = heap.register(Descriptor::references()).expect("a descriptor");

    let host = library.address("host") as *mut [usize; 5];
    let natives = [
        asm::call_system_address(),
        stack::poll as *const () as usize,
        new as *const () as usize,
        shade as *const () as usize,
        collector.write_barrier().flag_address(),
    ];
    // SAFETY: the program's table, which no code reads yet.
    unsafe { *host = natives };
    let world = World {
        allocator: heap.allocator().expect("an allocator"),
        words,
        stores: collector.write_barrier().buffer(),
        collector: Arc::clone(&collector),
        when,
        polls: Cell::new(0),
    };
    WORLD.with(|cell| assert!(cell.set(world).is_ok(), "one program a thread"));

    let mut argument = [size.trees, u64::from(size.height), size.depth, 0];
    let machine = Machine::attach(&runtime).expect("a thread of its own");
    let entry = library.address("entry");
    // SAFETY: LLVM's statepoints keep C1. Stores of references go through the barrier (C3). Frames
    // are small and each function polls (C4, C6). No function looks for its goroutine (C5).
    let goroutine =
        unsafe { runtime.spawn_on(StackKind::Fixed, entry, argument.as_mut_ptr() as usize) };
    let mut next = goroutine.expect("a stack");
    loop {
        match machine.run(next) {
            Left::Exited => break,
            Left::Parked => next = queue.recv().expect("the collector makes it ready"),
            Left::Yielded(goroutine) => next = goroutine,
        }
    }
    drop(machine);
    assert_eq!(argument[3], size.result());
    // The next cycle sweeps what the last one found dead.
    for _ in 0..2 {
        collector.collect();
    }
    Some(collector.statistics())
}

/// Checks what every run must have done.
fn check(statistics: &Statistics, size: Size) {
    let nodes = size.trees * ((1 << size.height) - 1) + size.depth + size.trees * 3;
    assert_eq!(statistics.heap.objects_swept, nodes + 1, "after the program everything is garbage");
    assert!(statistics.cycles > 2, "{} cycles", statistics.cycles);
    let frames = statistics.frames.scanned_stopped + statistics.frames.scanned_running;
    assert!(frames > statistics.cycles, "{frames} frames scanned");
    assert!(statistics.stacks.grown > 0, "the stack grows where it lies");
    assert_eq!(statistics.stacks.moved_bytes, 0, "and does not move");
}

const SMALL: Size = Size { trees: 5, height: 4, depth: 600 };

#[test]
fn is_collected_at_every_safepoint() {
    let Some(statistics) = run("every-poll", &[], BarrierMode::Incremental, When::EveryPoll, SMALL)
    else {
        return;
    };
    check(&statistics, SMALL);
    assert!(statistics.cycles > 2000, "{} cycles", statistics.cycles);
    let deepest = statistics.cycles_detail.iter().map(|cycle| cycle.objects_marked).max();
    assert!(
        deepest > Some(SMALL.depth),
        "at the bottom of the recursion every frame's object is live: {deepest:?}"
    );
    assert!(statistics.barriers.placed > 0, "{:?}", statistics.barriers);
}

#[test]
fn is_collected_at_every_safepoint_with_a_barrier_in_every_frame() {
    let mode = BarrierMode::EveryFrame;
    let Some(statistics) = run("every-frame", &[], mode, When::EveryPoll, SMALL) else { return };
    check(&statistics, SMALL);
    assert!(statistics.barriers.hit > 2000, "{:?}", statistics.barriers);
}

#[test]
fn is_collected_while_it_runs_with_frame_pointers() {
    let size = Size { trees: 40, height: 9, depth: 5000 };
    let mode = BarrierMode::EveryFrame;
    let Some(statistics) = run("running", &["-frame-pointer=all"], mode, When::AllTheTime, size)
    else {
        return;
    };
    check(&statistics, size);
    assert!(SHADED.load(Ordering::Relaxed) > 0, "stores are reported while marking runs");
    assert!(statistics.barriers.hit > 0, "{:?}", statistics.barriers);
}
