//! Many goroutines of compiled code on several threads, parking, yielding and ending, while cycles
//! scan their stacks.

use compiler::{Embedder, rec_result};
use limits::Watch;
use parking_lot::{Condvar, Mutex};
use stackmark_stack::scheduler::Scheduler;
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, Goroutine, Left, Machine, NextCycle, RootSink,
    Runtime, ScanScope, Word,
};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Every root is one of these objects.
struct Objects(Vec<usize>, AtomicU64);

impl RootSink for Objects {
    fn roots(&self, words: &[usize]) {
        let range = self.0.as_ptr_range();
        for &word in words {
            // Arguments of goroutines are roots too, in a table of their own.
            if range.contains(&(word as *const usize)) {
                self.1.fetch_add(1, Relaxed);
            }
        }
    }
}

/// Goroutines that wait for a partner.
static WAITING: Mutex<Vec<Arc<Goroutine>>> = Mutex::new(Vec::new());
static TURNS: AtomicUsize = AtomicUsize::new(0);
static PARKED: AtomicUsize = AtomicUsize::new(0);

/// At the bottom of its recursion a goroutine yields, parks until another wakes it, or calls out to
/// code that waits.
unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    match TURNS.fetch_add(1, Relaxed) % 4 {
        // SAFETY: nothing here owns anything.
        0 => unsafe { caller.yield_now(0) },
        1 => {
            let mut waiting = WAITING.lock();
            if let Some(partner) = waiting.pop() {
                drop(waiting);
                caller.runtime().ready(partner, Word::Plain(0));
                return 0;
            }
            PARKED.fetch_add(1, Relaxed);
            // SAFETY: nothing here owns anything but the lock, which is given up when the goroutine
            // counts as parked.
            unsafe { caller.park(move |goroutine| waiting.push(goroutine)) }
        }
        2 => caller.foreign(|| {
            thread::yield_now();
            0
        }),
        _ => 0,
    }
}

/// What a test has: the arguments of its goroutines, where their results appear.
struct Arguments(Vec<[usize; 3]>);

fn run(threads: usize, goroutines: usize, config: Config) -> Arc<Runtime> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let code = Arc::new(Code::new());
    let compiled = compiler::compile(&code, bottom, 16);
    let runtime = Runtime::new(config, code, Box::new(Embedder)).expect("the assembly's frames");
    let objects = Arc::new(Objects((0..64).collect(), AtomicU64::new(0)));
    let mut cycles = CycleDriver::new(&runtime, objects.clone()).expect("one collector");
    let idle = Arc::new((Mutex::new(false), Condvar::new()));
    let at_idle = idle.clone();
    let scheduler = Scheduler::new(
        &runtime,
        threads,
        Box::new(move || {
            *at_idle.0.lock() = true;
            at_idle.1.notify_all();
        }),
    );
    let mut arguments = Arguments(
        (0..goroutines)
            .map(|i| [i % 90, &raw const objects.0[i % 64] as usize, usize::MAX])
            .collect(),
    );
    // All are there before the threads start: from then on "nothing to do" means that all have
    // ended or wait.
    for argument in &mut arguments.0 {
        // SAFETY: compiled code that keeps the contracts; the argument outlives it.
        let goroutine = unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) }
            .expect("memory");
        runtime.schedule(goroutine);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (scanned, is_scanned) = mpsc::channel();
    let collecting = {
        let (runtime, stop, objects) = (runtime.clone(), stop.clone(), objects.clone());
        thread::spawn(move || {
            let mut number = 0;
            while !stop.load(SeqCst) {
                number += 1;
                cycles.handshake();
                assert!(cycles.begin_scanning(number, ScanScope::Whole));
                cycles.scan_goroutines(|| {}).expect("stacks that can be walked");
                thread::yield_now();
                cycles.stop_world(|world| {
                    world.rescan_dirty().expect("stacks that can be walked");
                    world.visit_all(&mut |words| objects.roots(words)).expect("true stacks");
                    world.end_scanning(NextCycle::IsWhole);
                });
                runtime.trim_stacks();
                // The receiver waits for the first time only.
                let _ = scanned.send(());
            }
            number
        })
    };
    // However fast the goroutines are: they are scanned once before.
    is_scanned.recv().expect("a first cycle");
    let running = scheduler.start().expect("threads");
    // A goroutine may be left waiting for a partner: wake it until all have ended.
    while runtime.live_goroutines() > 0 {
        let mut now = idle.0.lock();
        while !*now {
            idle.1.wait(&mut now);
        }
        *now = false;
        drop(now);
        for goroutine in std::mem::take(&mut *WAITING.lock()) {
            runtime.ready(goroutine, Word::Plain(0));
        }
    }
    stop.store(true, SeqCst);
    assert!(collecting.join().expect("no panic") > 0);
    running.stop();
    for (i, [n, object, result]) in arguments.0.iter().enumerate() {
        let read = (object - objects.0.as_ptr() as usize) / size_of::<usize>();
        assert_eq!(*result, rec_result(*n, read, 0), "goroutine {i}");
    }
    drop(compiled);
    runtime
}

