//! The library that minigo embeds: the one file of the runtime that knows its interface.

use crate::cgo::library::Hooks;
use crate::module::{Code, Role};
use crate::options::{BarrierKind, Options, Stress};
use crate::report;
use crate::runtime::{fail, foreign, interface, output, panic, profile, thread, traceback};
use parking_lot::Mutex;
use stackmark::mark_sweep::{AllocationError, Allocator, Descriptor, DescriptorId, MarkSweep};
use stackmark::stack::scheduler::Scheduler;
use stackmark::stack::{
    BarrierMode, Caller, Config, Goroutine, Host, MAX_FRAME as LIBRARY_MAX_FRAME, Runtime, poll,
};
use stackmark::trace_file::TraceFile;
use stackmark::unwind::{self, FrameKind, stack_map};
use stackmark::write_barrier::BarrierBuffer;
use stackmark::{Collector, Generation};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub(crate) const MAX_FRAME: usize = LIBRARY_MAX_FRAME;

/// What a goroutine waits for, for the message of a deadlock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    Send,
    Receive,
    SendNil,
    ReceiveNil,
    Select,
}

/// Goroutines that are shown at most.
const TRACEBACK_GOROUTINES: usize = 100;

impl Wait {
    const ALL: [Wait; 5] =
        [Wait::Send, Wait::Receive, Wait::SendNil, Wait::ReceiveNil, Wait::Select];

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
            Wait::Select => "select",
        }
    }
}

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        fail::die(&format!(
            "runtime: goroutine stack exceeds {limit}-byte limit\nfatal error: stack overflow"
        ))
    }

    fn machine_word(&self) -> usize {
        with_allocator(Allocator::slots_address)
    }

    fn at_poll(&self, caller: Caller<'_>) {
        if world().options.has(Stress::CollectEveryPoll) {
            // SAFETY: the library's poll owns nothing when it calls this.
            unsafe { collect_for(caller, poll_generation()) };
        }
    }

    fn source(&self, pc: usize) -> Option<(String, u32)> {
        traceback::source(pc)
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
    raise: AtomicUsize,
    trace: Option<Arc<TraceFile>>,
    options: Options,
}

static WORLD: OnceLock<World> = OnceLock::new();

fn world() -> &'static World {
    WORLD.get().expect("the runtime is set up before anything is compiled")
}

/// Sets up heap and runtime; compiling needs the heap already.
pub(crate) fn init(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let poison = options.has(Stress::Poison);
    let mut heap = stackmark::mark_sweep::Options { poison, ..Default::default() };
    heap.limit = options.heap_limit.unwrap_or(heap.limit);
    let heap = MarkSweep::new(&heap)?;
    let barriers = match options.barriers {
        BarrierMode::Off => BarrierMode::Off,
        _ if options.has(Stress::BarrierEveryFrame) => BarrierMode::EveryFrame,
        mode => mode,
    };
    let config = Config {
        max_stack: options.max_stack,
        barriers,
        protection: options.protection,
        scan_few_frames: options.has(Stress::ScanFewFrames),
        move_every_poll: options.has(Stress::MoveEveryPoll),
        poison: options.has(Stress::Poison),
        poll_always: options.has(Stress::CollectEveryPoll),
        ..Config::default()
    };
    let runtime = Runtime::new(config, Arc::new(unwind::Code::new()), Box::new(Embedder))?;
    let trace = options.trace.as_deref().map(TraceFile::create).transpose()?;
    if let Some(trace) = &trace {
        runtime.observed().set(Arc::clone(trace) as _);
    }
    let defaults = stackmark::Config::default();
    let collector = stackmark::Config {
        workers: options.mark_workers.unwrap_or(defaults.workers),
        percent: u32::try_from(options.gc_percent).ok(),
        memory_limit: options.memory_limit,
        write_barrier: options.write_barrier,
        generational: options.generational,
        verify: options.has(Stress::Verify),
    };
    let collector = Collector::start(Arc::clone(&heap), Arc::clone(&runtime), &collector)?;
    let on_deadlock = Box::new(|| match panic::main_has_exited() {
        true => fail::die("fatal error: no goroutines (main called runtime.Goexit) - deadlock!"),
        false => fail::die("fatal error: all goroutines are asleep - deadlock!"),
    });
    let scheduler = Scheduler::new(&runtime, options.threads, on_deadlock);
    let (entry, raise, options) = (AtomicUsize::new(0), AtomicUsize::new(0), options.clone());
    let _ = WORLD.set(World { heap, runtime, collector, scheduler, entry, raise, trace, options });
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
    for f in &code.functions {
        region.functions.push(unwind::Function {
            name: f.name.clone(),
            start: f.start,
            len: f.len,
            moves_return_address: false,
        });
    }
    for s in code.safepoints {
        let cfa_offset = s.span + stack_map::cranelift::FRAME_RECORD;
        region.safepoints.push(unwind::Safepoint {
            return_address: s.return_address,
            cfa_offset,
            slots: s.slots,
        });
    }
    w.runtime.code().register(region)?;
    // Relaxed: the threads that read it start later.
    w.entry.store(code.entry, Ordering::Relaxed);
    w.raise.store(code.raise, Ordering::Relaxed);
    traceback::set_functions(code.functions, code.file);
    if code.calls_c {
        // A thread that C has made may call in at any time: that all goroutines wait is no
        // deadlock.
        w.scheduler.await_wakeup();
    }
    foreign::set_exports(code.exports);
    let own = code.own_methods;
    interface::set_own_methods(own.error, own.signature, own.text);
    for (at, bytes) in code.globals {
        // SAFETY: the compiler allocated whole words that are never freed; managed code accesses
        // them word by word.
        unsafe { w.collector.add_globals(at..at + bytes) };
    }
    if w.options.profile.is_some() {
        profile::start(w.runtime.code())?;
    }
    spawn(code.start);
    let threads = w.scheduler.start()?;
    if w.options.progress {
        std::thread::Builder::new().name("progress".into()).spawn(tell_progress)?;
    }
    // The program ends the process.
    loop {
        std::thread::park();
        let _ = &threads;
    }
}

