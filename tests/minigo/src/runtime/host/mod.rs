//! The library that minigo embeds: the one part of the runtime that knows its interface. This file
//! sets it up, runs a program and ends the process.

mod calls;
mod frames;
mod goroutines;
mod heap;
mod memory;
mod picture;
mod threads;
mod world;

pub(crate) use calls::{
    call_back, call_back_to_panic, call_in, foreign, hooks, may_wait, on_threads, runs_on,
};
pub(crate) use frames::{calling_frame, each_frame, full_backtrace, starting_frame, unwind_to};
pub(crate) use goroutines::{
    Wait, Waiter, Words, collect, current_header, current_id, goroutines, is_main, park,
    parked_goroutines, set_transfer, spawn,
};
pub use heap::Heap;
pub(crate) use memory::{
    Held, allocate_or_collect, allocates_inline, barrier, descriptor, descriptors, hold,
    reports_stores, shade, shade_lost, store, try_allocate,
};

use crate::code::Code;
use crate::options::{Options, Stress};
use crate::os::{self, profile};
use crate::report;
use crate::runtime::{fail, foreign as exports, interface, output, panic, traceback};
use parking_lot::Mutex;
use stackmark::Collector;
use stackmark::mark_sweep::MarkSweep;
use stackmark::stack::scheduler::Scheduler;
use stackmark::stack::{BarrierMode, Config, Goroutine, Host, Runtime, report_native_overflow};
use stackmark::trace_file::TraceFile;
use stackmark::unwind;
use stackmark_cranelift::{Module, ModuleError, Program};
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use threads::Threads;
use world::{Memory, WORLD, World, world};

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        fail::die(&format!(
            "runtime: goroutine stack exceeds {limit}-byte limit\nfatal error: stack overflow"
        ))
    }

    fn machine_attached(&self) -> usize {
        memory::machine_attached()
    }

    fn machine_detached(&self, word: usize) {
        memory::machine_detached(word);
    }

    fn source(&self, pc: usize) -> Option<(String, u32)> {
        traceback::source(pc)
    }

    fn fatal(&self, error: &dyn std::error::Error) -> ! {
        world::fatal(error)
    }
}

/// The largest frame that a function makes without asking for room, in bytes. A stack of 1 KiB has
/// room for a few frames besides.
pub(crate) const MAX_FRAME: usize = 384;

/// Sets up heap and runtime; compiling needs the heap already. `other`: instead of the library's.
pub(crate) fn init(
    options: &Options,
    other: Option<Box<dyn Heap>>,
) -> Result<(), Box<dyn std::error::Error>> {
    os::handle_faults()?;
    report_native_overflow()?;
    let barriers = match options.barriers {
        BarrierMode::Off => BarrierMode::Off,
        _ if options.has(Stress::BarrierEveryFrame) => BarrierMode::EveryFrame,
        mode => mode,
    };
    let config = Config {
        max_stack: options.max_stack,
        max_frame: MAX_FRAME,
        barriers,
        protection: options.protection,
        scan_few_frames: options.has(Stress::ScanFewFrames),
        move_every_poll: options.has(Stress::MoveEveryPoll),
        poison: options.has(Stress::Poison),
        poll_always: options.has(Stress::CollectEveryPoll),
        exact_language_words: other.is_some(),
        ..Config::default()
    };
    let runtime = Runtime::new(config, Arc::new(unwind::Code::new()), Box::new(Embedder))?;
    let create = |file: &Path| {
        TraceFile::create(file)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
    };
    let trace = options.trace.as_deref().map(create).transpose()?;
    if let Some(trace) = &trace {
        runtime.observed().set(Arc::clone(trace) as _);
    }
    let memory = match other {
        None => own_memory(options, &runtime)?,
        Some(heap) => {
            heap.start(&runtime)?;
            memory::report_stores_to(&*heap);
            Memory::Other(heap)
        }
    };
    let scheduler = Scheduler::new(&runtime, options.threads, Box::new(|| deadlock()));
    let threads = options.native_stacks.then(Threads::default);
    let (entry, raise, options) = (AtomicUsize::new(0), AtomicUsize::new(0), options.clone());
    let _ = WORLD.set(World { memory, runtime, scheduler, threads, entry, raise, trace, options });
    Ok(())
}

