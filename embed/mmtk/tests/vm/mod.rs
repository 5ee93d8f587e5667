//! A small virtual machine on MMTk: its binding, its programs, and how they are run.

#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod binding;
pub(crate) mod code;
#[cfg(test)]
pub(crate) mod derived;
#[cfg(test)]
pub(crate) mod plans;
pub(crate) mod trigger;

use binding::{MMTK, MOVED, PAUSES, STACKS, TestVm};
use code::{WRONG, Work};
use mmtk::MMTKBuilder;
use mmtk::memory_manager as mm;
use mmtk::util::opaque_pointer::VMThread;
use stackmark_mmtk::stack::scheduler::{Scheduler, Threads};
use stackmark_mmtk::stack::unwind::Code;
use stackmark_mmtk::stack::{BarrierMode, Config, Goroutine, Host, Runtime, Word};
use stackmark_mmtk::{Options, PauseKind, connect, machine};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};

/// What is run, and how.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) plan: String,
    /// Options of MMTk's.
    pub(crate) heap: Vec<(String, String)>,
    pub(crate) config: Config,
    pub(crate) options: Options,
    pub(crate) threads: usize,
    /// With a delegated trigger, the bytes from one collection to the next.
    pub(crate) collects_every: usize,
    /// For the programs of [`code`].
    pub(crate) depth: usize,
    pub(crate) goroutines: usize,
    pub(crate) work: Work,
}

impl Run {
    /// One goroutine on one thread, under a plan with these options, with return barriers.
    pub(crate) fn on(plan: &str, heap: &[(&str, &str)]) -> Run {
        Run {
            plan: plan.into(),
            heap: heap.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            config: Config {
                barriers: BarrierMode::Incremental,
                exact_language_words: true,
                ..Config::default()
            },
            options: Options::default(),
            threads: 1,
            collects_every: 0,
            depth: 0,
            goroutines: 1,
            work: Work { at_bottom: 0, on_return: 0, every: 1, wiggle: 0 },
        }
    }
}

#[derive(Default)]
struct Embedder {
    ended: (Mutex<Vec<usize>>, Condvar),
}

// ANCHOR: machines
impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }
    fn machine_attached(&self) -> usize {
        machine::attach::<TestVm>()
    }
    fn machine_detached(&self, word: usize) {
        // SAFETY: the word of this thread's machine.
        unsafe { machine::detach::<TestVm>(word) };
    }
    fn goroutine_exited(&self, _goroutine: &Goroutine, result: usize) {
        self.ended.0.lock().expect("no panic").push(result);
        self.ended.1.notify_all();
    }
}
// ANCHOR_END: machines

/// What a run has shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) collections: usize,
    /// More than collections, if one has two.
    pub(crate) pauses: usize,
    pub(crate) short: usize,
    pub(crate) moved: u64,
    pub(crate) slots: u64,
    pub(crate) found_while_marking: u64,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shown { collections, pauses, short, moved, slots, found_while_marking } = self;
        write!(
            f,
            "{collections} collections, {short} of them short, in {pauses} pauses, {moved} objects \
             moved, {slots} slots of stacks, {found_while_marking} roots found while marking"
        )
    }
}

/// Makes MMTk and a runtime, connects them, and starts the threads that run goroutines.
pub(crate) fn start(run: &Run) -> (Arc<Runtime>, Arc<Code>, Threads) {
    let mut builder = MMTKBuilder::new_no_env_vars();
    assert!(builder.set_option("plan", &run.plan), "no plan {}", run.plan);
    for (name, value) in &run.heap {
        assert!(builder.set_option(name, value), "{name}={value}");
    }
    trigger::EVERY.store(run.collects_every, Relaxed);
    // ANCHOR: connect
    let mmtk: &'static _ = Box::leak(mm::mmtk_init::<TestVm>(&builder));
    assert!(MMTK.set(mmtk).is_ok(), "MMTk is a singleton");
    let code = Arc::new(Code::new());
    let host = Box::new(Embedder::default());
    let runtime = Runtime::new(run.config.clone(), code.clone(), host).expect("a runtime");
    let stacks = connect(&runtime, mmtk, run.options.clone()).expect("the one collector");
    assert!(STACKS.set(stacks).is_ok());
    mm::initialize_collection(mmtk, VMThread::UNINITIALIZED);
    // ANCHOR_END: connect
    let scheduler = Scheduler::new(&runtime, run.threads, Box::new(|| panic!("a deadlock")));
    // The main thread has goroutines to come: that is no deadlock.
    scheduler.await_wakeup();
    let threads = scheduler.start().expect("threads");
    (runtime, code, threads)
}

/// Runs goroutines to their ends, and checks what they return; again, until there were so many
/// collections.
pub(crate) fn run(run: &Run, collections: usize) -> Shown {
    let (runtime, code, threads) = start(run);
    let compiled = code::compile(&code, run.work);
    let shown = loop {
        run_goroutines(&runtime, compiled.entry, run.depth, run.goroutines);
        let shown = shown();
        if shown.collections >= collections {
            break shown;
        }
    };
    threads.stop();
    shown
}

/// Runs so many goroutines, by the runtime's scheduler, and checks what they return.
pub(crate) fn run_goroutines(runtime: &Arc<Runtime>, entry: usize, depth: usize, count: usize) {
    let (results, ended) = &runtime.host::<Embedder>().expect("the host").ended;
    for _ in 0..count {
        // SAFETY: compiled code that keeps the contracts.
        let goroutine = unsafe { runtime.spawn(entry, Word::Plain(depth)) };
        runtime.schedule(goroutine.expect("memory"));
    }
    let results = results.lock().expect("no panic");
    let all = ended.wait_while(results, |results| results.len() < count);
    let results = std::mem::take(&mut *all.expect("no panic"));
    assert_eq!(WRONG.load(Relaxed), 0, "frames have found something wrong");
    assert_eq!(results, vec![depth * (depth + 1) / 2; count]);
}

pub(crate) fn shown() -> Shown {
    let pauses = PAUSES.lock().expect("no panic");
    Shown {
        collections: pauses.iter().filter(|p| p.kind != PauseKind::InitialMark).count(),
        pauses: pauses.len(),
        short: pauses.iter().filter(|pause| pause.kind == PauseKind::Short).count(),
        moved: MOVED.load(Relaxed),
        slots: pauses.iter().map(|pause| pause.slots).sum(),
        found_while_marking: STACKS.get().expect("made").found_while_marking(),
    }
}
