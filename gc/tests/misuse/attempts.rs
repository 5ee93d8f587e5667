//! The attempts: what an embedder may write by mistake.

use super::trusted;
use stackmark::heap::Fresh;
use stackmark::mark_sweep::{Allocator, Descriptor, DescriptorId, MarkSweep, Options};
use stackmark::stack::scheduler::Scheduler;
use stackmark::stack::{
    self, Activity, CycleDriver, Goroutine, Host, Inside, Left, Machine, Observer, RootSink,
    Runtime, ScanScope, Word,
};
use stackmark::unwind::Code;
use stackmark::{Collector, Config, Generational};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

/// Collections that run beside an attempt's allocations.
const COLLECTIONS: u64 = 300;

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit}")
    }
}

fn runtime() -> Arc<Runtime> {
    runtime_with(stack::Config::default(), Box::new(Embedder))
}

fn runtime_with(config: stack::Config, host: Box<dyn Host>) -> Arc<Runtime> {
    let code = Arc::new(Code::new());
    trusted::register(&code);
    Runtime::new(config, code, host).expect("a runtime")
}

fn heap() -> Arc<MarkSweep> {
    MarkSweep::new(&Options { poison: true, ..Options::default() }).expect("a heap")
}

/// Collections begin by hand alone.
fn quiet() -> Config {
    Config { percent: None, ..Config::default() }
}

pub(super) type World = (Arc<Runtime>, Arc<MarkSweep>, Arc<Collector<MarkSweep>>);

pub(super) fn world() -> World {
    let (runtime, heap) = (runtime(), heap());
    let collector = Collector::start(heap.clone(), runtime.clone(), &quiet()).expect("a collector");
    (runtime, heap, Arc::new(collector))
}

fn pair(heap: &MarkSweep) -> DescriptorId {
    heap.register(Descriptor::references()).expect("a descriptor")
}

/// Calls `f` on a thread of its own, as inside the runtime.
fn inside<R: Send>(runtime: &Arc<Runtime>, f: impl FnOnce(Inside<'_>) -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| Machine::attach(runtime).expect("attached").inside(f));
        thread.join().expect("no panic")
    })
}

/// Allocates and holds objects, many at a time, while another thread collects. Tells how many were
/// handed out while a handle held them.
fn allocate_beside_collections((runtime, heap, collector): &World) -> usize {
    let descriptor = pair(heap);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..COLLECTIONS).for_each(|_| collector.collect());
            done.store(true, SeqCst);
        });
        let machine = Machine::attach(runtime).expect("attached");
        let allocator = heap.allocator().expect("an allocator");
        let mut twice = 0;
        while !done.load(SeqCst) {
            let (mut seen, mut held) = (HashSet::new(), Vec::new());
            for _ in 0..500 {
                let handle = machine.inside(|inside| {
                    let fresh = allocator.allocate(&inside, descriptor, 16).expect("memory");
                    collector.handles().create_fresh(&fresh)
                });
                twice += usize::from(!seen.insert(handle.get()));
                held.push(handle);
            }
        }
        twice
    })
}

thread_local! {
    static MACHINE: RefCell<Option<Rc<Machine>>> = const { RefCell::new(None) };
    static MACHINES: RefCell<Vec<Machine>> = const { RefCell::new(Vec::new()) };
}

/// Runs `native` as native code of a goroutine, on a machine that it may find in `MACHINE`.
fn run_native(runtime: &Arc<Runtime>, native: impl Fn() + Send + Sync + 'static) -> Left {
    let machine = Rc::new(Machine::attach(runtime).expect("attached"));
    MACHINE.set(Some(machine.clone()));
    machine.run(trusted::spawn_native(runtime, native))
}

/// The machine that this thread runs a goroutine on.
fn this_machine() -> Rc<Machine> {
    MACHINE.with_borrow(|machine| machine.clone()).expect("run_native has left it")
}

/// The text of a panic of `f`.
fn panic_of<R>(f: impl FnOnce() -> R) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => "no panic".into(),
        Err(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => payload.downcast::<&str>().map_or("?".into(), |text| (*text).into()),
        },
    }
}

