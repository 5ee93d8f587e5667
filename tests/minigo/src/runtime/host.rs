//! The library that minigo embeds: the one file of the runtime that knows its interface.

use crate::module::Code;
use crate::options::{Options, Stress};
use crate::report;
use crate::runtime::{fail, output};
use parking_lot::Mutex;
use stackmark::Collector;
use stackmark::mark_sweep::{AllocationError, Allocator, Descriptor, DescriptorId, MarkSweep};
use stackmark::stack::scheduler::Scheduler;
use stackmark::stack::{BarrierMode, Caller, Config, Goroutine, Host, MAX_FRAME as LIBRARY_MAX_FRAME, Runtime, poll};
use stackmark::unwind::{self, FrameKind, stack_map};
use stackmark::write_barrier::BarrierBuffer;
use std::cell::OnceCell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub(crate) const MAX_FRAME: usize = LIBRARY_MAX_FRAME;

/// What a goroutine waits for, for the message of a deadlock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    Send,
    Receive,
    SendNil,
    ReceiveNil,
}

/// Frames that a traceback shows at most.
const TRACEBACK_FRAMES: usize = 100;
/// Goroutines that are shown at most.
const TRACEBACK_GOROUTINES: usize = 100;

impl Wait {
    const ALL: [Wait; 4] = [Wait::Send, Wait::Receive, Wait::SendNil, Wait::ReceiveNil];

    /// What a goroutine waits for, if it waits in a queue of ours.
    fn of(goroutine: &Goroutine) -> Option<Wait> {
        // Relaxed: written before it parked.
        Wait::ALL.get(goroutine.header().user.load(Ordering::Relaxed).wrapping_sub(1)).copied()
    }

    /// Go's words for it.
    fn name(self) -> &'static str {
        match self {
            Wait::Send => "chan send",
            Wait::Receive => "chan receive",
            Wait::SendNil => "chan send (nil chan)",
            Wait::ReceiveNil => "chan receive (nil chan)",
        }
    }
}

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        fail::die(&format!("runtime: goroutine stack exceeds {limit}-byte limit\nfatal error: stack overflow"))
    }

    fn machine_word(&self) -> usize {
        with_allocator(Allocator::slots_address)
    }

    fn at_poll(&self, caller: Caller<'_>) {
        if world().options.has(Stress::CollectEveryPoll) {
            // SAFETY: the library's poll owns nothing when it calls this.
            unsafe { collect_for(caller) };
        }
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
    collector: Collector<MarkSweep>,
    scheduler: Arc<Scheduler>,
    entry: AtomicUsize,
    options: Options,
}

static WORLD: OnceLock<World> = OnceLock::new();

thread_local! {
    static ALLOCATOR: OnceCell<Allocator> = const { OnceCell::new() };
    static STORES: OnceCell<BarrierBuffer> = const { OnceCell::new() };
}

fn world() -> &'static World {
    WORLD.get().expect("the runtime is set up before anything is compiled")
}

/// Sets up heap and runtime; compiling needs the heap already.
pub(crate) fn init(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let poison = options.has(Stress::Poison);
    let mut heap = stackmark::mark_sweep::Options { poison, ..Default::default() };
    heap.limit = options.heap_limit.unwrap_or(heap.limit);
    let heap = MarkSweep::new(&heap)?;
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
    let defaults = stackmark::Config::default();
    let collector = stackmark::Config {
        workers: options.mark_workers.unwrap_or(defaults.workers),
        percent: u32::try_from(options.gc_percent).ok(),
        memory_limit: options.memory_limit,
        verify: options.has(Stress::Verify),
    };
    let collector = Collector::start(Arc::clone(&heap), Arc::clone(&runtime), &collector)?;
    let on_deadlock = Box::new(|| fail::die("fatal error: all goroutines are asleep - deadlock!"));
    let scheduler = Scheduler::new(&runtime, options.threads, on_deadlock);
    let (entry, options) = (AtomicUsize::new(0), options.clone());
    let _ = WORLD.set(World { heap, runtime, collector, scheduler, entry, options });
    Ok(())
}

/// Runs a program. It ends the process itself.
pub(crate) fn run(code: Code) -> Result<(), Box<dyn std::error::Error>> {
    let w = world();
    let mut region = unwind::Region {
        name: "minigo".into(),
        start: code.range.start,
        len: code.range.len(),
        eh_frame: code.eh_frame,
        ..unwind::Region::default()
    };
    for f in code.functions {
        region.functions.push(unwind::Function {
            name: f.name,
            start: f.start,
            len: f.len,
            moves_return_address: false,
        });
    }
    for s in code.safepoints {
        let cfa_offset = s.span + stack_map::cranelift::FRAME_RECORD;
        region.safepoints.push(unwind::Safepoint { return_address: s.return_address, cfa_offset, slots: s.slots });
    }
    w.runtime.code().register(region)?;
    // Relaxed: the threads that read it start later.
    w.entry.store(code.entry, Ordering::Relaxed);
    for (at, bytes) in code.globals {
        // SAFETY: the compiler allocated whole words that are never freed; managed code accesses them word by word.
        unsafe { w.collector.add_globals(at..at + bytes) };
    }
    spawn(code.start);
    let threads = w.scheduler.start()?;
    // The program ends the process.
    loop {
        std::thread::park();
        let _ = &threads;
    }
}