/// Writes a line each second, until the process ends.
fn tell_progress() {
    let begun = Instant::now();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let line = report::progress(begun.elapsed(), &world().collector.statistics(), goroutines());
        output::error(line.as_bytes());
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
    thread::with(|local| {
        f(local
            .allocator
            .get_or_init(|| world().heap.allocator().unwrap_or_else(|e| Embedder.fatal(&e))))
    })
}

/// Zeroed memory, or what stands in the way.
pub(crate) fn try_allocate(descriptor: usize, bytes: usize) -> Result<usize, AllocationError> {
    let allocated =
        with_allocator(|a| a.allocate(DescriptorId::from_index(descriptor as u32), bytes));
    allocated.map(|at| at.as_ptr() as usize)
}

/// Where, behind the word that the goroutine has from its machine, the allocator's fields for such
/// objects lie, and the size of their cells. None: they are too large.
pub(crate) fn allocation_slot(descriptor: usize, bytes: usize) -> Option<(usize, usize)> {
    Allocator::slot_offset(DescriptorId::from_index(descriptor as u32), bytes)
}

/// The byte that is not zero while stores of references must be reported.
pub(crate) fn write_barrier_flag() -> *const u8 {
    world().collector.write_barrier().flag_address() as *const u8
}

/// Whether stores of references must be reported.
pub(crate) fn reports_stores() -> bool {
    world().collector.write_barrier().is_on()
}

/// Whether overwritten references are reported, too.
pub(crate) fn shades_lost() -> bool {
    world().options.write_barrier == BarrierKind::Hybrid
}

/// Reports a reference that is overwritten or dropped, if it has to be.
pub(crate) fn shade_lost(word: usize) {
    with_buffer(|buffer| buffer.shade_overwritten(word));
}

/// Reports a reference that is stored.
pub(crate) fn shade(word: usize) {
    with_buffer(|buffer| buffer.shade(word));
}

/// Reports a reference that is stored at the address `to`.
pub(crate) fn store(word: usize, to: usize) {
    with_buffer(|buffer| buffer.store(word, to));
}

fn with_buffer(f: impl FnOnce(&BarrierBuffer)) {
    if !world().options.break_write_barrier {
        thread::with(|local| {
            f(local.stores.get_or_init(|| world().collector.write_barrier().buffer()))
        });
    }
}

/// A goroutine that waits in a queue.
pub(crate) struct Waiter(Arc<Goroutine>);

impl Waiter {
    pub(crate) fn current() -> Waiter {
        // SAFETY: natives run on behalf of a goroutine; the caller is used here alone.
        Waiter(unsafe { Caller::current() }.handle())
    }

    /// Replaces the words that are roots for the goroutine. Its stack may have been scanned: they
    /// are reported.
    pub(crate) fn set_transfer(&self, words: &[usize]) {
        if reports_stores() {
            words.iter().for_each(|word| shade(*word));
        }
        self.0.set_transfer(words);
    }

    pub(crate) fn take_transfer(&self) -> Vec<usize> {
        let mut words = vec![];
        self.0.take_transfer(&mut words);
        words
    }

