//! What happens when the system refuses threads and memory, call by call: this program puts
//! functions of its own in front of the system's, which refuse when a test says so. Errors say what
//! was missing, what had been begun is given back, and it works when the system gives again.

#[cfg(not(windows))]
#[path = "refused/linux.rs"]
mod system;
#[cfg(windows)]
#[path = "refused/windows.rs"]
mod system;

use compiler::{Compiled, rec_result};
use limits::{Limits, wait_until};
#[cfg(windows)]
use stackmark::mark_sweep::AllocationError;
use stackmark::mark_sweep::{Descriptor, MarkSweep};
use stackmark::{Collector, StartError, heap::Heap};
use stackmark_stack::asm::layout::NativeFn;
use stackmark_stack::scheduler::Scheduler;
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    AttachError, CallInError, Caller, Config, Goroutine, Host, Left, Machine, Runtime, StackError,
};
use std::ffi::c_void;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};

/// How many calls are granted before one is refused, and how many are refused then.
struct Refusal {
    granted: AtomicI64,
    refused: AtomicI64,
}

static THREADS: Refusal = Refusal { granted: AtomicI64::new(i64::MAX), refused: AtomicI64::new(0) };
static MEMORY: Refusal = Refusal { granted: AtomicI64::new(i64::MAX), refused: AtomicI64::new(0) };
static ATTEMPTS: AtomicUsize = AtomicUsize::new(0);
/// What the program's own code has mapped less what it has unmapped: bytes, or on Windows ranges.
static MAPPED: AtomicI64 = AtomicI64::new(0);

impl Refusal {
    fn set(&self, granted: i64, refused: i64) {
        self.granted.store(granted, SeqCst);
        self.refused.store(refused, SeqCst);
    }

    fn lift(&self) {
        self.set(i64::MAX, 0);
    }

    fn refuses(&self) -> bool {
        self.granted.load(SeqCst) != i64::MAX
            && self.granted.fetch_sub(1, SeqCst) <= 0
            && self.refused.fetch_sub(1, SeqCst) > 0
    }
}

const ALONE: &str = "STACKMARK_ALONE";

/// Runs a test in a process of its own: no other test makes threads or maps memory there. In such a
/// process: `Ok` with what it was told. Otherwise: the status of a new one that is told `what`, and
/// what it wrote to standard error.
fn alone(test: &str, what: &str) -> Result<String, (Option<i32>, String)> {
    if let Ok(told) = std::env::var(ALONE) {
        system::stand_in_front();
        return Ok(told);
    }
    let mut command = limits::this_program();
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, what)
        .env("RUST_BACKTRACE", "0");
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a process");
    limits::wait(&mut child, Limits::default())
        .unwrap_or_else(|exceeded| panic!("{test} {exceeded}"));
    let out = child.wait_with_output().expect("our child");
    Err((out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned()))
}

macro_rules! alone {
    ($test:ident, $body:expr) => {
        #[test]
        fn $test() {
            match alone(stringify!($test), "") {
                Ok(_) => $body,
                Err((status, stderr)) => assert_eq!(status, Some(0), "{stderr}"),
            }
        }
    };
}

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }

    fn fatal(&self, error: &dyn std::error::Error) -> ! {
        eprintln!("fatal: {error}");
        std::process::exit(3)
    }
}

unsafe extern "C-unwind" fn nothing(_object: *mut c_void, _n: usize) -> usize {
    0
}

fn runtime(bottom: NativeFn) -> (Arc<Runtime>, Compiled) {
    let code = Arc::new(Code::new());
    let compiled = compiler::compile(&code, bottom, 16);
    (
        Runtime::new(Config::default(), code, Box::new(Embedder)).expect("the assembly's frames"),
        compiled,
    )
}

/// Recurses `n` deep on this thread.
fn recurse(runtime: &Arc<Runtime>, compiled: &Compiled, n: usize) {
    recurse_after(runtime, compiled, n, || {});
}

/// As [`recurse`]; `just_before` it runs is called.
fn recurse_after(
    runtime: &Arc<Runtime>,
    compiled: &Compiled,
    n: usize,
    just_before: impl FnOnce(),
) {
    let object = 7_usize;
    let mut argument = [n, &raw const object as usize, 0];
    let machine = Machine::attach(runtime).expect("a fresh thread");
    // SAFETY: compiled code that keeps the contracts; the argument outlives it.
    let goroutine =
        unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) }.expect("memory");
    just_before();
    assert!(matches!(machine.run(goroutine), Left::Exited));
    assert_eq!(argument[2], rec_result(n, object, 0));
}

