//! The library that minigo embeds: the one file of the runtime that knows its interface.

use crate::module::Code;
use crate::options::{Options, Stress};
use crate::runtime::{fail, output};
use stackmark_stack::scheduler::Scheduler;
use stackmark_stack::unwind::{self, stack_map};
use stackmark_stack::{BarrierMode, Caller, Config, Goroutine, Host, Runtime};
use stackmark::Collector;
use stackmark::mark_sweep::{Allocator, Descriptor, DescriptorId, MarkSweep};
use stackmark::write_barrier::BarrierBuffer;
use std::cell::OnceCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

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

    fn at_poll(&self, _goroutine: &Arc<Goroutine>) {
        if world().options.has(Stress::CollectEveryPoll) {
            collect();
        }
    }
}

struct World {
    options: Options,
    heap: Arc<MarkSweep>,
    runtime: Arc<Runtime>,
    collector: Collector<MarkSweep>,
    scheduler: OnceLock<Arc<Scheduler>>,
    /// Relaxed: written before the threads that read it start.
    entry: AtomicUsize,
}

static WORLD: OnceLock<World> = OnceLock::new();

/// What an OS thread has of its own.
struct Local {
    allocator: Allocator,
    stored: BarrierBuffer,
}

thread_local! {
    static LOCAL: OnceCell<Local> = const { OnceCell::new() };
}

fn with_local<R>(f: impl FnOnce(&Local) -> R) -> R {
    LOCAL.with(|l| {
        f(l.get_or_init(|| {
            let w = world();
            let allocator = w.heap.allocator().unwrap_or_else(|e| Embedder.fatal(&e));
            Local { allocator, stored: w.collector.write_barrier().buffer() }
        }))
    })
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
    let config = stackmark::Config {
        percent: u32::try_from(options.gc_percent).ok(),
        verify: options.has(Stress::Verify),
        ..stackmark::Config::default()
    };
    let collector = Collector::start(heap.clone(), runtime.clone(), &config)?;
    let world = World {
        options: options.clone(),
        heap,
        runtime,
        collector,
        scheduler: OnceLock::new(),
        entry: AtomicUsize::new(0),
    };
    let _ = WORLD.set(world);
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
    for (at, bytes) in code.globals {
        // SAFETY: leaked memory of package variables, which managed code accesses by words.
        unsafe { w.collector.add_globals(at..at + bytes) };
    }
    w.entry.store(code.entry, Ordering::Relaxed);
    let scheduler = Scheduler::new(
        &w.runtime,
        options.threads,
        Box::new(|| fail::die("fatal error: all goroutines are asleep - deadlock!")),
    );
    let _ = w.scheduler.set(scheduler.clone());
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
    with_local(|l| match l.allocator.allocate(DescriptorId::from_index(descriptor as u32), bytes) {
        Ok(at) => at.as_ptr() as usize,
        Err(_) => fail::out_of_memory(),
    })
}

/// The byte that is not zero while stores of references must be reported.
pub(crate) fn write_barrier_flag() -> *const u8 {
    world().collector.write_barrier().flag_address() as *const u8
}

/// Whether stores of references must be reported.
pub(crate) fn marking() -> bool {
    world().collector.write_barrier().is_on()
}

/// Reports a reference that is stored.
pub(crate) fn shade(word: usize) {
    with_local(|l| l.stored.shade(word));
}

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

/// A whole collection. The goroutine parks until it is complete.
pub(crate) fn collect() {
    let w = world();
    let scheduler = w.scheduler.get().expect("goroutines run");
    scheduler.await_wakeup();
    let me = Waiter::current();
    let done = move || {
        me.wake(0);
        scheduler.wakeup_done();
    };
    // SAFETY: nothing here owns anything but what is moved into the request.
    unsafe { Caller::current().park(move || w.collector.request(done)) };
}

/// The goroutine's traceback, innermost function first.
pub(crate) fn traceback() -> String {
    String::from("goroutine 1 [running]:\n")
}

/// Ends the process without running destructors under the other threads; statistics are written before.
pub(crate) fn exit(status: i32) -> ! {
    static EXITING: Mutex<()> = Mutex::new(());
    // Never given back: the first to come ends the process.
    let guard = EXITING.lock();
    if let Some(w) = WORLD.get() {
        crate::report::at_exit(&w.options, &w.collector);
    }
    std::mem::forget(guard);
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}