    /// Whether both are the same goroutine.
    pub(crate) fn is(&self, other: &Waiter) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
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

/// What a collection at a poll collects: everything, every so often.
fn poll_generation() -> Generation {
    static POLLS: AtomicUsize = AtomicUsize::new(0);
    match POLLS.fetch_add(1, Ordering::Relaxed) % 8 {
        0 => Generation::All,
        _ => Generation::Young,
    }
}

/// A whole collection. The native ends here.
pub(crate) fn collect() {
    // SAFETY: natives run on behalf of a goroutine; what this owns moves into the request.
    unsafe { collect_for(Caller::current(), Generation::All) }
}

/// Parks the goroutine until a collection that begins now is complete.
///
/// # Safety
/// As for [`Caller::park`].
unsafe fn collect_for(caller: Caller<'_>, generation: Generation) {
    let w = world();
    let goroutine = caller.handle();
    w.scheduler.await_wakeup();
    let publish = move || {
        let done = move || {
            w.runtime.ready(goroutine, 0);
            w.scheduler.wakeup_done();
        };
        match generation {
            Generation::All => w.collector.request(done),
            Generation::Young => w.collector.request_minor(done),
        }
    };
    // SAFETY: by our contract.
    unsafe { caller.park(publish) };
}

/// Where a managed frame stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// How far its stack pointer lies below the top of the stack.
    pub(crate) depth: usize,
    /// Where its call returns to.
    pub(crate) pc: usize,
}