#[test]
fn goroutines_park_and_move_between_threads_while_their_stacks_are_scanned() {
    for threads in [1, 2, 4] {
        let runtime = run(threads, 3000, Config::default());
        let counters = runtime.counters();
        assert_eq!(counters.started.load(Relaxed), 3000);
        assert!(counters.scanned_stopped.load(Relaxed) > 0);
    }
}

#[test]
fn the_same_with_a_barrier_in_every_frame_and_a_move_at_every_poll() {
    let config = Config {
        barriers: BarrierMode::EveryFrame,
        move_every_poll: true,
        poison: true,
        ..Config::default()
    };
    let runtime = run(2, 1000, config);
    let counters = runtime.counters();
    let (placed, hit) = (counters.placed.load(Relaxed), counters.hit.load(Relaxed));
    assert!(placed > 0 && hit > 0 && hit <= placed, "{counters:?}");
    assert_eq!(counters.leapfrogged.load(Relaxed), 0);
}

#[test]
fn a_thread_is_attached_once() {
    let runtime =
        Runtime::new(Config::default(), Arc::new(Code::new()), Box::new(Embedder)).expect("frames");
    let machine = Machine::attach(&runtime).expect("a fresh thread");
    assert!(Machine::attach(&runtime).is_err());
    drop(machine);
    drop(Machine::attach(&runtime).expect("detached before"));
}

unsafe extern "C-unwind" fn yields(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone, which owns nothing.
    unsafe { Caller::current().yield_now(0) }
}

#[test]
fn goroutines_that_run_while_others_are_rescanned_leave_few_for_the_end_however_many_they_are() {
    const GOROUTINES: usize = 200;
    let code = Arc::new(Code::new());
    let compiled = compiler::compile(&code, yields, 16);
    let runtime =
        Runtime::new(Config::default(), code, Box::new(Embedder)).expect("the assembly's frames");
    let objects = Arc::new(Objects((0..64).collect(), AtomicU64::new(0)));
    let mut cycles = CycleDriver::new(&runtime, objects.clone()).expect("one collector");
    let mut arguments = vec![[30, &raw const objects.0[7] as usize, usize::MAX]; GOROUTINES];
    let machine = Machine::attach(&runtime).expect("a fresh thread");
    let mut goroutines: Vec<_> = arguments
        .iter_mut()
        .map(|argument| {
            // SAFETY: compiled code that keeps the contracts; the argument outlives it.
            unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) }
                .expect("memory")
        })
        .collect();
    cycles.handshake();
    assert!(cycles.begin_scanning(1, ScanScope::Whole));
    cycles.scan_goroutines(|| {}).expect("stacks that can be walked");
    assert_eq!(cycles.rescan_concurrently().expect("stacks that can be walked"), 0);
    for goroutine in &mut goroutines {
        let Left::Yielded(again) = machine.run(goroutine.clone()) else { panic!("it yields") };
        *goroutine = again;
    }
    // All but the last one have been scanned again, by the thread that ran the next one.
    assert!(objects.1.load(Relaxed) >= (GOROUTINES as u64 - 1) * 30, "{}", objects.1.load(Relaxed));
    assert_eq!(cycles.rescan_concurrently().expect("stacks that can be walked"), 1);
    cycles.stop_world(|world| {
        assert_eq!(world.rescan_dirty().expect("stacks that can be walked").frames, 0);
        world.visit_all(&mut |words| objects.roots(words)).expect("stacks that can be walked");
        world.end_scanning(NextCycle::IsWhole);
    });
    for goroutine in goroutines {
        assert!(matches!(machine.run(goroutine), Left::Exited));
    }
    drop(compiled);
}

static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
static MOST_AT_ONCE: AtomicUsize = AtomicUsize::new(0);
static TURNS_TO_GO: AtomicUsize = AtomicUsize::new(0);
static MEETING: Mutex<usize> = Mutex::new(0);
static MET: Condvar = Condvar::new();

/// Takes its turns one by one and counts the others that do. The last two wait for each other, each
/// on its thread.
unsafe extern "C-unwind" fn meets(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone, which owns nothing when it yields.
    let caller = unsafe { Caller::current() };
    let now = AT_ONCE.fetch_add(1, SeqCst) + 1;
    MOST_AT_ONCE.fetch_max(now, SeqCst);
    thread::yield_now();
    AT_ONCE.fetch_sub(1, SeqCst);
    if TURNS_TO_GO.fetch_update(SeqCst, SeqCst, |turns| turns.checked_sub(1)).is_ok() {
        // SAFETY: as above.
        return unsafe { caller.yield_now(0) };
    }
    caller.runtime().reserve_processors(0);
    let mut meeting = MEETING.lock();
    *meeting += 1;
    MET.notify_all();
    let mut watch = Watch::own();
    while *meeting < 2 {
        MET.wait_for(&mut meeting, Duration::from_millis(100));
        watch.check("no other goroutine runs");
    }
    0
}