pub(crate) fn run(attempt: &str) {
    match attempt {
        "baseline" => {
            let (runtime, _heap, collector) = world();
            let ran = Arc::new(AtomicBool::new(false));
            let its = ran.clone();
            let left = run_native(&runtime, move || its.store(true, SeqCst));
            assert!(matches!(left, Left::Exited) && ran.load(SeqCst));
            collector.collect();
            println!("native code has run");
        }
        "allocate_beside_collections" => {
            println!("handed out twice: {}", allocate_beside_collections(&world()));
        }
        "readme_loop" => {
            // By itself, when the heap has grown, and by hand.
            let (runtime, heap) = (runtime(), MarkSweep::new(&Options::default()).expect("a heap"));
            let collector =
                Collector::start(heap.clone(), runtime.clone(), &Config::default()).expect("one");
            let world = (runtime, heap, Arc::new(collector));
            println!("handed out twice: {}", allocate_beside_collections(&world));
        }
        // ANCHOR: foreign
        "allocate_in_foreign" => {
            let (runtime, heap, _collector) = world();
            let descriptor = pair(&heap);
            run_native(&runtime, move || {
                let allocator = heap.allocator().expect("an allocator");
                trusted::with_caller(|caller| {
                    let inside = caller.inside().expect("native code counts as running");
                    caller.foreign(|| {
                        assert!(caller.inside().is_none());
                        let error = allocator.allocate(&inside, descriptor, 16).unwrap_err();
                        println!("refused: {error}");
                    });
                    let error = allocator.allocate(&inside, descriptor, 16).unwrap_err();
                    println!("refused afterwards: {error}");
                });
            });
        }
        // ANCHOR_END: foreign
        "allocate_inside_another_runtime" => {
            let ((_runtime, heap, _collector), other) = (world(), runtime());
            let descriptor = pair(&heap);
            inside(&other, |inside| {
                let allocator = heap.allocator().expect("an allocator");
                let error = allocator.allocate(&inside, descriptor, 16).unwrap_err();
                println!("refused: {error}");
            });
        }
        "keep_across_foreign" => {
            let (runtime, heap, collector) = world();
            let descriptor = pair(&heap);
            run_native(&runtime, move || {
                let allocator = heap.allocator().expect("an allocator");
                trusted::with_caller(|caller| {
                    let inside = caller.inside().expect("native code counts as running");
                    let fresh = allocator.allocate(&inside, descriptor, 16).expect("memory");
                    caller.foreign(|| collector.collect());
                    println!("{:?}", collector.handles().create_fresh(&fresh));
                });
            });
        }
        "keep_for_the_next_goroutine" => {
            thread_local! {
                static KEPT: Cell<Option<Fresh<'static>>> = const { Cell::new(None) };
            }
            let (runtime, heap, collector) = world();
            let descriptor = pair(&heap);
            let machine = Machine::attach(&runtime).expect("attached");
            machine.run(trusted::spawn_native(&runtime, move || {
                let allocator = heap.allocator().expect("an allocator");
                let inside = trusted::caller().inside().expect("native code counts as running");
                KEPT.set(Some(allocator.allocate(&inside, descriptor, 16).expect("memory")));
            }));
            collector.collect();
            machine.run(trusted::spawn_native(&runtime, move || {
                let fresh = KEPT.take().expect("kept");
                println!("{:?}", collector.handles().create_fresh(&fresh));
            }));
        }
        "two_collectors_runtime" => {
            let (runtime, _heap, collector) = world();
            let error = Collector::start(heap(), runtime, &quiet()).map(drop).unwrap_err();
            println!("refused: {error}");
            collector.collect();
        }
        "two_collectors_heap" => {
            let (_runtime, heap, collector) = world();
            let error = Collector::start(heap, runtime(), &quiet()).map(drop).unwrap_err();
            println!("refused: {error}");
            collector.collect();
        }
        "collector_after_drop" => {
            let (runtime, heap, collector) = world();
            drop(collector);
            let other = Collector::start(heap, self::runtime(), &quiet()).map(drop).unwrap_err();
            let same = Collector::start(self::heap(), runtime, &quiet()).map(drop).unwrap_err();
            println!("refused: {other}; {same}");
        }
        "cycles_by_hand" => {
            struct Nothing;
            impl RootSink for Nothing {
                fn roots(&self, _words: &[usize]) {}
            }
            let (runtime, _heap, collector) = world();
            let error = CycleDriver::new(&runtime, Arc::new(Nothing)).map(drop).unwrap_err();
            println!("refused: {error}");
            collector.collect();
        }
        "other_runtime" => {
            let ((runtime, _heap, collector), other) = (world(), runtime());
            let machine = Machine::attach(&other).expect("attached");
            let goroutine = trusted::spawn(&runtime);
            println!("{}", panic_of(|| machine.run(goroutine.clone())));
            collector.collect();
            assert_eq!((runtime.live_goroutines(), other.live_goroutines()), (1, 0));
            drop(machine);
            let machine = Machine::attach(&runtime).expect("attached");
            assert!(matches!(machine.run(goroutine), Left::Exited), "it is as it was");
            assert_eq!(runtime.census().imbalances(), Vec::<String>::new());
        }
        "nested_attach" => nested_attach(),
        "nested_run" => {
            let runtime = runtime();
            let its = runtime.clone();
            run_native(&runtime, move || {
                let inner = trusted::spawn_native(&its, || println!("inner native"));
                println!("{:?}", this_machine().run(inner));
            });
        }
        "nested_run_foreign" => {
            let runtime = runtime();
            let its = runtime.clone();
            run_native(&runtime, move || {
                trusted::foreign(|| println!("{:?}", this_machine().run(trusted::spawn(&its))));
            });
        }
        "one_goroutine_twice" => {
            let (runtime, _heap, collector) = world();
            for _ in 0..200 {
                let nap = || std::thread::sleep(Duration::from_millis(1));
                let goroutine = trusted::spawn_native(&runtime, nap);
                let panics = std::thread::scope(|scope| {
                    let run = || {
                        let machine = Machine::attach(&runtime).expect("attached");
                        catch_unwind(AssertUnwindSafe(|| machine.run(goroutine.clone()))).is_err()
                    };
                    let threads = [scope.spawn(run), scope.spawn(run)];
                    threads.map(|thread| thread.join().expect("caught"))
                });
                assert_ne!(panics[0], panics[1]);
            }
            collector.collect();
            println!("one of two panicked each time");
        }
        "dead_then_collect" => {
            let (runtime, _heap, collector) = world();
            let machine = Machine::attach(&runtime).expect("attached");
            let goroutine = trusted::spawn(&runtime);
            machine.run(goroutine.clone());
            println!("{}", panic_of(|| machine.run(goroutine)));
            collector.collect();
            assert!(matches!(machine.run(trusted::spawn(&runtime)), Left::Exited));
            println!("collected");
        }
        "ready_not_parked" => {
            let (runtime, _heap, collector) = world();
            let goroutine = trusted::spawn(&runtime);
            println!("{}", panic_of(|| runtime.ready(goroutine.clone(), Word::Plain(1))));
            println!("{}", panic_of(|| runtime.schedule(goroutine.clone())));
            let machine = Machine::attach(&runtime).expect("attached");
            assert!(matches!(machine.run(goroutine), Left::Exited));
            collector.collect();
        }
        "scheduled_twice" => {
            let (runtime, _heap, _collector) = world();
            let scheduler = Scheduler::new(&runtime, 2, Box::new(|| ()));
            let _threads = scheduler.start().expect("threads");
            println!("{}", panic_of(|| scheduler.start().is_ok()));
            let goroutine = trusted::spawn(&runtime);
            runtime.schedule(goroutine.clone());
            runtime.schedule(goroutine);
            loop {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        "collect_in_native" => {
            let (runtime, _heap, collector) = world();
            run_native(&runtime, move || collector.collect());
        }
        "collect_in_foreign" => {
            let (runtime, _heap, collector) = world();
            run_native(&runtime, move || trusted::foreign(|| collector.collect()));
            println!("collected");
        }
        "collect_at_poll" => collect_at_poll(),
        "collect_every_poll" => {
            let config = stack::Config { poll_always: true, ..Default::default() };
            let runtime = runtime_with(config, Box::new(Embedder));
            let config = Config { collect_every_poll: true, verify: true, ..quiet() };
            let collector = Collector::start(heap(), runtime.clone(), &config).expect("one");
            let machine = Machine::attach(&runtime).expect("attached");
            for polls in 1..=3 {
                assert!(matches!(machine.run(trusted::spawn_polling(&runtime)), Left::Exited));
                assert_eq!(collector.statistics().cycles, polls);
            }
            drop(collector);
            // No collection comes any more, and none is waited for.
            assert!(matches!(machine.run(trusted::spawn_polling(&runtime)), Left::Exited));
            println!("polled");
        }
        "collect_inside" => {
            let (runtime, _heap, collector) = world();
            println!("{}", inside(&runtime, |_| panic_of(|| collector.collect())));
            collector.collect();
        }
        "collect_in_finaliser" => {
            let (runtime, heap, collector) = world();
            let address = unreachable_object(&runtime, &heap);
            let again = Arc::downgrade(&collector);
            collector.weak_references().on_unreachable(address, move |_| {
                again.upgrade().expect("the collector runs").collect();
            });
            (0..3).for_each(|_| collector.collect());
        }
        "collect_in_done" => {
            let (_runtime, _heap, collector) = world();
            let again = collector.clone();
            collector.request(move || again.collect());
            (0..3).for_each(|_| collector.collect());
        }
        "drop_collector_in_done" => {
            let (_runtime, _heap, collector) = world();
            let (go, ended) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
            let (its_go, its_end, last) = (go.clone(), ended.clone(), collector.clone());
            collector.request(move || {
                its_go.wait();
                drop(last);
                println!("dropped");
                its_end.set(()).expect("once");
            });
            drop(collector);
            go.set(()).expect("once");
            ended.wait();
        }
        "panic_on_a_machines_thread" => {
            let (runtime, _heap, _collector) = world();
            let scheduler = Scheduler::new(&runtime, 2, Box::new(|| panic!("my deadlock")));
            let _threads = scheduler.start().expect("threads");
            loop {
                std::thread::park();
            }
        }
        "fatal_on_many_threads" => {
            const THREADS: usize = 8;
            static FAILED: AtomicUsize = AtomicUsize::new(0);
            struct Waits;
            impl Host for Waits {
                fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
                    panic!("stack exceeds {limit}")
                }
                fn fatal(&self, error: &dyn std::error::Error) -> ! {
                    eprintln!("it is said: {error}");
                    while FAILED.load(SeqCst) < THREADS {
                        std::thread::yield_now();
                    }
                    // For those that are about to say it as well.
                    std::thread::sleep(Duration::from_millis(50));
                    std::process::exit(2)
                }
            }
            let runtime = runtime_with(stack::Config::default(), Box::new(Waits));
            for _ in 0..THREADS {
                let runtime = Arc::clone(&runtime);
                std::thread::spawn(move || {
                    FAILED.fetch_add(1, SeqCst);
                    runtime.fatal(&std::fmt::Error)
                });
            }
            loop {
                std::thread::park();
            }
        }
        "panic_of_a_machine_that_begins" => {
            struct Refuses;
            impl Host for Refuses {
                fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
                    panic!("stack exceeds {limit}")
                }
                fn machine_attached(&self) -> usize {
                    panic!("no word for a machine")
                }
            }
            let runtime = runtime_with(stack::Config::default(), Box::new(Refuses));
            let scheduler = Scheduler::new(&runtime, 2, Box::new(|| ()));
            let _threads = scheduler.start().expect("threads");
            loop {
                std::thread::park();
            }
        }
        "panic_in_finaliser" => {
            let (runtime, heap, collector) = world();
            let address = unreachable_object(&runtime, &heap);
            collector.weak_references().on_unreachable(address, |_| panic!("my finaliser"));
            (0..3).for_each(|_| collector.collect());
        }
        "panic_in_done" => {
            let (_runtime, _heap, collector) = world();
            collector.request(|| panic!("my callback"));
            (0..3).for_each(|_| collector.collect());
        }
        "collect_in_stopped_world" => {
            let (runtime, _heap, collector) = world();
            println!("{}", runtime.stop_world(|_| panic_of(|| collector.collect())));
            collector.collect();
        }
        "drop_collector_inside" => {
            let (runtime, _heap, collector) = world();
            inside(&runtime, |_| {
                // The cycle waits for this thread.
                collector.request(|| ());
                std::thread::sleep(Duration::from_millis(50));
                drop(collector);
            });
            println!("dropped inside");
        }
        "drop_collector_in_stopped_world" => {
            let (runtime, _heap, collector) = world();
            runtime.stop_world(|_| {
                collector.request(|| ());
                std::thread::sleep(Duration::from_millis(50));
                drop(collector);
            });
            println!("dropped in a stopped world");
        }
        "world_in_native" => {
            let (runtime, _heap, _collector) = world();
            let its = runtime.clone();
            run_native(&runtime, move || its.stop_world(|_| ()));
        }
        "two_worlds" => {
            let (runtime, _heap, collector) = world();
            runtime.stop_world(|_| runtime.stop_world(|_| ()));
            println!("{}", panic_of(|| runtime.stop_world(|_| panic!("in a stopped world"))));
            let machine = Machine::attach(&runtime).expect("attached");
            assert!(matches!(machine.run(trusted::spawn(&runtime)), Left::Exited));
            collector.collect();
            println!("the world goes on");
        }
        "run_in_own_stopped_world" => {
            let (runtime, _heap, collector) = world();
            let machine = Machine::attach(&runtime).expect("attached");
            let goroutine = trusted::spawn(&runtime);
            let run = || runtime.stop_world(|_| machine.run(goroutine.clone()));
            println!("{}", panic_of(run));
            println!("{}", panic_of(|| runtime.stop_world(|_| machine.inside(|_| ()))));
            assert!(matches!(machine.run(goroutine), Left::Exited), "all is as before");
            collector.collect();
            println!("collected");
        }
        "straggler" => straggler(),
        "options_stack" => {
            let large = stack::Config::LARGEST_MAX_STACK.min(1 << 30);
            for (max_stack, accepted) in
                [(0, false), (1, false), (64 << 10, true), (large, true), (usize::MAX, false)]
            {
                for move_limit in [0, 1, 1 << 20, usize::MAX] {
                    let config = stack::Config { max_stack, move_limit, ..Default::default() };
                    check_options_of_stacks(config, accepted, "max_stack");
                }
            }
            for (max_frame, accepted) in
                [(0, false), (255, false), (256, true), (4 << 10, true), (usize::MAX, false)]
            {
                let config = stack::Config { max_frame, ..Default::default() };
                check_options_of_stacks(config, accepted, "max_frame");
            }
            println!("checked");
        }
        "options_collector" => options_collector(),
        "options_heap" => {
            // Wine takes a byte of memory for each page that is reserved.
            let large = if cfg!(windows) { 1 << 38 } else { Options::LARGEST_LIMIT };
            for limit in [0, 1, large, usize::MAX] {
                match MarkSweep::new(&Options { limit, ..Options::default() }) {
                    Ok(heap) => println!("limit {limit}: {:?}", heap.allocator().is_ok()),
                    Err(error) => println!("limit {limit}: {error}"),
                }
            }
            let error = MarkSweep::new(&Options { limit: 0, ..Options::default() }).map(drop);
            assert!(error.unwrap_err().to_string().contains("limit"));
            println!("checked");
        }
        "options_scheduler" => {
            let runtime = runtime();
            for threads in [0, usize::MAX] {
                println!("{}", panic_of(|| Scheduler::new(&runtime, threads, Box::new(|| ()))));
            }
        }
        "own_frames" => {
            let (runtime, _heap, _collector) = world();
            let its = runtime.clone();
            run_native(&runtime, move || {
                let own = trusted::with_caller(|caller| caller.handle());
                let running = its.frames(&own, 10).expect("a true stack").expect("it stands");
                let foreign = trusted::foreign(|| its.frames(&own, 10).expect("a true stack"));
                assert_eq!(foreign.expect("it stands"), running);
                assert_eq!(its.frames(&own, 1).expect("a true stack").map(|f| f.len()), Some(1));
                println!("{} frames", running.len());
            });
        }
        "run_in_callback" => {
            let runtime = runtime();
            let its = runtime.clone();
            run_native(&runtime, move || {
                let its = its.clone();
                trusted::foreign(|| {
                    trusted::call_back(move || {
                        let own = trusted::with_caller(|caller| caller.handle());
                        trusted::park(|_| {
                            its.ready(own.clone(), Word::Plain(0));
                            std::thread::scope(|scope| {
                                scope.spawn(|| {
                                    let machine = Machine::attach(&its).expect("attached");
                                    println!("{}", panic_of(|| machine.run(own.clone())));
                                });
                            });
                        });
                        println!("back in the callback");
                    });
                });
            });
        }
        "nested_foreign" => {
            let runtime = runtime();
            let left = run_native(&runtime, || {
                println!("{}", trusted::foreign(|| panic_of(|| trusted::foreign(|| ()))));
                println!("{}", trusted::foreign(|| panic_of(|| trusted::park(|_| ()))));
                trusted::foreign(|| trusted::call_back(|| trusted::foreign(|| ())));
            });
            println!("{left:?}");
        }
        "publish_panics" => {
            let runtime = runtime();
            run_native(&runtime, || trusted::park(|_| panic!("in a closure")));
        }
        "frames_while_parking" => {
            let runtime = runtime();
            let its = runtime.clone();
            let left = run_native(&runtime, move || {
                let own = trusted::with_caller(|caller| caller.handle());
                trusted::park(|_| {
                    println!("a goroutine: {}", trusted::has_caller());
                    println!("{}", panic_of(|| this_machine().run(own.clone())));
                    let frames = its.frames(&own, 10).expect("a true stack").expect("it stands");
                    println!("{} frames", frames.len());
                });
            });
            println!("{left:?}");
        }
        "fatal_unwinds" => {
            struct Unwinds;
            impl Host for Unwinds {
                fn stack_overflow(&self, _goroutine: &Goroutine, _limit: usize) -> ! {
                    panic!("no overflow here")
                }
                fn fatal(&self, error: &dyn std::error::Error) -> ! {
                    panic!("{error}")
                }
            }
            let runtime = runtime_with(stack::Config::default(), Box::new(Unwinds));
            println!("{}", panic_of(|| -> () { runtime.fatal(&std::fmt::Error) }));
        }
        "observer_panics" => {
            struct Panics;
            impl Observer for Panics {
                fn begin(&self, activity: Activity, _goroutine: u64) {
                    assert_ne!(activity, Activity::Scan, "in an observer");
                }
                fn end(&self, _activity: Activity) {}
            }
            let (runtime, _heap, collector) = world();
            runtime.observed().set(Arc::new(Panics));
            let _waits = trusted::spawn(&runtime);
            collector.collect();
        }
        "sink_panics" => {
            struct Panics;
            impl RootSink for Panics {
                fn roots(&self, _words: &[usize]) {
                    panic!("in a sink")
                }
            }
            let runtime = runtime();
            let mut driver = CycleDriver::new(&runtime, Arc::new(Panics)).expect("one");
            let _waits = trusted::spawn(&runtime);
            assert!(driver.begin_scanning(1, ScanScope::Whole));
            println!("{}", panic_of(|| driver.scan_goroutines(|| ())));
        }
        "stacks_within_a_visit" => {
            let runtime = runtime();
            let goroutine = trusted::spawn(&runtime);
            runtime.stop_world(|world| {
                let mut told = false;
                let mut to = |_words: &[usize]| {
                    if !std::mem::replace(&mut told, true) {
                        println!("{}", panic_of(|| runtime.frames(&goroutine, 1)));
                        println!("{}", panic_of(|| world.visit_all(&mut |_| ())));
                        println!("{}", panic_of(|| runtime.scan_frozen()));
                        println!("{}", panic_of(|| runtime.census()));
                    }
                };
                world.visit_all(&mut to).expect("true stacks");
            });
            println!("{:?}", runtime.frames(&goroutine, 1).expect("a true stack").map(|f| f.len()));
        }
        "attach_in_scheduler" => {
            struct Attaches(Mutex<Weak<Runtime>>);
            impl Host for Attaches {
                fn stack_overflow(&self, _goroutine: &Goroutine, _limit: usize) -> ! {
                    panic!("no overflow here")
                }
                fn machine_attached(&self) -> usize {
                    let runtime = std::mem::take(&mut *self.0.lock().unwrap());
                    if let Some(runtime) = runtime.upgrade() {
                        MACHINES.with_borrow_mut(|machines| {
                            machines.push(Machine::attach(&runtime).expect("attached"));
                        });
                    }
                    0
                }
            }
            let host = Attaches(Mutex::default());
            let runtime = runtime_with(stack::Config::default(), Box::new(host));
            *runtime.host::<Attaches>().expect("the host").0.lock().unwrap() =
                Arc::downgrade(&runtime);
            let scheduler = Scheduler::new(&runtime, 1, Box::new(|| ()));
            let _threads = scheduler.start().expect("threads");
            std::thread::sleep(Duration::from_secs(60));
        }
        "handles_of_threads" => {
            let runtime = runtime();
            let handle = || {
                let handle = || runtime.call_in(|caller| caller.handle()).expect("called in");
                std::thread::scope(|scope| scope.spawn(handle).join().expect("no panic"))
            };
            let mut handles: Vec<_> = (0..20).map(|_| handle()).collect();
            let records: HashSet<_> = handles.iter().map(Arc::as_ptr).collect();
            println!("{} records for {} threads", records.len(), handles.len());
            println!("{}", panic_of(|| runtime.ready(handles[0].clone(), Word::Plain(0))));
            handles.truncate(1);
            (0..20).for_each(|_| drop(handle()));
            println!("{:?}", runtime.census().imbalances());
        }
        "handles_after" => {
            let (runtime, heap, collector) = world();
            let address = unreachable_object(&runtime, &heap);
            let handles = collector.handles().clone();
            let handle = handles.create(address);
            let weak = collector.weak_references().create(handle.get());
            drop(collector);
            let (copy, other) = (handle.clone(), handles.create(5));
            copy.set(handle.get());
            println!("{:?} {other:?}, live: {}", weak.upgrade(), handles.live());
        }
        "forget_machine" => {
            let (runtime, _heap, collector) = world();
            std::mem::forget(Machine::attach(&runtime).expect("attached"));
            println!("again: {:?}", Machine::attach(&runtime).map(drop));
            let its = runtime.clone();
            let thread = std::thread::spawn(move || {
                std::mem::forget(Machine::attach(&its).expect("attached"));
            });
            thread.join().expect("no panic");
            collector.collect();
            println!("collected; {:?}", runtime.census().imbalances());
        }
        "random_words" => {
            let (runtime, heap) = (runtime(), heap());
            let config = Config { percent: None, verify: true, ..Config::default() };
            let collector =
                Collector::start(heap.clone(), runtime.clone(), &config).expect("a collector");
            let base = unreachable_object(&runtime, &heap);
            let mut word = 88_172_645_463_325_252_u64;
            let mut held = Vec::new();
            for i in 0..100_000 {
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                let near = base.wrapping_add((word % (1 << 24)) as usize);
                held.push(collector.handles().create(if i % 2 == 0 {
                    near
                } else {
                    word as usize
                }));
            }
            (0..5).for_each(|_| collector.collect());
            println!("collected");
        }
        "descriptors" => {
            let (runtime, heap, _collector) = world();
            let descriptor = pair(&heap);
            inside(&runtime, |inside| {
                let allocator = heap.allocator().expect("an allocator");
                for (descriptor, bytes) in [
                    (DescriptorId::from_index(u32::MAX), 16),
                    (DescriptorId::from_index(77), 16),
                    (descriptor, usize::MAX),
                ] {
                    println!("{}", allocator.allocate(&inside, descriptor, bytes).unwrap_err());
                }
            });
            println!("{}", panic_of(|| Allocator::slot_offset(DescriptorId::from_index(9999), 16)));
            for error in [
                Descriptor::pattern(0, [0]).map(drop),
                Descriptor::pattern(usize::MAX, [0]).map(drop),
            ] {
                println!("{error:?}");
                assert!(error.is_err());
            }
            println!("checked");
        }
        other => panic!("no attempt is named {other}"),
    }
}