/// Calls `visit` for each managed frame of the current goroutine, youngest first, as long as it
/// says so.
pub(crate) fn each_frame(mut visit: impl FnMut(Place, Role) -> bool) {
    // SAFETY: used here alone.
    let caller = unsafe { Caller::current() };
    let walked = caller.frames(|frame| {
        let go_on = frame.kind != FrameKind::Managed
            || visit(Place { depth: frame.depth, pc: frame.pc }, traceback::role(frame.pc - 1));
        if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if let Err(error) = walked {
        Embedder.fatal(&error)
    }
}

/// The managed frame that has called the running native.
pub(crate) fn calling_frame() -> Place {
    let mut found = None;
    each_frame(|frame, _| {
        found = Some(frame);
        false
    });
    found.expect("natives are called by managed code")
}

/// The frame of the function with which the current goroutine has started; none if native code
/// began it.
pub(crate) fn starting_frame() -> Option<Place> {
    let mut last = None;
    each_frame(|frame, role| {
        last = (role == Role::Start).then_some(frame);
        true
    });
    last
}

/// Leaves the frames younger than the one at `depth`, whose call returns `value` at `pc`.
///
/// # Safety
/// As for [`Caller::unwind_to`].
pub(crate) unsafe fn unwind_to(depth: usize, pc: usize, value: usize) -> ! {
    // SAFETY: the caller's promise.
    let error = unsafe { Caller::current().unwind_to(depth, pc, [value, 0]) };
    Embedder.fatal(&error)
}

/// Calls back a managed function with the address of words of which the first is the current
/// goroutine's header.
pub(crate) fn call_back(f: usize, argument: usize) {
    // SAFETY: the address of a managed function that the compiler made for this. The native holds
    // no address in the stack.
    let called = unsafe {
        let f = std::mem::transmute::<usize, stackmark_asm::ManagedFn>(f);
        let caller = Caller::current();
        caller.foreign(|| caller.callback(f, argument))
    };
    if let Err(error) = called {
        Embedder.fatal(&error)
    }
}

/// Calls back the managed function that panics with what `raised` says.
pub(crate) fn call_back_to_panic(raised: usize) -> ! {
    let f = world().raise.load(Ordering::Relaxed);
    // SAFETY: the address of the managed function that the compiler made for this; its frames are
    // left, not returned from.
    unsafe {
        let f = std::mem::transmute::<usize, stackmark_asm::ManagedFn>(f);
        let caller = Caller::current();
        match caller.foreign(|| caller.callback(f, raised)) {
            Ok(_) => unreachable!("a panic does not return"),
            Err(error) => Embedder.fatal(&error),
        }
    }
}

/// Calls C code at `wrapper` with `block`; others go on meanwhile.
///
/// # Errors
/// What it has thrown, as a text.
pub(crate) fn foreign(wrapper: usize, block: usize) -> Result<(), String> {
    // SAFETY: the address of a wrapper that the C compiler has made, with this type.
    let f = unsafe { std::mem::transmute::<usize, unsafe extern "C-unwind" fn(usize)>(wrapper) };
    // SAFETY: used here alone.
    let caller = unsafe { Caller::current() };
    // SAFETY: the block is as the wrapper expects it.
    let called = caller.catch_native(|| caller.foreign(|| unsafe { f(block) }));
    called.map_err(|exception| exception.to_string())
}

/// Calls the managed function at `thunk` from native code, on whatever thread.
pub(crate) fn call_in(thunk: usize, block: usize) {
    // SAFETY: the address of a managed function that the compiler made for this.
    let f = unsafe { std::mem::transmute::<usize, stackmark_asm::ManagedFn>(thunk) };
    let called = world().runtime.call_in(|caller| {
        let incoming = [std::ptr::from_ref(caller.goroutine().header()) as usize, block];
        // SAFETY: the function takes the address of these two words; native code keeps no address
        // in the stack.
        unsafe { caller.callback(f, incoming.as_ptr() as usize) }
    });
    match called {
        Ok(Ok(_)) => {}
        Ok(Err(error)) | Err(error) => fail::die(&format!("fatal error: {error}")),
    }
}

/// What native code calls to learn where the goroutine's stack ends.
pub(crate) fn hooks() -> Hooks {
    Hooks {
        stack_top: stackmark_asm::stackmark_stack_top as *const () as usize,
        export: foreign::export as *const () as usize,
    }
}

/// The address of the current goroutine's header.
pub(crate) fn current_header() -> usize {
    // SAFETY: used here alone.
    std::ptr::from_ref(unsafe { Caller::current() }.goroutine().header()) as usize
}

/// The current goroutine's number, if this thread runs one.
pub(crate) fn current_id() -> Option<u64> {
    // SAFETY: used here alone.
    Some(unsafe { Caller::try_current() }?.goroutine().id())
}

/// Whether the current goroutine is the program's first.
pub(crate) fn is_main() -> bool {
    current_id() == Some(1)
}

/// Calls `visit` for each frame of this thread, on all its stacks, with an address in the
/// instruction that it stands at.
pub(crate) fn full_backtrace(visit: impl FnMut(usize) -> ControlFlow<()>) {
    stackmark::stack::full_backtrace(visit);
}

/// Whether an address is in this program's own code, not in a C library.
pub(crate) fn in_own_image(at: usize) -> bool {
    let base = |at: usize| {
        // SAFETY: plain data, filled in by the call.
        let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: any address may be asked for.
        let found = unsafe { libc::dladdr(at as *const _, &mut info) };
        (found != 0).then_some(info.dli_fbase)
    };
    base(at).is_some_and(|b| base(in_own_image as *const () as usize) == Some(b))
}

/// The tracebacks of goroutines that wait, for a deadlock.
pub(crate) fn parked_goroutines() -> String {
    let runtime = &world().runtime;
    let mut text = String::new();
    for goroutine in runtime.goroutines().iter().take(TRACEBACK_GOROUTINES) {
        let why = Wait::of(goroutine).map_or("waiting", Wait::name);
        let mut lines = traceback::Lines::of(goroutine.id(), why);
        let walked = runtime.frames(goroutine, |frame| match frame.kind {
            FrameKind::Managed => lines.frame(frame.pc - 1),
            _ => ControlFlow::Continue(()),
        });
        text += &lines.finish();
        if let Err(error) = walked {
            let _ = writeln!(text, "the traceback ends: {error}");
        }
        text.push('\n');
    }
    text
}

/// Ends the process.
pub(crate) fn exit(status: i32) -> ! {
    end(status, || {})
}

/// Ends the process after `last_words`, without running destructors under the other threads.
pub(crate) fn end(status: i32, last_words: impl FnOnce()) -> ! {
    // Only the first to come writes; the others wait for the end.
    static ENDING: Mutex<()> = Mutex::new(());
    std::mem::forget(ENDING.lock());
    last_words();
    let failed = WORLD.get().is_some_and(|w| {
        let statistics = w.collector.statistics();
        if w.options.report {
            output::error(report::text(&statistics).as_bytes());
        }
        let mut failed = false;
        let mut wrote = |file: &Path, written: std::io::Result<()>| {
            if let Err(error) = written {
                output::error(format!("minigo: {}: {error}\n", file.display()).as_bytes());
                failed = true;
            }
        };
        if let Some(file) = &w.options.stats {
            let statistics =
                report::json(&statistics, &w.runtime.census(), w.collector.handles().live());
            wrote(file, std::fs::write(file, format!("{statistics:#}\n")));
        }
        if let Some(file) = &w.options.profile {
            wrote(file, profile::write(file));
        }
        if let (Some(trace), Some(file)) = (&w.trace, &w.options.trace) {
            wrote(file, trace.finish());
        }
        failed
    });
    // SAFETY: ends the process.
    unsafe { libc::_exit(if failed && status == 0 { 1 } else { status }) }
}