alone!(a_collector_whose_threads_are_refused_leaves_nothing_and_starts_later, {
    let (runtime, compiled) = runtime(nothing);
    let heap = MarkSweep::new(&Default::default()).expect("address space");
    let config = stackmark::Config { workers: 3, ..Default::default() };
    let before = system::threads();
    // Two workers and the thread that runs cycles, which is the third.
    for granted in 0..3 {
        THREADS.set(granted, 1);
        let error = Collector::start(heap.clone(), runtime.clone(), &config)
            .expect_err("a thread was refused");
        THREADS.lift();
        let StartError::Thread(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), system::NO_THREAD, "{error}");
        wait_until("those that were started end", || system::threads() == before);
    }
    let collector = Collector::start(heap.clone(), runtime.clone(), &config).expect("threads");
    let kind = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    let allocator = heap.allocator().expect("address space");
    let machine = Machine::attach(&runtime).expect("a new thread");
    let kept = machine.inside(|inside| {
        collector.handles().create_fresh(&allocator.allocate(&inside, kind, 64).expect("room"))
    });
    drop(machine);
    recurse(&runtime, &compiled, 100);
    collector.collect();
    collector.collect();
    assert_eq!(heap.counts().live_bytes, 64);
    drop(kept);
    assert_eq!(runtime.census().imbalances(), [""; 0]);
});

alone!(a_scheduler_whose_threads_are_refused_runs_nothing_and_leaves_none, {
    let before = system::threads();
    // A monitor and three threads.
    for granted in 0..=4 {
        let (runtime, compiled) = runtime(nothing);
        let scheduler = Scheduler::new(&runtime, 3, Box::new(|| {}));
        let object = 7_usize;
        let mut argument = [5, &raw const object as usize, usize::MAX];
        // SAFETY: compiled code that keeps the contracts; the argument outlives it.
        let goroutine = unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) }
            .expect("memory");
        runtime.schedule(goroutine);
        THREADS.set(granted, 1);
        let started = scheduler.start();
        THREADS.lift();
        if granted == 4 {
            wait_until("it runs", || runtime.live_goroutines() == 0);
            started.expect("all were granted").stop();
            assert_eq!(argument[2], rec_result(5, object, 0));
        } else {
            assert_eq!(started.expect_err("a thread was refused").kind(), system::NO_THREAD);
            assert_eq!(
                (runtime.live_goroutines(), argument[2]),
                (1, usize::MAX),
                "nothing has run"
            );
        }
        wait_until("those that were started end", || system::threads() == before);
        assert_eq!(runtime.census().machines, 0);
        assert_eq!(runtime.census().imbalances(), [""; 0]);
    }
});

/// What the goroutine that calls out waits for.
static RAN: AtomicUsize = AtomicUsize::new(0);
static WAITS: AtomicBool = AtomicBool::new(false);
/// It comes back when so many have asked for a thread in vain, or the other goroutines have run.
static PATIENCE: AtomicUsize = AtomicUsize::new(usize::MAX);

unsafe extern "C-unwind" fn waits_in_c(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    if WAITS.swap(false, SeqCst) {
        let before = ATTEMPTS.load(SeqCst);
        caller.foreign(|| {
            wait_until("the program goes on", || {
                RAN.load(SeqCst) == 3 || ATTEMPTS.load(SeqCst) - before >= PATIENCE.load(SeqCst)
            });
        });
    } else {
        RAN.fetch_add(1, SeqCst);
    }
    0
}

/// One thread, a goroutine that stays in a foreign call, and three more that want to run; so many
/// threads are refused.
fn a_call_that_lasts(refused: i64, patience: usize) {
    let (runtime, compiled) = runtime(waits_in_c);
    let scheduler = Scheduler::new(&runtime, 1, Box::new(|| {}));
    let running = scheduler.start().expect("threads");
    RAN.store(0, SeqCst);
    WAITS.store(true, SeqCst);
    PATIENCE.store(patience, SeqCst);
    let object = 7_usize;
    let mut arguments = [[10, &raw const object as usize, usize::MAX]; 4];
    THREADS.set(0, refused);
    for argument in &mut arguments {
        // SAFETY: compiled code that keeps the contracts; the argument outlives it.
        let goroutine = unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) }
            .expect("memory");
        runtime.schedule(goroutine);
    }
    wait_until("all run to their ends", || runtime.live_goroutines() == 0);
    THREADS.lift();
    running.stop();
    assert!(
        arguments.iter().all(|[.., result]| *result == rec_result(10, object, 0)),
        "{arguments:?}"
    );
    assert_eq!(runtime.census().imbalances(), [""; 0]);
    assert_eq!(runtime.census().machines, 0);
}

// The foreign call ends only after the others have run: the runtime must try again for a thread.
alone!(goroutines_behind_a_foreign_call_run_when_a_thread_can_be_had_again, {
    a_call_that_lasts(3, usize::MAX);
});

alone!(goroutines_behind_a_foreign_call_run_after_it_where_no_thread_can_be_had, {
    a_call_that_lasts(i64::MAX, 3);
});