/// An object that nothing refers to.
fn unreachable_object(runtime: &Arc<Runtime>, heap: &Arc<MarkSweep>) -> usize {
    let descriptor = pair(heap);
    inside(runtime, |inside| {
        let allocator = heap.allocator().expect("an allocator");
        allocator.allocate(&inside, descriptor, 16).expect("memory").address()
    })
}

/// The host attaches the thread that is being attached.
fn nested_attach() {
    struct Nested(Mutex<Weak<Runtime>>);
    impl Host for Nested {
        fn stack_overflow(&self, _goroutine: &Goroutine, _limit: usize) -> ! {
            panic!("no overflow here")
        }
        fn machine_attached(&self) -> usize {
            let runtime = self.0.lock().unwrap().upgrade().expect("a runtime");
            println!("inner: {:?}", Machine::attach(&runtime).map(drop));
            0
        }
    }
    let host = Nested(Mutex::default());
    let runtime = runtime_with(stack::Config::default(), Box::new(host));
    *runtime.host::<Nested>().expect("the host").0.lock().unwrap() = Arc::downgrade(&runtime);
    let outer = Machine::attach(&runtime).expect("attached");
    assert!(matches!(outer.run(trusted::spawn_native(&runtime, || ())), Left::Exited));
}

fn collect_at_poll() {
    struct Polls(OnceLock<Arc<Collector<MarkSweep>>>);
    impl Host for Polls {
        fn stack_overflow(&self, _goroutine: &Goroutine, _limit: usize) -> ! {
            panic!("no overflow here")
        }
        fn at_poll(&self, _goroutine: &Goroutine) {
            self.0.get().expect("set").collect();
        }
    }
    let config = stack::Config { poll_always: true, ..Default::default() };
    let (runtime, heap) = (runtime_with(config, Box::new(Polls(OnceLock::new()))), heap());
    let collector = Collector::start(heap, runtime.clone(), &quiet()).expect("a collector");
    let host = runtime.host::<Polls>().expect("the host");
    assert!(host.0.set(Arc::new(collector)).is_ok());
    let machine = Machine::attach(&runtime).expect("attached");
    machine.run(trusted::spawn_polling(&runtime));
}

