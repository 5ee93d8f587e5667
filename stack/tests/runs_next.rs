//! Which goroutine a thread of the scheduler runs next, and that no goroutine waits for a thread
//! that does not come.

use compiler::{Compiled, Embedder};
use limits::Watch;
use stackmark_stack::scheduler::Scheduler;
use stackmark_stack::unwind::Code;
use stackmark_stack::{Caller, Config, Goroutine, Runtime, Status};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;

/// What a goroutine does in its only call out.
type Act = fn(&Stage, usize, Caller<'_>) -> usize;

/// What the goroutines of one test share.
#[derive(Default)]
struct Stage {
    goroutines: OnceLock<Vec<Arc<Goroutine>>>,
    turns: AtomicUsize,
    before: AtomicUsize,
    has_run: AtomicBool,
}

impl Stage {
    fn goroutine(&self, number: usize) -> &Arc<Goroutine> {
        &self.goroutines.get().expect("they are set first")[number]
    }

    fn ready(&self, number: usize, caller: Caller<'_>) {
        caller.runtime().schedule(self.goroutine(number).clone());
    }

    fn await_run(&self) {
        self.await_that(|| self.has_run.load(SeqCst));
    }

    fn await_that(&self, has_come: impl Fn() -> bool) {
        let mut watch = Watch::own();
        while !has_come() {
            thread::yield_now();
            watch.check("a goroutine does not run");
        }
    }
}

/// The object of a goroutine. Compiled code reads its first word.
#[repr(C)]
struct Part {
    word: usize,
    number: usize,
    act: Act,
    stage: Arc<Stage>,
}

unsafe extern "C-unwind" fn acts(object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone, which owns nothing when it yields.
    let caller = unsafe { Caller::current() };
    // SAFETY: each goroutine's object is a part, which outlives it.
    let part = unsafe { &*object.cast::<Part>() };
    (part.act)(&part.stage, part.number, caller)
}

/// Runs these goroutines on so many threads until all have ended. The first one is ready, and
/// makes the others ready.
fn run(threads: usize, parts: &[Act]) -> Arc<Stage> {
    let code = Arc::new(Code::new());
    let compiled: Compiled = compiler::compile(&code, acts, 16);
    let runtime =
        Runtime::new(Config::default(), code, Box::new(Embedder)).expect("the assembly's frames");
    let scheduler = Scheduler::new(&runtime, threads, Box::new(|| {}));
    let stage = Arc::new(Stage::default());
    let parts: Vec<Part> = parts
        .iter()
        .enumerate()
        .map(|(number, act)| Part { word: 1, number, act: *act, stage: stage.clone() })
        .collect();
    let mut arguments: Vec<[usize; 3]> =
        parts.iter().map(|part| [0, &raw const part.word as usize, 0]).collect();
    let goroutines = arguments.iter_mut().map(|argument| {
        // SAFETY: compiled code that keeps the contracts; argument and part outlive it.
        unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) }.expect("memory")
    });
    stage.goroutines.set(goroutines.collect()).expect("once");
    runtime.schedule(stage.goroutine(0).clone());
    let running = scheduler.start().expect("threads");
    let mut watch = Watch::own();
    while runtime.live_goroutines() > 0 {
        thread::yield_now();
        watch.check("a goroutine does not end");
    }
    running.stop();
    drop(compiled);
    stage
}

/// A short turn: it makes the next goroutine ready, and ends.
fn hands_on(stage: &Stage, number: usize, caller: Caller<'_>) -> usize {
    stage.turns.fetch_add(1, SeqCst);
    stage.ready(number + 1, caller);
    0
}

/// Tells that it has run, and how many had handed on before.
fn tells(stage: &Stage, _: usize, _: Caller<'_>) -> usize {
    stage.before.store(stage.turns.load(SeqCst), SeqCst);
    stage.has_run.store(true, SeqCst);
    0
}

/// Ends.
fn ends(_: &Stage, _: usize, _: Caller<'_>) -> usize {
    0
}