// Memory is refused at each place in turn where stacks, machines and heaps ask for it.
alone!(errors_for_want_of_memory_are_typed_and_lose_nothing, {
    let (runtime, compiled) = runtime(nothing);
    recurse(&runtime, &compiled, 1);
    // A thread that has called in, so that a spare machine is there; the first use of everything
    // else is behind us.
    let call_in = |expected: Option<fn(&CallInError) -> bool>| {
        let runtime = runtime.clone();
        std::thread::spawn(move || match (runtime.call_in(|_| ()), expected) {
            (Ok(()), None) => {}
            (Err(error), Some(matches)) if matches(&error) => {
                assert!(error.to_string().contains("no memory"))
            }
            (other, _) => panic!("{other:?}"),
        })
        .join()
        .expect("no panic")
    };
    call_in(None);
    runtime.trim_stacks();
    let mapped = MAPPED.load(SeqCst);

    // SAFETY: compiled code that keeps the contracts; it does not run.
    let spawn = || unsafe { runtime.spawn(compiled.entry, 0) };
    MEMORY.set(0, 1);
    assert!(matches!(spawn(), Err(StackError::OutOfMemory { .. })));
    MEMORY.lift();
    assert_eq!((runtime.census().imbalances(), MAPPED.load(SeqCst)), (vec![], mapped));

    let runtime_of_thread = runtime.clone();
    let attached = std::thread::spawn(move || {
        MEMORY.set(0, 1);
        let refused = Machine::attach(&runtime_of_thread).map(drop);
        MEMORY.lift();
        drop(Machine::attach(&runtime_of_thread).expect("memory again"));
        refused
    });
    let refused = attached.join().expect("no panic");
    // There a thread has no signal stack, and takes no memory.
    if cfg!(windows) {
        refused.expect("nothing was refused");
    } else {
        let refused = refused.expect_err("memory was refused");
        assert!(
            matches!(refused, AttachError::SignalStack(StackError::OutOfMemory { .. })),
            "{refused}"
        );
    }
    assert_eq!(
        (runtime.census().imbalances(), runtime.census().machines),
        (vec![], runtime.census().for_threads)
    );

    for limit in 0..3 {
        MEMORY.set(limit, i64::MAX);
        // Of address space for objects, for records, for an allocator's slots.
        let made = MarkSweep::new(&Default::default()).and_then(|heap| heap.allocator().map(drop));
        MEMORY.lift();
        assert!(
            made.expect_err("memory was refused")
                .to_string()
                .contains("cannot reserve address space")
        );
    }
    assert_eq!(MAPPED.load(SeqCst), mapped, "what was mapped is unmapped");
    recurse(&runtime, &compiled, 2000);
    call_in(None);
    assert_eq!(runtime.census().imbalances(), [""; 0]);
});

// Where the system commits memory, a heap asks again for what it has given back.
#[cfg(windows)]
alone!(a_heap_that_has_given_memory_back_and_gets_none_has_an_error, {
    const BYTES: usize = 8 << 20;
    let (runtime, _compiled) = runtime(nothing);
    let heap = MarkSweep::new(&Default::default()).expect("address space");
    let collector =
        Collector::start(heap.clone(), runtime.clone(), &Default::default()).expect("threads");
    let kind = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    let allocator = heap.allocator().expect("address space");
    let machine = Machine::attach(&runtime).expect("a new thread");
    // Whether there was room for an object of zeros, which is filled then and dropped.
    let allocate = || {
        machine.inside(|inside| {
            let object = allocator.allocate(&inside, kind, BYTES)?;
            // SAFETY: a new object of so many bytes.
            let words =
                unsafe { std::slice::from_raw_parts_mut(object.as_ptr().cast::<u64>(), BYTES / 8) };
            assert!(words.iter().all(|word| *word == 0));
            words.fill(7);
            Ok::<_, AllocationError>(())
        })
    };
    let is_resident = || heap.counts().resident_bytes >= BYTES as u64;
    allocate().expect("memory");
    wait_until("the memory is given back", || {
        collector.collect();
        !is_resident()
    });
    MEMORY.set(0, i64::MAX);
    let refused = allocate();
    MEMORY.lift();
    assert!(matches!(refused, Err(AllocationError::OutOfMemory { .. })), "{refused:?}");
    allocate().expect("memory again");
});

/// A stack that cannot grow: the host is told what was wanted, which ends the process.
#[test]
fn a_stack_for_which_there_is_no_memory_ends_the_process_with_an_error() {
    let (mut ended, mut worked) = (0, 0);
    for granted in 0..12 {
        match alone(
            "a_stack_for_which_there_is_no_memory_ends_the_process_with_an_error",
            &granted.to_string(),
        ) {
            Ok(granted) => {
                let (runtime, compiled) = runtime(nothing);
                let refuse = || MEMORY.set(granted.parse().expect("a number"), i64::MAX);
                recurse_after(&runtime, &compiled, 20_000, refuse);
                MEMORY.lift();
                return;
            }
            Err((Some(0), _)) => worked += 1,
            Err((Some(3), stderr)) if stderr.contains("fatal: no memory for a stack of ") => {
                ended += 1
            }
            Err((status, stderr)) => panic!("with {granted} mappings: {status:?}\n{stderr}"),
        }
    }
    assert!(ended > 0 && worked > 0, "{ended} ended, {worked} worked");
}