/// Native code that waits without being in a foreign call keeps the world waiting.
fn straggler() {
    struct Warned(Mutex<String>, AtomicBool, OnceLock<Weak<Runtime>>);
    impl Host for Warned {
        fn stack_overflow(&self, _goroutine: &Goroutine, _limit: usize) -> ! {
            panic!("no overflow here")
        }
        fn warn(&self, message: &str) {
            self.0.lock().unwrap().push_str(message);
            self.1.store(true, SeqCst);
            // The report holds no lock: the host may wait for the world, too.
            self.2.get().and_then(Weak::upgrade).expect("the runtime").stop_world(|_| ());
        }
    }
    #[inline(never)]
    fn straggle(host: &Warned, waits: &AtomicBool) {
        waits.store(true, SeqCst);
        while !host.1.load(SeqCst) {
            std::hint::spin_loop();
        }
        std::hint::black_box(host);
    }
    let limit = Some(Duration::from_millis(50));
    let config = stack::Config { report_stop_after: limit, ..Default::default() };
    let host = Warned(Mutex::default(), AtomicBool::new(false), OnceLock::new());
    let runtime = runtime_with(config, Box::new(host));
    let its_host = runtime.host::<Warned>().expect("the host");
    its_host.2.set(Arc::downgrade(&runtime)).expect("set once");
    let waits = Arc::new(AtomicBool::new(false));
    let (its, its_waits) = (Arc::downgrade(&runtime), waits.clone());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            run_native(&runtime, move || {
                let runtime = its.upgrade().expect("the runtime");
                straggle(runtime.host::<Warned>().expect("the host"), &its_waits);
            });
            MACHINE.take();
        });
        while !waits.load(SeqCst) {
            std::hint::spin_loop();
        }
        runtime.stop_world(|world| println!("{:?}", world.straggler()));
    });
    println!("{}", runtime.host::<Warned>().expect("the host").0.lock().unwrap());
}

