//! Managed code on threads' own stacks, with native frames between. The same programs run on
//! goroutines with stacks of their own: results, frames and roots are the same.

mod ambiguous;
// No gdb debugs a process of wine's.
#[cfg(not(windows))]
mod debugger;
// No destructors run there that come behind those of thread-locals.
#[cfg(not(windows))]
mod ending;
mod entering;
mod jumps;
mod leaving;
#[path = "../calls/native.rs"]
mod native;
mod programs;
#[cfg(windows)]
mod unrecorded;

use compiler::{Compiled, Compiler, Embedder, INT, KEPT, RunsOn, Start, THREAD_STACK, rec_result};
use parking_lot::Mutex;
use stackmark_stack::asm::{ManagedFn, layout::GoroutineHeader};
use stackmark_stack::unwind::{CallFrame, Code, FrameKind, RuleCache, WalkError};
use stackmark_stack::{
    AttachError, BarrierMode, Caller, Config, CycleDriver, DetachError, FrameAt, Goroutine, Left,
    Machine, NextCycle, RootSink, Runtime, ScanScope, Status, Word, full_backtrace, sample,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
#[cfg(windows)]
use windows_sys::Win32::Foundation::{CloseHandle, WAIT_OBJECT_0};
#[cfg(windows)]
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_EXECUTION, EXCEPTION_CONTINUE_SEARCH,
    EXCEPTION_POINTERS, RaiseException, RemoveVectoredExceptionHandler,
};
#[cfg(windows)]
use windows_sys::Win32::System::Threading::{
    CreateThread, ExitThread, INFINITE, LPTHREAD_START_ROUTINE, WaitForSingleObject,
};

/// The pool of stubs is the process's. Tests that count on many of them take it for themselves, and
/// so do those that use it up.
static ALL_STUBS: Mutex<()> = Mutex::new(());

/// Whose stack managed code runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    Goroutines,
    Threads,
}

/// Keeps the roots of a cycle.
#[derive(Debug, Default)]
struct Roots(Mutex<HashSet<usize>>);

impl RootSink for Roots {
    fn roots(&self, words: &[usize]) {
        self.0.lock().extend(words);
    }
}

/// Gives this thread a native stack.
fn attach(runtime: &Arc<Runtime>) -> Result<(), AttachError> {
    // SAFETY: `Setting::call` calls what was compiled for native stacks on such threads.
    unsafe { runtime.attach_native_stack() }
}

/// A runtime with the same functions for either kind of stack.
struct Setting {
    runtime: Arc<Runtime>,
    compiled: [Compiled; 2],
    roots: Arc<Roots>,
    /// With the number of the last cycle.
    cycles: Mutex<(CycleDriver, u64)>,
}

fn configs() -> [Config; 4] {
    let every = Config { barriers: BarrierMode::EveryFrame, ..Config::default() };
    let moving = Config { move_every_poll: true, poison: true, ..every.clone() };
    let few = Config { scan_few_frames: true, ..Config::default() };
    [Config::default(), every, moving, few]
}

impl Setting {
    fn new(config: Config) -> Setting {
        let code = Arc::new(Code::new());
        // `call` calls the second ones on attached threads only.
        let compiled = [RunsOn::Goroutines, RunsOn::Threads].map(|runs_on| {
            let mut compiler = Compiler::for_stacks(runs_on);
            let rec = compiler.recursion(bottom, 16, false);
            let guarded = compiler.guarded(rec);
            compiler.entry(rec);
            let back = compiler.back("back", rec);
            compiler.back("back_guarded", guarded);
            // One managed frame.
            compiler.function("single", &[INT], Start::Callback, |f| {
                let argument = f.param(0);
                let n = f.load(argument, 1);
                let object = f.load_reference(argument, 2);
                let result = f.leaf(bottom, object, n);
                let read = f.load(object, 0);
                let result = f.add(result, read);
                f.return_(result);
            });
            // Native code that is called by `call_native`, and then by a plain call.
            compiler.function("plain", &[INT], Start::Callback, |f| {
                let argument = f.param(0);
                let n = f.load(argument, 1);
                let object = f.load_reference(argument, 2);
                let first = f.leaf(bottom, object, n);
                let second = f.plain_call(bottom, object, n);
                let result = f.add(first, second);
                f.return_(result);
            });
            compiler.finish(back, &code)
        });
        let runtime = Runtime::new(config, code, Box::new(Embedder)).expect("a new code");
        let roots = Arc::new(Roots::default());
        let cycles = CycleDriver::new(&runtime, roots.clone()).expect("one collector");
        Setting { runtime, compiled, roots, cycles: Mutex::new((cycles, 0)) }
    }

    /// Runs `f` on a new thread with that kind of stack.
    fn on<R: Send>(&self, stack: Stack, f: impl FnOnce() -> R + Send) -> R {
        self.on_bytes(THREAD_STACK, stack, f)
    }