/// Of each pair one makes the other ready and yields. Then the other one runs first.
#[test]
fn a_goroutine_that_yields_runs_after_the_one_that_it_has_made_ready() {
    fn makes_ready_and_yields(stage: &Stage, number: usize, caller: Caller<'_>) -> usize {
        stage.ready(number + 1, caller);
        // SAFETY: nothing here owns anything.
        unsafe { caller.yield_now(0) }
    }
    fn looks(stage: &Stage, number: usize, caller: Caller<'_>) -> usize {
        let waits = stage.goroutine(number - 1).status() == Status::Runnable;
        stage.turns.fetch_add(usize::from(waits), SeqCst);
        if number + 1 < 2 * PAIRS {
            stage.ready(number + 1, caller);
        }
        0
    }
    const PAIRS: usize = 150;
    let parts: Vec<Act> =
        (0..PAIRS).flat_map(|_| [makes_ready_and_yields as Act, looks as Act]).collect();
    assert_eq!(run(1, &parts).turns.load(SeqCst), PAIRS);
}

/// The goroutines that hand on are always next. One waits in the queue beside them.
#[test]
fn goroutines_that_hand_on_to_one_another_let_others_run() {
    fn begins(stage: &Stage, _: usize, caller: Caller<'_>) -> usize {
        stage.ready(1, caller);
        stage.ready(2, caller);
        0
    }
    const CHAIN: usize = 500;
    let mut parts: Vec<Act> = vec![begins, tells];
    parts.extend([hands_on as Act; CHAIN]);
    parts.push(ends);
    let before = run(1, &parts).before.load(SeqCst);
    assert!(before < 130, "{before} have run before");
}

/// Turns are short for so long that no thread is woken for one goroutine. Then one that readies
/// another does not end.
fn after_short_turns(runs_on: Act) {
    const CHAIN: usize = 1000;
    let mut parts: Vec<Act> = vec![hands_on; CHAIN];
    parts.extend([runs_on, tells]);
    let stage = run(2, &parts);
    assert_eq!(stage.before.load(SeqCst), CHAIN);
}

#[test]
fn a_goroutine_runs_elsewhere_while_the_one_that_has_made_it_ready_runs_on() {
    after_short_turns(|stage, number, caller| {
        stage.ready(number + 1, caller);
        stage.await_run();
        0
    });
}

#[test]
fn a_goroutine_runs_elsewhere_while_the_one_that_has_made_it_ready_is_in_a_foreign_call() {
    after_short_turns(|stage, number, caller| {
        stage.ready(number + 1, caller);
        caller.foreign(|| stage.await_run());
        0
    });
}

#[test]
fn a_goroutine_that_is_made_ready_in_a_foreign_call_runs_elsewhere_meanwhile() {
    after_short_turns(|stage, number, caller| {
        let runtime = caller.runtime();
        let goroutine = stage.goroutine(number + 1);
        caller.foreign(|| {
            runtime.schedule(goroutine.clone());
            stage.await_run();
        });
        0
    });
}

#[test]
fn another_thread_takes_what_waits_behind_a_turn_that_is_long_after_many_short_ones() {
    const SHORT: usize = 2_000;
    const BEHIND: usize = 3;
    fn counts(stage: &Stage, _: usize, _: Caller<'_>) -> usize {
        stage.turns.fetch_add(1, SeqCst);
        0
    }
    fn waits_for_all(stage: &Stage, number: usize, caller: Caller<'_>) -> usize {
        (1..=BEHIND).for_each(|by| stage.ready(number + by, caller));
        stage.await_that(|| stage.turns.load(SeqCst) == SHORT + BEHIND);
        0
    }
    let mut parts: Vec<Act> = vec![hands_on; SHORT];
    parts.push(waits_for_all);
    parts.extend([counts as Act; BEHIND]);
    assert_eq!(run(2, &parts).turns.load(SeqCst), SHORT + BEHIND);
}
