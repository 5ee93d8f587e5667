//! The library that minigo embeds: the one file of the runtime that knows its interface.

use crate::module::Code;
use crate::options::{Options, Stress};
use crate::runtime::{fail, output};
use stackmark_stack::scheduler::Scheduler;
use stackmark_stack::unwind::{self, stack_map};
use stackmark_stack::{BarrierMode, Caller, Config, Goroutine, Host, Runtime};
use stackmark::mark_sweep::{Allocator, Descriptor, DescriptorId, MarkSweep};
use std::cell::OnceCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub(crate) const MAX_FRAME: usize = stackmark_stack::MAX_FRAME;

/// What a goroutine waits for, for the message of a deadlock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    Send,
    Receive,
    SendNil,
    ReceiveNil,
}

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        fail::die(&format!("runtime: goroutine stack exceeds {limit}-byte limit\nfatal error: stack overflow"))
    }

    fn fatal(&self, error: &dyn std::error::Error) -> ! {
        output::flush();
        output::error(format!("minigo: {error}\n").as_bytes());
        std::process::abort()
    }
}

struct World {
    heap: Arc<MarkSweep>,
    runtime: Arc<Runtime>,
    entry: AtomicUsize,
}

static WORLD: OnceLock<World> = OnceLock::new();

thread_local! {
    static ALLOCATOR: OnceCell<Allocator> = const { OnceCell::new() };
}

fn world() -> &'static World {
    WORLD.get().expect("the runtime is set up before anything is compiled")
}

/// Sets up heap and runtime; compiling needs the heap already.
pub(crate) fn init(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let poison = options.has(Stress::Poison);
    let heap = MarkSweep::new(&stackmark::mark_sweep::Options { poison, ..Default::default() })?;
    let barriers = match (options.barriers, options.has(Stress::BarrierEveryFrame)) {
        (false, _) => BarrierMode::Off,
        (true, true) => BarrierMode::EveryFrame,
        (true, false) => BarrierMode::Exponential,
    };
    let config = Config {
        max_stack: options.max_stack,
        barriers,
        move_every_poll: options.has(Stress::MoveEveryPoll),
        poison: options.has(Stress::Poison),
        poll_always: options.has(Stress::CollectEveryPoll),
        ..Config::default()
    };
    let runtime = Runtime::new(config, Arc::new(unwind::Code::new()), Box::new(Embedder))?;
    let _ = WORLD.set(World { heap, runtime, entry: AtomicUsize::new(0) });
    Ok(())
}

/// Runs a program. It ends the process itself.
pub(crate) fn run(code: Code, options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let w = world();
    let mut region = unwind::Region {
        name: "minigo".into(),
        start: code.range.start,
        len: code.range.len(),
        eh_frame: code.eh_frame,
        ..unwind::Region::default()
    };
    for f in code.functions {
        region.functions.push(unwind::Function { name: f.name, start: f.start, len: f.len, moves_return_address: false });
    }
    for s in code.safepoints {
        let cfa_offset = s.span + stack_map::cranelift::FRAME_RECORD;
        region.safepoints.push(unwind::Safepoint { return_address: s.return_address, cfa_offset, slots: s.slots });
    }
    w.runtime.code().register(region)?;
    // Relaxed: the threads that read it start later.
    w.entry.store(code.entry, Ordering::Relaxed);
    let scheduler = Scheduler::new(
        &w.runtime,
        options.threads,
        Box::new(|| fail::die("fatal error: all goroutines are asleep - deadlock!")),
    );
    spawn(code.start);
    let threads = scheduler.start()?;
    // The program ends the process.
    loop {
        std::thread::park();
        let _ = &threads;
    }
}

/// The native function that managed code calls at a poll.
pub(crate) fn poll_address() -> usize {
    stackmark_stack::poll as *const () as usize
}

/// The heap's number for objects that repeat a pattern of words.
pub(crate) fn descriptor(words: usize, refs: &[bool]) -> usize {
    let references = refs.iter().enumerate().filter(|(_, r)| **r).map(|(i, _)| i);
    let d = Descriptor::pattern(words.max(1), references).and_then(|d| world().heap.register(d));
    match d {
        Ok(id) => id.index() as usize,
        Err(e) => Embedder.fatal(&e),
    }
}

/// Zeroed memory.
pub(crate) fn allocate(descriptor: usize, bytes: usize) -> usize {
    ALLOCATOR.with(|a| {
        let a = a.get_or_init(|| world().heap.allocator().unwrap_or_else(|e| Embedder.fatal(&e)));
        match a.allocate(DescriptorId::from_index(descriptor as u32), bytes) {
            Ok(at) => at.as_ptr() as usize,
            Err(_) => fail::out_of_memory(),
        }
    })
}

static FLAG: AtomicU8 = AtomicU8::new(0);

/// The byte that is not zero while stores of references must be reported.
pub(crate) fn write_barrier_flag() -> *const u8 {
    FLAG.as_ptr()
}

/// Whether stores of references must be reported.
pub(crate) fn marking() -> bool {
    // Relaxed: it changes while this goroutine is at a safepoint.
    FLAG.load(Ordering::Relaxed) != 0
}

/// Reports a reference that is stored.
pub(crate) fn shade(_word: usize) {}

/// A range of memory, perhaps in a stack, is about to be written.
pub(crate) fn note_bulk_write(_range: Range<usize>) {}

/// A goroutine that waits in a queue.
pub(crate) struct Waiter(Arc<Goroutine>);

impl Waiter {
    pub(crate) fn current() -> Waiter {
        // SAFETY: natives run on behalf of a goroutine; the caller is used here alone.
        Waiter(unsafe { Caller::current() }.handle())
    }

    /// Replaces the words that are roots for the goroutine.
    pub(crate) fn set_transfer(&self, words: &[usize]) {
        self.0.set_transfer(words);
    }

    pub(crate) fn take_transfer(&self) -> Vec<usize> {
        let mut words = vec![];
        self.0.take_transfer(&mut words);
        words
    }

    /// Makes it ready; its call returns `value`.
    pub(crate) fn wake(self, value: usize) {
        world().runtime.ready(self.0, value);
    }
}

/// Parks the current goroutine; `publish` lets others wake it. The native ends here.
pub(crate) fn park(_why: Wait, publish: impl FnOnce()) -> usize {
    // SAFETY: the natives that park own nothing at that point, see their code.
    unsafe { Caller::current().park(publish) }
}

pub(crate) fn yield_now() {
    // SAFETY: as in park.
    unsafe { Caller::current().yield_now(0) };
}

/// A new goroutine that calls a function object.
pub(crate) fn spawn(object: usize) {
    let w = world();
    // SAFETY: the entry is the managed function that the compiler made for this.
    match unsafe { w.runtime.spawn(w.entry.load(Ordering::Relaxed), object) } {
        Ok(g) => w.runtime.schedule(g),
        Err(e) => Embedder.fatal(&e),
    }
}

pub(crate) fn goroutines() -> usize {
    world().runtime.live_goroutines()
}

/// A whole collection.
pub(crate) fn collect() {}

/// The goroutine's traceback, innermost function first.
pub(crate) fn traceback() -> String {
    String::from("goroutine 1 [running]:\n")
}

/// Ends the process without running destructors under the other threads.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}