#[test]
fn threads_give_their_processors_to_a_collector_and_come_back() {
    let code = Arc::new(Code::new());
    let compiled = compiler::compile(&code, meets, 16);
    let runtime =
        Runtime::new(Config::default(), code, Box::new(Embedder)).expect("the assembly's frames");
    let scheduler = Scheduler::new(&runtime, 2, Box::new(|| {}));
    // As many as the machine has, so that one thread must sleep.
    runtime.reserve_processors(thread::available_parallelism().map_or(1, usize::from));
    let object = 5_usize;
    let mut arguments = vec![[0, &raw const object as usize, usize::MAX]; 500];
    TURNS_TO_GO.store(arguments.len() - 2, SeqCst);
    for argument in &mut arguments {
        // SAFETY: compiled code that keeps the contracts; the argument outlives it.
        let goroutine = unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) }
            .expect("memory");
        runtime.schedule(goroutine);
    }
    let running = scheduler.start().expect("threads");
    let mut meeting = MEETING.lock();
    let mut watch = Watch::own();
    while *meeting < 2 {
        MET.wait_for(&mut meeting, Duration::from_millis(100));
        watch.check("no goroutines have met");
    }
    drop(meeting);
    running.stop();
    assert_eq!(MOST_AT_ONCE.load(SeqCst), 1);
    drop(compiled);
}

/// What the goroutines of the next test are: the numbers that their objects hold.
const FIRST: usize = 0;
const LOCAL: usize = 1;
const LATE: usize = 2;
static ROLES: [usize; 3] = [FIRST, LOCAL, LATE];
static LOCALS: Mutex<Vec<Arc<Goroutine>>> = Mutex::new(Vec::new());
static FIRST_RUNS: AtomicBool = AtomicBool::new(false);
static LATE_IS_QUEUED: AtomicBool = AtomicBool::new(false);
/// Goroutines that have yielded, and how many had when the late one ran.
static YIELDED: AtomicUsize = AtomicUsize::new(0);
static BEFORE_LATE: AtomicUsize = AtomicUsize::new(usize::MAX);

unsafe extern "C-unwind" fn takes_its_role(object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone, which owns nothing when it yields.
    let caller = unsafe { Caller::current() };
    // SAFETY: each goroutine's object is one of `ROLES`.
    match unsafe { *object.cast::<usize>() } {
        LATE => {
            BEFORE_LATE.store(YIELDED.load(SeqCst), SeqCst);
            return 0;
        }
        FIRST => {
            for goroutine in LOCALS.lock().drain(..) {
                caller.runtime().schedule(goroutine);
            }
            FIRST_RUNS.store(true, SeqCst);
            await_flag(&LATE_IS_QUEUED);
        }
        _ => {}
    }
    YIELDED.fetch_add(1, SeqCst);
    // SAFETY: as above.
    unsafe { caller.yield_now(0) }
}

fn await_flag(flag: &AtomicBool) {
    let mut watch = Watch::own();
    while !flag.load(SeqCst) {
        thread::yield_now();
        watch.check("a goroutine does not run");
    }
}

#[test]
fn goroutines_that_yield_do_not_keep_one_of_the_shared_queue_waiting() {
    let code = Arc::new(Code::new());
    let compiled = compiler::compile(&code, takes_its_role, 16);
    let runtime =
        Runtime::new(Config::default(), code, Box::new(Embedder)).expect("the assembly's frames");
    let mut arguments = [FIRST, LATE].map(|role| [0, &raw const ROLES[role] as usize, 0]);
    let mut locals = vec![[0, &raw const ROLES[LOCAL] as usize, 0]; 50];
    let mut spawn = |argument: &mut [usize; 3]| {
        // SAFETY: compiled code that keeps the contracts; the argument outlives it.
        unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) }.expect("memory")
    };
    let [first, late] = arguments.each_mut().map(&mut spawn);
    LOCALS.lock().extend(locals.iter_mut().map(&mut spawn));
    let scheduler = Scheduler::new(&runtime, 1, Box::new(|| {}));
    runtime.schedule(first);
    let running = scheduler.start().expect("threads");
    await_flag(&FIRST_RUNS);
    runtime.schedule(late);
    LATE_IS_QUEUED.store(true, SeqCst);
    let mut watch = Watch::own();
    while runtime.live_goroutines() > 0 {
        thread::yield_now();
        watch.check("a goroutine does not end");
    }
    running.stop();
    assert!(BEFORE_LATE.load(SeqCst) <= 2, "{} ran before", BEFORE_LATE.load(SeqCst));
    drop(compiled);
}