/// The native function that managed code calls at a poll.
pub(crate) fn poll_address() -> usize {
    poll as *const () as usize
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

fn with_allocator<T>(f: impl FnOnce(&Allocator) -> T) -> T {
    ALLOCATOR.with(|a| f(a.get_or_init(|| world().heap.allocator().unwrap_or_else(|e| Embedder.fatal(&e)))))
}

/// Zeroed memory, or what stands in the way.
pub(crate) fn try_allocate(descriptor: usize, bytes: usize) -> Result<usize, AllocationError> {
    let allocated = with_allocator(|a| a.allocate(DescriptorId::from_index(descriptor as u32), bytes));
    allocated.map(|at| at.as_ptr() as usize)
}

/// Where, behind the word that the goroutine has from its machine, the allocator's fields for such objects lie, and the size
/// of their cells. None: they are too large.
pub(crate) fn allocation_slot(descriptor: usize, bytes: usize) -> Option<(usize, usize)> {
    Allocator::slot_offset(DescriptorId::from_index(descriptor as u32), bytes)
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
    if world().options.break_write_barrier {
        return;
    }
    STORES.with(|stores| stores.get_or_init(|| world().collector.write_barrier().buffer()).shade(word));
}

/// A goroutine that waits in a queue.
pub(crate) struct Waiter(Arc<Goroutine>);

impl Waiter {
    pub(crate) fn current() -> Waiter {
        // SAFETY: natives run on behalf of a goroutine; the caller is used here alone.
        Waiter(unsafe { Caller::current() }.handle())
    }

    /// Replaces the words that are roots for the goroutine. Its stack may have been scanned: they are reported.
    pub(crate) fn set_transfer(&self, words: &[usize]) {
        if marking() {
            words.iter().for_each(|word| shade(*word));
        }
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
pub(crate) fn park(why: Wait, publish: impl FnOnce()) -> usize {
    // SAFETY: the natives that park own nothing at that point, see their code.
    unsafe {
        let caller = Caller::current();
        caller.goroutine().header().user.store(why as usize + 1, Ordering::Relaxed);
        caller.park(publish)
    }
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

/// A whole collection. The native ends here.
pub(crate) fn collect() {
    // SAFETY: natives run on behalf of a goroutine; what this owns moves into the request.
    unsafe { collect_for(Caller::current()) }
}

/// Parks the goroutine until a collection that begins now is complete.
///
/// # Safety
/// As for [`Caller::park`].
unsafe fn collect_for(caller: Caller<'_>) {
    let w = world();
    let goroutine = caller.handle();
    w.scheduler.await_wakeup();
    let publish = move || {
        w.collector.request(move || {
            w.runtime.ready(goroutine, 0);
            w.scheduler.wakeup_done();
        });
    };
    // SAFETY: by our contract.
    unsafe { caller.park(publish) };
}

/// The functions of a stack, as they come, one a line.
struct Lines {
    text: String,
    frames: usize,
}

impl Lines {
    fn of(id: u64, state: &str) -> Lines {
        Lines { text: format!("goroutine {id} [{state}]:\n"), frames: 0 }
    }

    fn frame(&mut self, kind: FrameKind, pc: usize) {
        if kind != FrameKind::Managed {
            return;
        }
        self.frames += 1;
        if self.frames <= TRACEBACK_FRAMES {
            let snapshot = world().runtime.code().snapshot();
            let name = snapshot.function(pc - 1).map_or("?", |f| f.name);
            let _ = writeln!(self.text, "{name}(...)");
        }
    }

    fn finish<T>(mut self, walked: Result<T, impl std::fmt::Display>) -> String {
        if self.frames > TRACEBACK_FRAMES {
            let _ = writeln!(self.text, "...{} frames elided...", self.frames - TRACEBACK_FRAMES);
        }
        if let Err(error) = walked {
            let _ = writeln!(self.text, "the traceback ends: {error}");
        }
        self.text
    }
}

/// The current goroutine's traceback, innermost function first.
pub(crate) fn traceback() -> String {
    // SAFETY: used here alone.
    let Some(caller) = (unsafe { Caller::try_current() }) else { return parked_goroutines() };
    let mut lines = Lines::of(caller.goroutine().id(), "running");
    let walked = caller.backtrace(|kind, pc| lines.frame(kind, pc));
    lines.finish(walked)
}

/// The tracebacks of goroutines that wait, for a deadlock.
fn parked_goroutines() -> String {
    let runtime = &world().runtime;
    let mut text = String::new();
    for goroutine in runtime.goroutines().iter().take(TRACEBACK_GOROUTINES) {
        let why = Wait::of(goroutine).map_or("waiting", Wait::name);
        let mut lines = Lines::of(goroutine.id(), why);
        let walked = runtime.backtrace(goroutine, |kind, pc| lines.frame(kind, pc));
        text += &lines.finish(walked);
        text.push('\n');
    }
    text
}

/// Ends the process without running destructors under the other threads.
pub(crate) fn exit(status: i32) -> ! {
    // Only the first to come writes; the others wait for the end.
    static ENDING: Mutex<()> = Mutex::new(());
    std::mem::forget(ENDING.lock());
    let failed = WORLD.get().is_some_and(|w| {
        let statistics = w.collector.statistics();
        if w.options.report {
            output::error(report::text(&statistics).as_bytes());
        }
        let Some(file) = &w.options.stats else { return false };
        let written = std::fs::write(file, format!("{:#}\n", report::json(&statistics)));
        if let Err(error) = &written {
            output::error(format!("minigo: {}: {error}\n", file.display()).as_bytes());
        }
        written.is_err()
    });
    // SAFETY: ends the process.
    unsafe { libc::_exit(if failed && status == 0 { 1 } else { status }) }
}
