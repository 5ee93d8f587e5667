//! A program's image, registered and run on a goroutine with a fixed stack, with a collector of its
//! own.

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
use stackmark::unwind::{Code, ManagedImage};
use stackmark::write_barrier::BarrierBuffer;
use stackmark::{Collector, Config};

use super::support::Library;

/// When the program is collected.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum When {
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
                let publish = move |goroutine| {
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
pub(crate) static SHADED: AtomicU64 = AtomicU64::new(0);

unsafe extern "C-unwind" fn shade(word: *mut c_void, _: usize) -> usize {
    SHADED.fetch_add(1, Ordering::Relaxed);
    with(|world| world.stores.shade(word as usize));
    0
}

/// An exception of the test's own class, in the layout of the Itanium C++ ABI.
#[repr(C, align(16))]
struct Exception {
    class: u64,
    cleanup: Option<unsafe extern "C" fn(i32, *mut c_void)>,
    unwinder: [u64; 2],
}

thread_local! {
    /// The exception that is under way.
    static THROWN: Cell<*mut Exception> = const { Cell::new(std::ptr::null_mut()) };
}

/// How many exceptions have landed.
pub(crate) static CAUGHT: AtomicU64 = AtomicU64::new(0);

unsafe extern "C-unwind" {
    fn _Unwind_RaiseException(exception: *mut Exception) -> i32;
}

pub(crate) unsafe extern "C-unwind" fn throw(_: *mut c_void, _: usize) -> usize {
    let class = u64::from_be_bytes(*b"STMKTEST");
    let exception = Box::new(Exception { class, cleanup: None, unwinder: [0; 2] });
    THROWN.set(Box::into_raw(exception));
    // SAFETY: an exception, which a landing pad of the program catches.
    let error = unsafe { _Unwind_RaiseException(THROWN.get()) };
    panic!("no landing pad catches the exception: {error}");
}

pub(crate) unsafe extern "C-unwind" fn caught(_: *mut c_void, _: usize) -> usize {
    let exception = THROWN.replace(std::ptr::null_mut());
    assert!(!exception.is_null(), "an exception has landed");
    // SAFETY: made by `throw`, and caught.
    drop(unsafe { Box::from_raw(exception) });
    CAUGHT.fetch_add(1, Ordering::Relaxed);
    0
}

/// How a program is run.
pub(crate) struct Run<'r> {
    pub(crate) library: &'r Library,
    pub(crate) barriers: BarrierMode,
    pub(crate) when: When,
    /// Called each time that the goroutine has parked.
    pub(crate) parked: &'r (dyn Fn(&Runtime, &ManagedImage) + Sync),
}

impl Run<'_> {
    /// Runs the program with this argument, on a thread of its own.
    pub(crate) fn run(&self, argument: &mut [u64]) -> Statistics {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.run_here(argument));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run_here(&self, argument: &mut [u64]) -> Statistics {
        let Run { library, barriers, when, parked } = *self;
        let code = Arc::new(Code::new());
        let config =
            stack::Config { barriers, poll_always: true, poison: true, ..stack::Config::default() };
        let runtime = Runtime::new(config, code, Box::new(Embedder)).expect("a runtime");
        let image = runtime.register_image(library.address("entry")).expect("a correct image");
        let (sender, queue) = channel();
        runtime.set_scheduler(Arc::new(Queue(Mutex::new(sender))));
        let heap = MarkSweep::new(&Options { limit: 64 << 20, poison: true, ..Options::default() })
            .expect("a heap");
        let config = Config { workers: 1, percent: None, verify: true, ..Config::default() };
        let collector = Arc::new(
            Collector::start(Arc::clone(&heap), Arc::clone(&runtime), &config).expect("threads"),
        );
        let words = heap.register(Descriptor::references()).expect("a descriptor");

        let host = library.address("host") as *mut usize;
        let natives = [
            asm::call_system_address(),
            stack::poll as *const () as usize,
            new as *const () as usize,
            shade as *const () as usize,
            collector.write_barrier().flag_address(),
            throw as *const () as usize,
            caught as *const () as usize,
        ];
        // SAFETY: the program's table, which has at least the first five words, and as many as the
        // program uses. Programs of one library run one after the other.
        unsafe {
            let words = library.variable("host") / size_of::<usize>();
            std::ptr::copy_nonoverlapping(natives.as_ptr(), host, words.min(natives.len()));
        }
        let world = World {
            allocator: heap.allocator().expect("an allocator"),
            words,
            stores: collector.write_barrier().buffer(),
            collector: Arc::clone(&collector),
            when,
            polls: Cell::new(0),
        };
        WORLD.with(|cell| assert!(cell.set(world).is_ok(), "one program a thread"));

        let machine = Machine::attach(&runtime).expect("a thread of its own");
        let entry = library.address("entry");
        // SAFETY: LLVM's statepoints keep C1. Stores of references go through the barrier (C3).
        // Frames are small and each function polls (C4, C6). A function that looks at its goroutine
        // has its address from its first argument, and hands it down (C5): the record stays where
        // it is, on whatever thread the goroutine goes on. `WORLD` is the thread's, and one machine
        // runs this goroutine.
        let goroutine =
            unsafe { runtime.spawn_on(StackKind::Fixed, entry, argument.as_mut_ptr() as usize) };
        let mut next = goroutine.expect("a stack");
        loop {
            match machine.run(next) {
                Left::Exited => break,
                Left::Parked => {
                    next = queue.recv().expect("the collector makes it ready");
                    parked(&runtime, &image);
                }
                Left::Yielded(goroutine) => next = goroutine,
            }
        }
        drop(machine);
        // The next cycle sweeps what the last one found dead.
        for _ in 0..2 {
            collector.collect();
        }
        runtime.unregister_image(&image).expect("no frame is left");
        assert!(runtime.unregister_image(&image).is_err(), "it is not registered any more");
        collector.statistics()
    }
}