/// A runtime of this configuration runs a goroutine, or is refused with an error that names
/// `option`.
fn check_options_of_stacks(config: stack::Config, accepted: bool, option: &str) {
    let shown = format!("{config:?}");
    let code = Arc::new(Code::new());
    trusted::register(&code);
    match Runtime::new(config, code, Box::new(Embedder)) {
        Ok(runtime) => {
            assert!(accepted, "{shown}");
            assert!(matches!(run_native(&runtime, || ()), Left::Exited));
            MACHINE.take();
        }
        Err(error) => {
            assert!(!accepted, "{error}");
            assert!(error.to_string().contains(option), "{error}");
        }
    }
}

fn options_collector() {
    let generations = |nursery| Some(Generational { nursery, short_scans: true });
    for (config, accepted) in [
        (Config { generational: generations(0), ..Config::default() }, true),
        (Config { generational: generations(usize::MAX), ..Config::default() }, true),
        (Config { workers: Config::MOST_WORKERS, ..quiet() }, true),
        (Config { workers: Config::MOST_WORKERS + 1, ..quiet() }, false),
        (Config { workers: 0, ..quiet() }, true),
        (Config { workers: 1_000_000_000, ..quiet() }, false),
        (Config { workers: 3, percent: Some(0), ..Config::default() }, true),
        (Config { percent: Some(u32::MAX), ..Config::default() }, true),
        (Config { memory_limit: Some(0), ..quiet() }, false),
        (Config { memory_limit: Some(usize::MAX), ..quiet() }, true),
    ] {
        let (runtime, heap) = (runtime(), heap());
        match Collector::start(heap, runtime, &config) {
            Ok(collector) => {
                assert!(accepted, "{config:?}");
                collector.collect();
            }
            Err(error) => {
                assert!(!accepted, "{config:?}: {error}");
                println!("{error}");
            }
        }
    }
    println!("checked");
}