/// The library's heap, and its collector.
fn own_memory(
    options: &Options,
    runtime: &Arc<Runtime>,
) -> Result<Memory, Box<dyn std::error::Error>> {
    let poison = options.has(Stress::Poison);
    let mut heap = stackmark::mark_sweep::Options { poison, ..Default::default() };
    heap.limit = options.heap_limit.unwrap_or(heap.limit);
    let heap = MarkSweep::new(&heap)?;
    let defaults = stackmark::Config::default();
    let collector = stackmark::Config {
        workers: options.mark_workers.unwrap_or(defaults.workers),
        percent: u32::try_from(options.gc_percent).ok(),
        memory_limit: options.memory_limit,
        write_barrier: options.write_barrier,
        generational: options.generational,
        verify: options.has(Stress::Verify),
        collect_every_poll: options.has(Stress::CollectEveryPoll),
    };
    let collector = Collector::start(Arc::clone(&heap), Arc::clone(runtime), &collector)?;
    Ok(Memory::Own { heap, collector })
}

/// Ends the process: every goroutine waits for another one.
fn deadlock() -> ! {
    match panic::main_has_exited() {
        true => fail::die("fatal error: no goroutines (main called runtime.Goexit) - deadlock!"),
        false => fail::die("fatal error: all goroutines are asleep - deadlock!"),
    }
}

/// Puts compiled code in its final place and makes it known to the runtime.
pub(crate) fn place(module: Module) -> Result<Program, ModuleError> {
    module.finish(world().runtime.code())
}

/// Makes the code known to the runtime that was linked with it, and is at this address.
///
/// # Errors
/// The image cannot be registered.
pub(crate) fn register_image(address: usize) -> Result<(), Box<dyn std::error::Error>> {
    Ok(world().runtime.register_image(address).map(|_| ())?)
}

/// Runs a program. It ends the process itself.
pub(crate) fn run(code: Code) -> Result<Infallible, Box<dyn std::error::Error>> {
    let w = world();
    // Relaxed: the threads that read it start later.
    w.entry.store(code.entry, Ordering::Relaxed);
    w.raise.store(code.raise, Ordering::Relaxed);
    traceback::set_program(code.program, &code.roles, code.file);
    if code.calls_c {
        // A thread that C has made may call in at any time: that all goroutines wait is no
        // deadlock.
        w.scheduler.await_wakeup();
        w.threads.iter().for_each(Threads::wakes);
    }
    exports::set_exports(code.exports);
    interface::set_own_methods(&code.own_methods);
    for (at, bytes) in code.globals {
        // SAFETY: the compiler allocated whole words that are never freed; managed code accesses
        // them word by word.
        unsafe {
            match &w.memory {
                Memory::Own { collector, .. } => collector.add_globals(at..at + bytes),
                Memory::Other(heap) => heap.add_globals(at..at + bytes),
            }
        }
    }
    if w.options.profile.is_some() {
        profile::start(w.runtime.code())?;
    }
    spawn(code.start);
    let threads = match &w.threads {
        Some(_) => None,
        None => Some(w.scheduler.start()?),
    };
    if let (true, Some(collector)) = (w.options.progress, w.collector()) {
        std::thread::Builder::new().name("progress".into()).spawn(|| tell_progress(collector))?;
    }
    // The program ends the process.
    if let Some(threads) = &w.threads {
        threads.wait_for_deadlock();
        deadlock();
    }
    loop {
        std::thread::park();
        let _ = &threads;
    }
}

/// Writes a line each second, until the process ends.
fn tell_progress(collector: &Collector<MarkSweep>) -> Infallible {
    let begun = Instant::now();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let line = report::progress(begun.elapsed(), &collector.statistics(), goroutines());
        output::error(line.as_bytes());
    }
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
        let collector = match &w.memory {
            Memory::Own { collector, .. } => collector,
            Memory::Other(heap) => {
                if w.options.report {
                    output::error(format!("{}\n", heap.report()).as_bytes());
                }
                return false;
            }
        };
        let statistics = collector.statistics();
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
                report::json(&statistics, &w.runtime.census(), collector.handles().live());
            wrote(file, std::fs::write(file, format!("{statistics:#}\n")));
        }
        if let Some(file) = &w.options.profile {
            wrote(file, profile::write(file));
        }
        if let Some(file) = &w.options.picture {
            wrote(file, picture::write(&w.runtime, file));
        }
        if let (Some(trace), Some(file)) = (&w.trace, &w.options.trace) {
            wrote(file, trace.finish());
        }
        failed
    });
    os::exit_now(if failed && status == 0 { 1 } else { status })
}