    /// The same with so many bytes of the thread's own stack.
    fn on_bytes<R: Send>(&self, bytes: usize, stack: Stack, f: impl FnOnce() -> R + Send) -> R {
        let run = || {
            if stack == Stack::Threads {
                attach(&self.runtime).expect("a new thread");
            }
            f()
        };
        let builder = thread::Builder::new().stack_size(bytes);
        thread::scope(|scope| {
            let thread = builder.spawn_scoped(scope, run).expect("a thread");
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Calls `rec(n, act)` from native code, in a foreign call or outside of managed code.
    fn call(&self, stack: Stack, n: usize, act: Act<'_>) -> usize {
        self.call_with(stack, n, act, |_| {})
    }

    /// The same. Calls `tell` with the root that each frame of `rec` has.
    fn call_with(&self, stack: Stack, n: usize, act: Act<'_>, tell: impl FnOnce(usize)) -> usize {
        self.call_to("back", stack, n, act, tell)
    }

    /// Calls `guarded(n, act)`.
    fn call_guarded(&self, stack: Stack, n: usize, act: Act<'_>) -> usize {
        self.call_to("back_guarded", stack, n, act, |_| {})
    }

    /// Runs a goroutine that calls `rec(n, act)` by its entry function. Its result.
    fn run(&self, n: usize, act: Act<'_>) -> usize {
        let object = Box::new(Object { value: VALUE, kept: WORDS, act });
        let mut argument = [n, Object::address(&object), usize::MAX];
        let entry = self.compiled[Stack::Goroutines as usize].address("entry");
        // SAFETY: compiled code that keeps the contracts, whose argument outlives the run.
        let goroutine = unsafe { self.runtime.spawn(entry, argument.as_mut_ptr() as usize) };
        let machine = Machine::attach(&self.runtime).expect("this thread is not attached");
        assert!(matches!(machine.run(goroutine.expect("memory")), Left::Exited));
        argument[2]
    }

    /// Calls managed code of one frame, which calls `act` and adds 7.
    fn call_single(&self, stack: Stack, act: Act<'_>, tell: impl FnOnce(usize)) -> usize {
        self.call_to("single", stack, 0, act, tell)
    }

    fn call_to(
        &self,
        back: &str,
        stack: Stack,
        n: usize,
        act: Act<'_>,
        tell: impl FnOnce(usize),
    ) -> usize {
        #[repr(C)]
        struct Argument {
            goroutine: usize,
            n: usize,
            object: usize,
            result: usize,
        }
        // On the heap: addresses in the own stack are no roots.
        let object = Box::new(Object { value: VALUE, kept: WORDS, act });
        let object = Object::address(&object);
        tell(object);
        let called = self.runtime.call_in(|caller| {
            let goroutine = caller.goroutine().address();
            let argument = Argument { goroutine, n, object, result: 0 };
            let back = self.compiled[stack as usize].address(back);
            // SAFETY: compiled code with one parameter, for this kind of stack. Nothing native
            // holds an address in a stack that moves.
            unsafe {
                let back = std::mem::transmute::<usize, ManagedFn>(back);
                caller.callback(back, &raw const argument as usize)
            }
        });
        called.expect("in a foreign call").expect("in a foreign call")
    }

    /// The frames of this thread's goroutine that have a landing pad, youngest first: depth and
    /// landing pad.
    fn pads(&self, stack: Stack) -> Vec<(usize, usize)> {
        let mut pads = Vec::new();
        let walked = caller().frames(|FrameAt { pc, depth, .. }| {
            let pad = self.compiled[stack as usize].landing_pad(pc);
            pads.extend(pad.map(|pad| (depth, pad)));
            ControlFlow::Continue(())
        });
        walked.expect("a stack that can be walked");
        pads
    }

    /// Leaves all frames up to the `i`th that has a landing pad.
    fn leave_to_pad(&self, stack: Stack, i: usize, values: [usize; 2]) -> ! {
        let (depth, pad) = self.pads(stack)[i];
        // SAFETY: the frames between own nothing.
        let error = unsafe { caller().unwind_to(depth, pad, values) };
        panic!("{error}")
    }

    /// A cycle that scans whole stacks, from outside. Returns how often each root is there at its
    /// end, the rarest first.
    fn scan(&self) -> Vec<usize> {
        self.cycle(ScanScope::Whole)
    }

    /// A cycle. Every root that is there at its end has been given to the collector, by this cycle
    /// or one that it continues.
    fn cycle(&self, scope: ScanScope) -> Vec<usize> {
        let mut cycles = self.cycles.lock();
        let (cycles, number) = &mut *cycles;
        *number += 1;
        if scope == ScanScope::Whole {
            self.roots.0.lock().clear();
        }
        cycles.handshake();
        assert!(cycles.begin_scanning(*number, scope));
        cycles.scan_goroutines(|| {}).expect("stacks that can be walked");
        self.runtime.scan_frozen().expect("stacks that can be walked");
        cycles.stop_world(|world| {
            world.rescan_dirty().expect("stacks that can be walked");
            let mut found = BTreeMap::<usize, usize>::new();
            let mut visit = |words: &[usize]| {
                words.iter().for_each(|word| *found.entry(*word).or_default() += 1);
            };
            world.visit_all(&mut visit).expect("stacks that can be walked");
            let given = self.roots.0.lock();
            assert!(found.keys().all(|word| given.contains(word)), "a root was not scanned");
            world.end_scanning(NextCycle::MayBeShort);
            let mut counts: Vec<usize> = found.into_values().collect();
            counts.sort_unstable();
            counts
        })
    }

    /// Frames that cycles have visited so far.
    fn visited(&self) -> u64 {
        let counters = self.runtime.counters();
        let visited = [
            &counters.scanned_stopped,
            &counters.scanned_running,
            &counters.scanned_returning,
            &counters.rescanned,
        ];
        visited.iter().map(|counter| counter.load(Relaxed)).sum()
    }

    /// Nothing is left of goroutines and barriers.
    fn check_at_end(&self) {
        let census = self.runtime.census();
        let left = [census.goroutines, census.barriers, census.taken_stubs, census.stacks];
        assert_eq!((left, census.unsettled), ([0; 4], 0), "{census:?}");
    }
}

type Act<'a> = &'a dyn Fn() -> usize;

/// What managed code passes down: it reads the first word in every frame.
#[repr(C)]
struct Object<'a> {
    value: usize,
    /// `guarded` reads them.
    kept: [usize; KEPT],
    act: Act<'a>,
}

/// The words of objects.
const VALUE: usize = 7;
const WORDS: [usize; KEPT] = [11, 13, 17, 19];

/// What `guarded` returns when its callee returned `result`.
#[cfg(not(windows))]
fn guarded_result(result: usize) -> usize {
    compiler::guarded_result(WORDS, result)
}

/// What `guarded` returns when its landing pad got these.
#[cfg(not(windows))]
fn landed_result(values: [usize; 2]) -> usize {
    compiler::landed_result(WORDS, values)
}

impl Object<'_> {
    fn address(this: &Object<'_>) -> usize {
        std::ptr::from_ref(this) as usize
    }
}

/// What `rec` at depth `n` adds to what the function at its bottom returns.
fn rec_adds(n: usize) -> usize {
    rec_result(n, VALUE, 0)
}

unsafe extern "C-unwind" fn bottom(object: *mut c_void, _n: usize) -> usize {
    // SAFETY: managed code passes the object that the test has given it.
    let object = unsafe { &*(object as *const Object<'_>) };
    (object.act)()
}

fn caller<'c>() -> Caller<'c> {
    // SAFETY: the tests use it in the native function that asks for it.
    unsafe { Caller::current() }
}

fn header(goroutine: &Goroutine) -> &GoroutineHeader {
    // SAFETY: the address is that of the header, which is a part of the record.
    unsafe { &*(goroutine.address() as *const GoroutineHeader) }
}

/// The kinds of the goroutine's frames, but for those that a stack of its own has more.
fn kinds() -> Vec<FrameKind> {
    let mut kinds = Vec::new();
    let walked = caller().frames(|frame| {
        kinds.extend(Some(frame.kind).filter(|kind| *kind != FrameKind::SystemCall));
        ControlFlow::Continue(())
    });
    walked.expect("a stack that can be walked");
    kinds
}

/// What each scan has found: the frames of the goroutine, and how often each root was there.
type Seen = Vec<(Vec<FrameKind>, Vec<usize>)>;

/// A program made from a seed: native and managed code alternate, scan, throw and catch.
struct Program<'s> {
    setting: &'s Setting,
    stack: Stack,
    seed: u64,
    /// Calls of managed code that are left.
    calls: Cell<usize>,
    deepest: usize,
    /// Whether native code runs cycles itself.
    scans: bool,
    /// Whether native code on a thread's own stack may call managed code without a foreign call.
    inside: bool,
    /// What native code has seen.
    seen: RefCell<Seen>,
}

impl Program<'_> {
    /// Runs it in a setting, on a thread of its own. Returns the result and what it has seen.
    fn run(
        setting: &Setting,
        stack: Stack,
        seed: u64,
        (calls, deepest, scans): (usize, usize, bool),
    ) -> (usize, Seen) {
        setting.on(stack, || {
            let (calls, seen) = (Cell::new(calls), RefCell::default());
            let inside = stack == Stack::Threads;
            let program = Program { setting, stack, seed, calls, deepest, scans, inside, seen };
            let result = program.guarded(|| program.call(0));
            (result, program.seen.into_inner())
        })
    }

    /// A number below `limit` that depends on the seed and on how far the program has come.
    fn choose(&self, what: usize, limit: usize) -> usize {
        let mut x = self.seed ^ (self.calls.get() as u64) << 32 ^ (what as u64) << 16;
        for _ in 0..3 {
            x = (x ^ x >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        (x >> 33) as usize % limit
    }

    fn guarded(&self, f: impl FnOnce() -> usize) -> usize {
        let caught = catch_unwind(AssertUnwindSafe(f));
        caught.unwrap_or_else(|thrown| 1000 + *thrown.downcast::<usize>().expect("thrown by us"))
    }

    /// Calls managed code so many frames deep, which calls [`Program::act`].
    fn call(&self, level: usize) -> usize {
        self.calls.set(self.calls.get() - 1);
        let n = self.choose(1, 5);
        self.setting.call(self.stack, n, &|| self.act(level))
    }

    /// Native code that managed code has called.
    fn act(&self, level: usize) -> usize {
        let caller = caller();
        assert_eq!(caller.goroutine().status(), Status::Running);
        if self.scans && self.choose(2, 4) == 0 {
            let found = caller.foreign(|| self.setting.scan());
            self.seen.borrow_mut().push((kinds(), found));
        }
        let mut sum = level;
        for again in 0..1 + self.choose(3, 2) {
            if level == self.deepest || self.calls.get() == 0 {
                break;
            }
            let inside = self.inside && self.choose(6 + again, 3) == 0;
            let down = || match inside {
                true => self.call(level + 1),
                false => caller.foreign(|| self.call(level + 1)),
            };
            sum += if self.choose(4 + again, 6) == 0 { self.guarded(down) } else { down() };
            assert_eq!(caller.goroutine().status(), Status::Running);
        }
        if self.choose(9, 12) == 0 {
            resume_unwind(Box::new(level));
        }
        sum
    }
}

#[test]
fn programs_see_the_same_frames_and_roots_on_either_kind_of_stack() {
    let mut seen = 0;
    for config in configs() {
        for seed in 0..12 {
            let setting = Setting::new(config.clone());
            let limits = (60, 20, true);
            let on = |stack| Program::run(&setting, stack, seed, limits);
            let (by_goroutine, by_thread) = (on(Stack::Goroutines), on(Stack::Threads));
            assert_eq!(by_thread, by_goroutine, "seed {seed}, {config:?}");
            seen += by_thread.1.len();
            setting.check_at_end();
        }
    }
    assert!(seen > 100, "{seen} scans");
}

#[test]
fn ten_thousand_alternations_are_scanned_and_returned_from() {
    const LEVELS: usize = 10_000;
    let _stubs = ALL_STUBS.lock();
    for config in configs() {
        let setting = Setting::new(config);
        setting.on(Stack::Threads, || {
            fn down(setting: &Setting, level: usize) -> usize {
                let act = || {
                    if level.is_multiple_of(1000) {
                        caller().foreign(|| setting.scan());
                    }
                    if level == LEVELS {
                        let managed = kinds().iter().filter(|k| **k == FrameKind::Managed).count();
                        assert_eq!(managed, LEVELS * 3);
                        return 1;
                    }
                    caller().foreign(|| down(setting, level + 1))
                };
                setting.call(Stack::Threads, 1, &act)
            }
            assert_eq!(down(&setting, 1), LEVELS * rec_adds(1) + 1);
        });
        setting.check_at_end();
    }
}

#[test]
fn frames_are_scanned_before_they_are_returned_to() {
    const LEVELS: usize = 300;
    for stack in [Stack::Goroutines, Stack::Threads] {
        for config in configs() {
            let setting = &Setting::new(config);
            let incremental = setting.runtime.config().barriers == BarrierMode::Incremental;
            let objects = Mutex::new(Vec::new());
            let ((there, is_there), (go, goes)) = (mpsc::channel(), mpsc::channel());
            let bottom = move || {
                there.send(()).expect("the test waits");
                goes.recv().expect("the test says so");
                1
            };
            fn down(level: usize, call: &dyn Fn(Act<'_>) -> usize, bottom: Act<'_>) -> usize {
                call(&|| {
                    caller().foreign(|| match level {
                        LEVELS => bottom(),
                        _ => down(level + 1, call, bottom),
                    })
                })
            }
            thread::scope(|scope| {
                let objects = &objects;
                let thread = scope.spawn(move || {
                    setting.on(stack, move || {
                        let call = |act: Act<'_>| {
                            setting.call_with(stack, 3, act, |object| objects.lock().push(object))
                        };
                        down(1, &call, &bottom)
                    })
                });
                is_there.recv().expect("the thread gets there");
                let mut cycles = setting.cycles.lock();
                let (cycles, number) = &mut *cycles;
                *number += 1;
                assert!(cycles.begin_scanning(*number, ScanScope::Whole));
                cycles.scan_goroutines(|| {}).expect("stacks that can be walked");
                let given = setting.roots.0.lock().len();
                assert_eq!(given < LEVELS, incremental, "{given} of {LEVELS} at once");
                go.send(()).expect("the thread waits");
                assert_eq!(thread.join().expect("no panic"), LEVELS * rec_adds(3) + 1);
                // Nothing of it is left to be scanned. So it has been on the way.
                let given = setting.roots.0.lock();
                let missing = objects.lock().iter().filter(|at| !given.contains(*at)).count();
                assert_eq!(missing, 0, "of {LEVELS}, {stack:?}");
                drop(given);
                cycles.stop_world(|world| {
                    world.rescan_dirty().expect("stacks that can be walked");
                    world.end_scanning(NextCycle::IsWhole);
                });
            });
            setting.check_at_end();
        }
    }
}

#[test]
fn a_short_scan_visits_what_has_run_since_the_last_scan() {
    const LEVELS: usize = 1000;
    const RETURNS: usize = 10;
    /// Managed frames of a level: `back`, and `rec` at 3 to 0.
    const FRAMES: usize = 5;
    for stack in [Stack::Goroutines, Stack::Threads] {
        let setting = &Setting::new(Config::default());
        let frames = Mutex::new(Vec::new());
        let scan = |scope| {
            let before = setting.visited();
            setting.cycle(scope);
            frames.lock().push((setting.visited() - before) as usize);
        };
        setting.on(stack, || {
            fn down(
                level: usize,
                call: &dyn Fn(Act<'_>) -> usize,
                scan: &dyn Fn(ScanScope),
            ) -> usize {
                call(&|| {
                    let scans = |scope| caller().foreign(|| scan(scope));
                    if level == LEVELS {
                        scans(ScanScope::Whole);
                        return 0;
                    }
                    let result = caller().foreign(|| down(level + 1, call, scan));
                    if level == LEVELS - RETURNS {
                        scans(ScanScope::Short);
                        scans(ScanScope::Short);
                    }
                    result
                })
            }
            let call = |act: Act<'_>| setting.call(stack, 3, act);
            down(1, &call, &scan)
        });
        let [whole, first, second] = frames.into_inner()[..] else { panic!("three scans") };
        assert!(whole >= LEVELS * FRAMES, "{whole} frames, {stack:?}");
        assert!(first < whole / 4, "{first} of {whole} frames, {stack:?}");
        assert!(second <= first, "{second} of {whole} frames, {stack:?}");
        setting.check_at_end();
    }
}

#[test]
fn cycles_of_another_thread_find_every_root_while_threads_alternate() {
    for config in configs() {
        let setting = Setting::new(config);
        let running = AtomicUsize::new(0);
        let cycles = thread::scope(|scope| {
            for (i, stack) in [Stack::Threads, Stack::Goroutines, Stack::Threads].iter().enumerate()
            {
                let (setting, running) = (&setting, &running);
                running.fetch_add(1, Relaxed);
                scope.spawn(move || {
                    for seed in 0..20 {
                        Program::run(setting, *stack, 100 * i as u64 + seed, (300, 60, false));
                    }
                    running.fetch_sub(1, Relaxed);
                });
            }
            let mut cycles = 0;
            while running.load(Relaxed) > 0 {
                setting.cycle(if cycles % 3 == 0 { ScanScope::Whole } else { ScanScope::Short });
                cycles += 1;
            }
            cycles
        });
        assert!(cycles > 0);
        setting.check_at_end();
    }
}

/// What the handler of [`sampled`] traces with, and the frames that it has found.
static SAMPLE: Mutex<Option<(Arc<Code>, Vec<usize>)>> = Mutex::new(None);

#[cfg(not(windows))]
extern "C" fn on_signal(
    _signal: i32,
    _info: *mut libc::siginfo_t,
    interrupted: *mut libc::ucontext_t,
) {
    trace(|code, cache, each| {
        // SAFETY: the handler of a signal that this thread has sent to itself.
        unsafe { sample::trace_interrupted(code, cache, &*interrupted, each) }
    });
}

/// The handler of exceptions: of one that this thread has raised.
#[cfg(windows)]
extern "system" fn on_exception(exception: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system's record.
    let EXCEPTION_POINTERS { ExceptionRecord: record, ContextRecord: interrupted } =
        unsafe { *exception };
    // SAFETY: as above.
    if unsafe { (*record).ExceptionCode } != RAISED {
        return EXCEPTION_CONTINUE_SEARCH;
    }
    trace(|code, cache, each| {
        // SAFETY: the handler of an exception of this thread.
        unsafe { sample::trace_interrupted(code, cache, &*interrupted, each) }
    });
    EXCEPTION_CONTINUE_EXECUTION
}

type Each<'a> = &'a mut dyn FnMut(CallFrame) -> ControlFlow<()>;
type Traced = Option<Result<Option<()>, WalkError>>;

/// Traces from a handler.
fn trace(by: impl FnOnce(&Code, &mut RuleCache, Each<'_>) -> Traced) {
    // It comes where this thread has no lock.
    let mut sample = SAMPLE.lock();
    let (code, pcs) = sample.as_mut().expect("asked for");
    let mut cache = RuleCache::fixed(256);
    let walked = by(code, &mut cache, &mut |frame| {
        pcs.push(frame.lookup_pc());
        ControlFlow::Continue(())
    });
    assert_eq!(walked, Some(Ok(None)));
}

/// The code of an exception that means nothing.
#[cfg(windows)]
const RAISED: i32 = 0x2053_4d4b;

/// The frames of this thread as the library's unwinder finds them from a signal handler.
fn sampled(code: &Arc<Code>) -> Vec<usize> {
    *SAMPLE.lock() = Some((code.clone(), Vec::new()));
    #[cfg(windows)]
    // SAFETY: the handler does what may be done where the exception is raised.
    unsafe {
        let handler = AddVectoredExceptionHandler(1, Some(on_exception));
        RaiseException(RAISED as u32, 0, 0, std::ptr::null());
        assert_ne!(RemoveVectoredExceptionHandler(handler), 0);
    }
    #[cfg(not(windows))]
    // SAFETY: the handler does what may be done where the signal is raised.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
        assert_eq!(libc::raise(libc::SIGUSR2), 0);
    }
    SAMPLE.lock().take().expect("asked for").1
}

/// The frames of this thread as libgcc finds them, but for barriers' stubs.
fn unwound_by_libgcc() -> Vec<usize> {
    unsafe extern "C" {
        fn _Unwind_Backtrace(
            each: extern "C" fn(*mut c_void, *mut c_void) -> i32,
            argument: *mut c_void,
        ) -> i32;
    }
    extern "C" fn each(context: *mut c_void, pcs: *mut c_void) -> i32 {
        // SAFETY: the unwinder's context, and the list that is passed below.
        unsafe {
            let pc = stackmark_stack::asm::unwinding::context_pc(context).wrapping_sub(1);
            if !stackmark_stack::asm::barrier::pool().contains(&pc) {
                (*pcs.cast::<Vec<usize>>()).push(pc);
            }
        }
        0
    }
    let mut pcs = Vec::new();
    // SAFETY: the function fits its argument, which outlives the call.
    unsafe { _Unwind_Backtrace(each, (&raw mut pcs).cast()) };
    pcs
}

#[test]
fn tracebacks_and_samples_find_the_same_frames_with_barriers_and_without() {
    const LEVELS: usize = 1000;
    /// Managed frames of a level: `back`, and `rec` at 2 to 0.
    const FRAMES: usize = 4;
    let _stubs = ALL_STUBS.lock();
    let setting = &Setting::new(configs()[1].clone());
    let code = setting.runtime.code();
    code.refresh_images();
    code.snapshot().read_images().expect("the CFI of this process");
    // From the youngest managed frame on; what is younger has called this.
    let is_managed = |pc: &usize| code.snapshot().function(*pc).is_some();
    let older = |pcs: Vec<usize>| {
        let pcs: Vec<_> = pcs.into_iter().skip_while(|pc| !is_managed(pc)).collect();
        assert_eq!(pcs.iter().filter(|pc| is_managed(pc)).count(), LEVELS * FRAMES);
        pcs
    };
    let traces = || {
        let mut pcs = Vec::new();
        full_backtrace(|pc| {
            pcs.push(pc);
            ControlFlow::Continue(())
        });
        // Native code has no CFI on armv7.
        let sampled = || if cfg!(target_arch = "arm") { pcs.clone() } else { sampled(code) };
        [older(sampled()), older(pcs), older(unwound_by_libgcc())]
    };
    fn down(level: usize, call: &dyn Fn(Act<'_>) -> usize, bottom: Act<'_>) -> usize {
        call(&|| match level {
            LEVELS => bottom(),
            _ => caller().foreign(|| down(level + 1, call, bottom)),
        })
    }
    setting.on(Stack::Threads, || {
        let bottom = || {
            let without = traces();
            caller().foreign(|| setting.scan());
            assert!(setting.runtime.census().barriers >= LEVELS * (FRAMES - 1));
            let with = traces();
            assert_eq!(with, without);
            let native = with[0].iter().filter(|pc| !is_managed(pc)).count();
            assert!(native > LEVELS, "{native} native frames between");
            0
        };
        down(1, &|act| setting.call(Stack::Threads, 2, act), &bottom);
    });
    setting.check_at_end();
}

/// What a thread does that may end by unwinding.
type Begin = extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// Runs `begin(argument)` on a thread of the system, until that ends.
///
/// # Safety
/// The function takes the argument.
#[cfg(not(windows))]
unsafe fn run_thread(begin: Begin, argument: *mut c_void) {
    // SAFETY: our contract. The declaration does not know that a thread may end by unwinding.
    unsafe {
        let begin = std::mem::transmute::<Begin, extern "C" fn(*mut c_void) -> *mut c_void>(begin);
        let mut id = std::mem::zeroed();
        assert_eq!(libc::pthread_create(&mut id, std::ptr::null(), begin, argument), 0);
        assert_eq!(libc::pthread_join(id, std::ptr::null_mut()), 0);
    }
}

/// Ends the calling thread.
///
/// # Safety
/// No frame of the thread is needed any more.
#[cfg(not(windows))]
unsafe fn end_thread() -> ! {
    unsafe extern "C-unwind" {
        fn pthread_exit(value: *mut c_void) -> !;
    }
    // SAFETY: our contract.
    unsafe { pthread_exit(std::ptr::null_mut()) }
}

/// Runs `begin(argument)` on a thread of the system, until that ends.
///
/// # Safety
/// The function takes the argument.
#[cfg(windows)]
unsafe fn run_thread(begin: Begin, argument: *mut c_void) {
    // SAFETY: our contract. The convention is the system's; its result is not looked at.
    unsafe {
        let begin = std::mem::transmute::<Begin, LPTHREAD_START_ROUTINE>(begin);
        let thread = CreateThread(std::ptr::null(), 0, begin, argument, 0, std::ptr::null_mut());
        assert_eq!(WaitForSingleObject(thread, INFINITE), WAIT_OBJECT_0);
        CloseHandle(thread);
    }
}

/// Ends the calling thread. Nothing is unwound.
///
/// # Safety
/// No frame of the thread is needed any more.
#[cfg(windows)]
unsafe fn end_thread() -> ! {
    // SAFETY: our contract.
    unsafe { ExitThread(0) }
}

#[test]
fn a_thread_that_ends_in_a_foreign_call_leaves_nothing_behind() {
    extern "C-unwind" fn thread(setting: *mut c_void) -> *mut c_void {
        // SAFETY: the test waits for the thread.
        let setting = unsafe { &*setting.cast::<Setting>() };
        attach(&setting.runtime).expect("a new thread");
        let ends = || {
            caller().foreign(|| {
                setting.scan();
                // SAFETY: no frame of this thread is needed any more.
                unsafe { end_thread() }
            })
        };
        let enters = || caller().foreign(|| setting.call(Stack::Threads, 5, &ends));
        setting.call(Stack::Threads, 3, &enters);
        unreachable!("the thread has ended")
    }
    for config in configs() {
        let setting = Setting::new(config);
        // SAFETY: the argument is what the function takes.
        unsafe { run_thread(thread, (&raw const setting).cast_mut().cast()) };
        setting.check_at_end();
    }
}

#[test]
fn a_thread_that_ends_with_managed_frames_leaves_a_record_that_a_goroutine_can_use() {
    type Calls = unsafe extern "C-unwind" fn(
        unsafe extern "C-unwind" fn(*mut c_void) -> usize,
        *mut c_void,
    ) -> usize;
    unsafe extern "C-unwind" fn exit(_argument: *mut c_void) -> usize {
        // SAFETY: no frame of this thread is needed any more.
        unsafe { end_thread() }
    }
    extern "C-unwind" fn thread(ending: *mut c_void) -> *mut c_void {
        // SAFETY: the test waits for the thread.
        let (setting, calls, foreign, record) =
            unsafe { &*ending.cast::<(Setting, Calls, bool, AtomicUsize)>() };
        attach(&setting.runtime).expect("a new thread");
        let ends = || {
            record.store(caller().goroutine().address(), Relaxed);
            caller().foreign(|| setting.scan());
            // The unwinding ends at this function: no landing pad of managed frames is entered.
            // SAFETY: the function calls what it is given.
            let ends = || unsafe { calls(exit, std::ptr::null_mut()) };
            if *foreign { caller().foreign(ends) } else { ends() }
        };
        setting.call(Stack::Threads, 5, &ends);
        unreachable!("the thread has ended")
    }
    let Some(library) = native::Library::load("tableless.c") else { return };
    // SAFETY: the function's type.
    let calls = unsafe {
        std::mem::transmute::<*mut c_void, Calls>(library.function("calls_without_tables"))
    };
    for foreign in [false, true] {
        for config in configs() {
            let ending = (Setting::new(config), calls, foreign, AtomicUsize::new(0));
            // SAFETY: the argument is what the function takes.
            unsafe { run_thread(thread, (&raw const ending).cast_mut().cast()) };
            let setting = &ending.0;
            setting.check_at_end();
            let result = setting.run(5, &|| {
                let goroutine = caller().goroutine();
                assert_eq!(goroutine.address(), ending.3.load(Relaxed), "the record is reused");
                // A barrier that is hit would take the goroutine's stack for the thread's.
                assert_eq!(header(goroutine).entered.load(Relaxed), 0);
                caller().foreign(|| setting.scan());
                1
            });
            assert_eq!(result, rec_adds(5) + 1);
            setting.check_at_end();
        }
    }
}

#[test]
fn a_thread_is_detached_where_no_managed_code_is_on_its_stack() {
    let setting = Setting::new(Config::default());
    // SAFETY: no `Caller` is used across it.
    let detach = || unsafe { setting.runtime.detach_native_stack() };
    assert_eq!(detach(), Err(DetachError::NotAttached));
    setting.on(Stack::Threads, || {
        let other = Setting::new(Config::default());
        // SAFETY: as above.
        let detached = unsafe { other.runtime.detach_native_stack() };
        assert_eq!(detached, Err(DetachError::NotAttached));
        for foreign in [false, true] {
            let act = || {
                let goroutine = caller().goroutine().id();
                let detached = if foreign { caller().foreign(detach) } else { detach() };
                assert_eq!(detached, Err(DetachError::ManagedCode { goroutine }));
                0
            };
            setting.call(Stack::Threads, 2, &act);
        }
        assert_eq!(detach(), Ok(()));
        setting.check_at_end();
        assert_eq!(detach(), Err(DetachError::NotAttached));
        attach(&setting.runtime).expect("detached");
        assert_eq!(setting.call(Stack::Threads, 2, &|| 3), rec_adds(2) + 3);
    });
    setting.on(Stack::Goroutines, || {
        setting.call(Stack::Goroutines, 2, &|| {
            assert_eq!(detach(), Err(DetachError::NotAttached));
            0
        });
    });
    setting.check_at_end();
}

#[test]
fn a_goroutine_parks_on_its_thread_and_is_made_ready_there() {
    let setting = Setting::new(Config::default());
    let (send, parked) = mpsc::channel::<Arc<Goroutine>>();
    let setting = &setting;
    thread::scope(|scope| {
        scope.spawn(move || {
            let goroutine = parked.recv().expect("a goroutine parks");
            setting.scan();
            setting.runtime.ready(goroutine, Word::Plain(77));
        });
        let result = setting.on(Stack::Threads, move || {
            let parks = || {
                let parked = |goroutine| send.send(goroutine).expect("the other thread waits");
                // SAFETY: the goroutine keeps its thread.
                unsafe { caller().park(parked) }
            };
            setting.call(Stack::Threads, 4, &parks)
        });
        assert_eq!(result, rec_adds(4) + 77);
    });
    setting.check_at_end();
}

#[test]
fn a_missing_anchor_is_an_error_of_the_walk() {
    let setting = Setting::new(Config::default());
    setting.on(Stack::Threads, || {
        let walks = || {
            let error = caller().frames(|_| ControlFlow::Continue(())).expect_err("no anchor");
            assert!(matches!(error.error, WalkError::NoAnchor { .. }), "{error}");
            0
        };
        let enters = || {
            let goroutine = caller().goroutine();
            let sp = &header(goroutine).sched.sp;
            let anchor = sp.load(Relaxed);
            caller().foreign(|| {
                // As if managed code had called this function by a plain call.
                sp.store(0, Relaxed);
                let result = setting.call(Stack::Threads, 2, &walks);
                sp.store(anchor, Relaxed);
                result
            })
        };
        assert_eq!(setting.call(Stack::Threads, 2, &enters), 2 * rec_adds(2));
    });
    setting.check_at_end();
}

#[test]
fn a_deep_recursion_overflows_before_the_stack_is_used_up() {
    let setting = Setting::new(Config::default());
    setting.on_bytes(1 << 20, Stack::Threads, || {
        let deep = || setting.call(Stack::Threads, 1_000_000, &|| 0);
        let too_deep = catch_unwind(AssertUnwindSafe(deep));
        let text = *too_deep.expect_err("an overflow").downcast::<String>().expect("the host's");
        assert!(text.starts_with("stack exceeds"), "{text}");
        // The thread goes on.
        assert_eq!(setting.call(Stack::Threads, 3, &|| 5), rec_adds(3) + 5);
    });
    setting.check_at_end();
}

#[test]
fn a_thread_is_attached_once() {
    let setting = Setting::new(Config::default());
    setting.on(Stack::Threads, || {
        let again = attach(&setting.runtime);
        assert_eq!(again, Err(AttachError::AlreadyAttached));
        assert_eq!(Machine::attach(&setting.runtime).err(), Some(AttachError::AlreadyAttached));
    });
    setting.on(Stack::Goroutines, || {
        let machine = Machine::attach(&setting.runtime).expect("a new thread");
        let attached = attach(&setting.runtime);
        assert_eq!(attached, Err(AttachError::AlreadyAttached));
        drop(machine);
        attach(&setting.runtime).expect("not attached any more");
    });
    setting.check_at_end();
}

// Wine gives no thread so small a stack.
#[cfg(not(windows))]
#[test]
fn a_stack_too_small_for_managed_code_is_refused() {
    if libc::PTHREAD_STACK_MIN >= 128 << 10 {
        println!("skipped: this system gives no thread so small a stack");
        return;
    }
    let setting = Setting::new(Config::default());
    let small = thread::Builder::new().stack_size(64 << 10);
    let refused = AtomicBool::new(false);
    thread::scope(|scope| {
        let attach = || {
            let attached = attach(&setting.runtime);
            refused.store(matches!(attached, Err(AttachError::SmallStack { .. })), Relaxed);
        };
        small.spawn_scoped(scope, attach).expect("a thread").join().expect("no panic");
    });
    assert!(refused.load(Relaxed));
}
