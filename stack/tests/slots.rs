//! Places of roots, for collectors that move objects. Objects move under compiled code, and each
//! frame reads its object on its way back.

use compiler::{Compiled, Compiler, INT, REF, Start, rec_result};
use stackmark_stack::asm::layout::GoroutineHeader;
use stackmark_stack::handles::{Handle, Handles};
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, CycleStopped, Goroutine, Host, Left, Machine,
    NextCycle, RootSink, RootSlot, Runtime, ScanScope, Schedule, Word,
};
use std::collections::HashSet;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

/// Objects, of two words each. The first has the object's value.
const OBJECTS: usize = 64;
/// How often `sum` calls `rec`, and how deep that is.
const SUMS: usize = 60;
/// What stands where objects were.
const GONE: usize = 1 << (usize::BITS - 12);
/// The value of all objects.
const VALUE: usize = 7;

/// What the native function below the managed frames does, and returns.
type Act = Box<dyn Fn(Caller<'_>) -> usize>;

thread_local! {
    static ACT: std::cell::RefCell<Option<Act>> = const { std::cell::RefCell::new(None) };
}

unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone, and `yields` owns nothing when it is left.
    let act = ACT.with_borrow(|act| act.as_ref().map(|act| act as *const Act));
    // SAFETY: the test takes it away after the goroutine has ended.
    act.map_or(0, |act| unsafe { (*act)(Caller::current()) })
}

/// Hears of machines and results.
#[derive(Default)]
struct Hearing {
    attached: AtomicU64,
    detached: AtomicU64,
    results: Mutex<Vec<usize>>,
}

impl Host for Hearing {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }
    fn machine_attached(&self) -> usize {
        self.attached.fetch_add(1, SeqCst);
        0
    }
    fn machine_detached(&self, _word: usize) {
        self.detached.fetch_add(1, SeqCst);
    }
    fn goroutine_exited(&self, _goroutine: &Goroutine, result: usize) {
        self.results.lock().expect("no panic").push(result);
    }
}

/// Counts the words that it gets.
#[derive(Default)]
struct Words(AtomicUsize);

impl RootSink for Words {
    fn roots(&self, words: &[usize]) {
        self.0.fetch_add(words.len(), SeqCst);
    }
}

/// A heap of two spaces, a runtime, and code that reads objects.
struct World {
    runtime: Arc<Runtime>,
    compiled: Compiled,
    spaces: [Vec<AtomicUsize>; 2],
    /// The space that has the objects.
    current: AtomicUsize,
    cycles: Mutex<(CycleDriver, u64)>,
    words: Arc<Words>,
}

impl World {
    fn new(config: Config) -> Arc<World> {
        let code = Arc::new(Code::new());
        let mut compiler = Compiler::default();
        let rec = compiler.recursion(bottom, 0, false);
        // `work(goroutine, [n, object, result])`. The argument is no object.
        let work = compiler.named_entry("work", INT, rec);
        // `sum(goroutine, object)` adds up `rec(SUMS, object)`, SUMS times.
        compiler.function("sum", &[INT, REF], Start::Goroutine, |f| {
            let object = f.param(1);
            let n = f.int(SUMS);
            let total = f.variable(INT);
            let zero = f.int(0);
            f.set(total, zero);
            f.repeat(n, |f, _| {
                let sum = f.call(rec, &[n, object]);
                let after = f.add(total, sum);
                f.set(total, after);
            });
            f.return_(total);
        });
        // `twice(goroutine, object)` is deep once, and calls out once again.
        compiler.function("twice", &[INT, REF], Start::Goroutine, |f| {
            let object = f.param(1);
            let [n, zero] = [SUMS * SUMS, 0].map(|n| f.int(n));
            let sum = f.call(rec, &[n, object]);
            let nothing = f.call(rec, &[zero, object]);
            let sum = f.add(sum, nothing);
            let value = f.load(object, 0);
            let same = f.int(VALUE);
            let sum = f.add(sum, value);
            let sum = f.subtract(sum, same);
            f.return_(sum);
        });
        let compiled = compiler.finish(work, &code);
        let host = Box::new(Hearing::default());
        let runtime = Runtime::new(config, code, host).expect("the assembly's frames");
        let words = Arc::new(Words::default());
        let cycles = CycleDriver::new(&runtime, words.clone()).expect("one collector");
        let space = |value| (0..2 * OBJECTS).map(|_| AtomicUsize::new(value)).collect();
        let spaces = [space(VALUE), space(GONE)];
        let (current, cycles) = (AtomicUsize::new(0), Mutex::new((cycles, 0)));
        Arc::new(World { runtime, compiled, spaces, current, cycles, words })
    }

    fn object(&self, number: usize) -> usize {
        &raw const self.spaces[self.current.load(SeqCst)][2 * number] as usize
    }

    fn host(&self) -> &Hearing {
        self.runtime.host().expect("the host")
    }

    /// Moves all objects, and writes the places.
    fn move_all(&self, slots: &[RootSlot]) {
        let from = self.current.load(SeqCst);
        let [old, new] = [&self.spaces[from], &self.spaces[1 - from]];
        for (old, new) in old.iter().zip(new) {
            new.store(old.swap(GONE, SeqCst), SeqCst);
        }
        let old = old.as_ptr_range();
        for slot in slots {
            let RootSlot::Reference { base, derived } = *slot else { panic!("{slot:?}") };
            assert_eq!(base, derived, "nothing is derived here");
            // SAFETY: the place of a root, while the world stands still.
            let word = unsafe { &mut *(base as *mut usize) };
            assert!(old.contains(&(*word as *const _)), "{word:#x} is no object");
            *word = *word - old.start as usize + new.as_ptr() as usize;
        }
        self.current.store(1 - from, SeqCst);
    }

    /// One cycle. `f` gets the stopped world.
    fn cycle<R>(
        &self,
        scope: ScanScope,
        next: NextCycle,
        f: impl FnOnce(&mut CycleStopped<'_>) -> R,
    ) -> R {
        let (cycles, number) = &mut *self.cycles.lock().expect("no panic");
        *number += 1;
        assert!(cycles.begin_scanning(*number, scope), "the last cycle allows it");
        cycles.stop_world(|stopped| {
            let result = f(stopped);
            stopped.end_scanning(next);
            result
        })
    }

    /// A cycle that moves all objects. Returns the number of places.
    fn cycle_that_moves(&self) -> usize {
        self.cycle(ScanScope::Whole, NextCycle::IsWhole, |stopped| {
            let slots = all(stopped);
            self.move_all(&slots);
            slots.len()
        })
    }

    /// Runs `work` on this thread.
    fn work(&self, n: usize) {
        let machine = Machine::attach(&self.runtime).expect("this thread is not attached");
        let mut argument = [n, self.object(3), 0];
        let words = Word::Plain(argument.as_mut_ptr() as usize);
        // SAFETY: the entry is compiled code that keeps the contracts, and its argument outlives
        // the run.
        let goroutine = unsafe { self.runtime.spawn(self.compiled.entry, words) };
        let mut goroutine = goroutine.expect("memory");
        while let Left::Yielded(yielded) = machine.run(goroutine) {
            goroutine = yielded;
        }
        assert_eq!(argument[2], rec_result(n, VALUE, 0));
    }

    /// A goroutine that will call `sum`. The caller counts as running.
    fn summing(&self) -> Arc<Goroutine> {
        let object = Word::Reference(self.object(5));
        // SAFETY: compiled code that keeps the contracts.
        let goroutine = unsafe { self.runtime.spawn(self.compiled.address("sum"), object) };
        goroutine.expect("memory")
    }

    /// Checks that so many goroutines have called `sum`, each rightly.
    fn check_sums(&self, count: usize) {
        let right = SUMS * rec_result(SUMS, VALUE, 0);
        assert_eq!(*self.host().results.lock().expect("no panic"), vec![right; count]);
    }

    /// Runs `work` on a thread of its own, with `act` below `n` managed frames.
    fn with_act(self: &Arc<World>, n: usize, act: impl Fn(Caller<'_>) + Send + 'static) {
        let world = self.clone();
        let thread = thread::spawn(move || {
            ACT.set(Some(Box::new(move |caller| {
                act(caller);
                0
            })));
            world.work(n);
            ACT.take();
        });
        thread.join().expect("no panic");
    }
}

/// The places that the cycle gives. None comes twice.
fn all(stopped: &mut CycleStopped<'_>) -> Vec<RootSlot> {
    let slots = Mutex::new(Vec::new());
    let to = |more: &[RootSlot]| slots.lock().expect("no panic").extend_from_slice(more);
    stopped.begin_slots(&to).expect("stacks that can be walked");
    while stopped.visit_slots(&to).expect("stacks that can be walked") {}
    let slots = slots.into_inner().expect("no panic");
    assert_eq!(slots.iter().collect::<HashSet<_>>().len(), slots.len(), "a place came twice");
    slots
}

const MODES: [BarrierMode; 4] =
    [BarrierMode::Incremental, BarrierMode::RescanLimit, BarrierMode::EveryFrame, BarrierMode::Off];

fn in_mode(barriers: BarrierMode) -> Config {
    Config { barriers, poison: true, ..Config::default() }
}

#[test]
fn objects_move_under_a_deep_stack() {
    const N: usize = 5000;
    for mode in MODES {
        let world = World::new(in_mode(mode));
        let inner = world.clone();
        world.with_act(N, move |caller| {
            for _ in 0..3 {
                let places = caller.foreign(|| inner.cycle_that_moves());
                assert!(places >= N, "{mode}: {places} places");
            }
        });
        assert_eq!(world.words.0.load(SeqCst), 0, "{mode}: a cycle of places gives no word");
    }
}

#[test]
fn a_short_cycle_gives_the_places_of_what_has_run_since() {
    const N: usize = 5000;
    for mode in [BarrierMode::Incremental, BarrierMode::EveryFrame] {
        let world = World::new(in_mode(mode));
        let inner = world.clone();
        world.with_act(N, move |caller| {
            let places = |scope| {
                caller.foreign(|| {
                    inner.cycle(scope, NextCycle::MayBeShort, |stopped| all(stopped).len())
                })
            };
            assert!(places(ScanScope::Whole) >= N, "{mode}");
            for _ in 0..3 {
                let short = places(ScanScope::Short);
                assert!(short < N / 50, "{mode}: {short} places");
            }
            // What was left out then is there again, and can be moved.
            assert!(caller.foreign(|| inner.cycle_that_moves()) >= N, "{mode}");
        });
    }
}

#[test]
fn several_threads_share_the_places_of_one_stack() {
    const N: usize = 20_000;
    let world = World::new(in_mode(BarrierMode::Incremental));
    let inner = world.clone();
    world.with_act(N, move |caller| {
        caller.foreign(|| {
            inner.cycle(ScanScope::Whole, NextCycle::IsWhole, |stopped| {
                let slots = Mutex::new(Vec::new());
                let to = |more: &[RootSlot]| slots.lock().unwrap().extend_from_slice(more);
                stopped.begin_slots(&to).expect("a true stack");
                let left = AtomicUsize::new(N - slots.lock().unwrap().len());
                let stopped = &*stopped;
                thread::scope(|scope| {
                    for _ in 0..4 {
                        scope.spawn(|| {
                            let more = |slots: &[RootSlot]| {
                                left.fetch_sub(slots.len(), SeqCst);
                                to(slots);
                            };
                            while left.load(SeqCst) as isize > 0 {
                                stopped.visit_slots(&more).expect("a true stack");
                            }
                        });
                    }
                });
                while stopped.visit_slots(&to).expect("a true stack") {}
                let slots = slots.into_inner().unwrap();
                let again = Mutex::new(HashSet::new());
                let to = |more: &[RootSlot]| again.lock().unwrap().extend(more.iter().copied());
                stopped.all_slots(&to).expect("a true stack");
                let again = again.into_inner().unwrap();
                assert_eq!(slots.len(), again.len());
                assert_eq!(slots.into_iter().collect::<HashSet<_>>(), again);
            });
        });
    });
}

/// Two threads run goroutines until `cycle` says, in the middle of which they are stopped.
fn while_goroutines_run(world: &World, mut cycle: impl FnMut() -> bool) {
    let ended = AtomicBool::new(false);
    let worked = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let machine = Machine::attach(&world.runtime).expect("not attached");
                while !ended.load(SeqCst) {
                    // Inside: no cycle comes before the goroutine has the object.
                    let mut goroutine = machine.inside(|_| world.summing());
                    while let Left::Yielded(yielded) = machine.run(goroutine) {
                        goroutine = yielded;
                    }
                    worked.fetch_add(1, SeqCst);
                }
            });
        }
        while cycle() {}
        ended.store(true, SeqCst);
    });
    world.check_sums(worked.load(SeqCst));
}

#[test]
fn objects_move_under_goroutines_that_stopped_at_polls() {
    for mode in MODES {
        let world = World::new(in_mode(mode));
        let mut places = 0;
        while_goroutines_run(&world, || {
            places += world.cycle_that_moves();
            places < 3000
        });
    }
}

/// The words at the places that a cycle gives.
fn given(world: &World) -> Vec<Word> {
    let places = world.cycle(ScanScope::Whole, NextCycle::IsWhole, all);
    // SAFETY: the addresses of words that no goroutine uses before the test runs one.
    let word = |slot: &RootSlot| unsafe {
        match *slot {
            RootSlot::Reference { base, derived } => {
                assert_eq!(base, derived);
                Word::Reference(*(base as *const usize))
            }
            RootSlot::Ambiguous(at) => Word::Ambiguous(*(at as *const usize)),
        }
    };
    places.iter().map(word).collect()
}

const SAID: [Word; 4] =
    [Word::Plain(8), Word::Reference(16), Word::Ambiguous(24), Word::Reference(0)];

/// The words of these that have a place.
fn with_a_place(words: &[Word]) -> Vec<Word> {
    let has = |word: &&Word| word.reference().is_some_and(|bits| bits != 0);
    words.iter().filter(has).copied().collect()
}

#[test]
fn an_argument_is_what_native_code_says() {
    for argument in SAID {
        let world = World::new(Config::default());
        // SAFETY: it is not run.
        let goroutine = unsafe { world.runtime.spawn(world.compiled.address("sum"), argument) };
        assert_eq!(given(&world), with_a_place(&[argument]));
        drop(goroutine);
    }
}

#[test]
fn an_argument_moves_before_its_goroutine_begins() {
    let world = World::new(Config::default());
    let goroutine = world.summing();
    assert_eq!(world.cycle_that_moves(), 1);
    let machine = Machine::attach(&world.runtime).expect("this thread is not attached");
    assert!(matches!(machine.run(goroutine), Left::Exited));
    world.check_sums(1);
}

/// Makes goroutines ready for a test, which runs them itself.
struct Unqueued;

impl Schedule for Unqueued {
    fn ready(&self, _goroutine: Arc<Goroutine>) {}
}

#[test]
fn what_a_call_out_will_return_is_what_native_code_says_and_moves() {
    // `None`: an object, which moves.
    for said in SAID.map(Some).into_iter().chain([None]) {
        for parks in [true, false] {
            let world = World::new(Config::default());
            world.runtime.set_scheduler(Arc::new(Unqueued));
            let value = said.unwrap_or(Word::Reference(world.object(9)));
            ACT.set(Some(Box::new(move |caller| {
                // SAFETY: the frames between own nothing, and managed code goes on.
                unsafe { if parks { caller.park(|_| {}) } else { caller.yield_now(value) } }
            })));
            let machine = Machine::attach(&world.runtime).expect("this thread is not attached");
            let mut argument = [0, 0, 0];
            let words = Word::Plain(argument.as_mut_ptr() as usize);
            // SAFETY: as in `World::work`. With n = 0 the object is not read.
            let spawned = unsafe { world.runtime.spawn(world.compiled.entry, words) };
            let goroutine = spawned.expect("memory");
            let left = machine.run(goroutine.clone());
            assert!(matches!(left, Left::Parked | Left::Yielded(_)));
            if parks {
                assert_eq!(given(&world), []);
                world.runtime.ready(goroutine.clone(), value);
            }
            let mut expected = value.bits();
            if said.is_none() {
                assert_eq!(world.cycle_that_moves(), 1);
                expected = world.object(9);
            } else {
                assert_eq!(given(&world), with_a_place(&[value]));
            }
            assert!(matches!(machine.run(goroutine), Left::Exited));
            assert_eq!(argument[2], expected);
            ACT.take();
        }
    }
}

#[test]
fn a_transfer_is_what_native_code_says_and_moves() {
    let world = World::new(Config::default());
    let goroutine = world.summing();
    assert_eq!(world.cycle_that_moves(), 1);
    let argument = Word::Reference(world.object(5));
    world.runtime.set_transfer(&goroutine, &SAID);
    let expected = with_a_place(&[&[argument], &SAID[..]].concat());
    assert_eq!(given(&world), expected);
    world.runtime.set_transfer(&goroutine, &[Word::Reference(world.object(1)), SAID[0]]);
    assert_eq!(world.cycle_that_moves(), 2);
    let mut words = Vec::new();
    world.runtime.take_transfer(&goroutine, &mut words);
    assert_eq!(words, [world.object(1), SAID[0].bits()]);
}

#[test]
fn the_language_s_words_are_exact_where_the_embedder_says_so() {
    for exact in [false, true] {
        let world = World::new(Config { exact_language_words: exact, ..Config::default() });
        let goroutine = world.summing();
        // SAFETY: the goroutine's header, which lives as long as the runtime.
        let header = unsafe { &*(goroutine.address() as *const GoroutineHeader) };
        header.language[1].store(world.object(2), SeqCst);
        let said = if exact { Word::Reference } else { Word::Ambiguous };
        let expected = [Word::Reference(world.object(5)), said(world.object(2))];
        assert_eq!(given(&world), expected);
    }
}

/// Whether `f`, on another thread, goes on only when the world does.
fn waits_for_the_world<R: Send>(world: &World, f: impl FnOnce() -> R + Send) -> R {
    let (begun, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let thread = world.cycle(ScanScope::Whole, NextCycle::IsWhole, |stopped| {
            all(stopped);
            let thread = scope.spawn(|| {
                begun.store(true, SeqCst);
                let result = f();
                ended.store(true, SeqCst);
                result
            });
            while !begun.load(SeqCst) {
                thread::yield_now();
            }
            // Long enough for a thread that does not wait, as far as that can be said.
            thread::sleep(Duration::from_millis(20));
            assert!(!ended.load(SeqCst), "it has not waited");
            thread
        });
        thread.join().expect("no panic")
    })
}

#[test]
fn transfers_wait_while_their_places_are_given_away() {
    let world = World::new(Config::default());
    let goroutine = world.summing();
    let runtime = &world.runtime;
    waits_for_the_world(&world, || runtime.set_transfer(&goroutine, &SAID));
    let taken = waits_for_the_world(&world, || {
        let mut words = Vec::new();
        runtime.take_transfer(&goroutine, &mut words);
        words
    });
    assert_eq!(taken, SAID.map(Word::bits));
}

#[test]
fn a_thread_that_has_stopped_the_world_does_not_wait_for_it() {
    let world = World::new(Config::default());
    let goroutine = world.summing();
    let attempts: [&(dyn Fn() + Sync); 2] =
        [&|| world.runtime.set_transfer(&goroutine, &[]), &|| {
            drop(Machine::attach(&world.runtime))
        }];
    for attempt in attempts {
        let panic = world.cycle(ScanScope::Whole, NextCycle::IsWhole, |stopped| {
            all(stopped);
            catch_unwind(AssertUnwindSafe(attempt)).expect_err("it panics")
        });
        let text = panic.downcast_ref::<&str>().expect("words");
        assert_eq!(*text, "this thread has stopped the world, and waits for it to go on");
    }
    // Nothing is left behind.
    drop(Machine::attach(&world.runtime).expect("attached"));
    assert_eq!(world.host().attached.load(SeqCst), 1);
    assert_eq!(world.host().detached.load(SeqCst), 1);
}

#[test]
fn machines_come_and_go_while_the_world_runs_and_the_host_hears_of_both() {
    let world = World::new(Config::default());
    let heard = || (world.host().attached.load(SeqCst), world.host().detached.load(SeqCst));
    waits_for_the_world(&world, || {
        std::mem::forget(Machine::attach(&world.runtime).expect("attached"));
    });
    // The thread has ended with it.
    assert_eq!(heard(), (1, 1));
    waits_for_the_world(&world, || world.runtime.call_in(|_| {}).expect("attached"));
    let (attached, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let machine = Machine::attach(&world.runtime).expect("attached");
            attached.store(true, SeqCst);
            while !stopped.load(SeqCst) {
                thread::yield_now();
            }
            drop(machine);
        });
        while !attached.load(SeqCst) {
            thread::yield_now();
        }
        world.cycle(ScanScope::Whole, NextCycle::IsWhole, |_| {
            stopped.store(true, SeqCst);
            thread::sleep(Duration::from_millis(20));
            assert_eq!(heard().1, 2, "the machine goes when the world goes on");
        });
        thread.join().expect("no panic");
    });
    assert_eq!(heard(), (3, 3));
}

#[test]
fn a_host_s_hook_that_waits_for_the_world_is_refused() {
    struct Stops(Mutex<Weak<Runtime>>);
    impl Host for Stops {
        fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
            panic!("stack exceeds {limit} bytes")
        }
        fn machine_attached(&self) -> usize {
            let runtime = self.0.lock().expect("no panic").upgrade().expect("it lives");
            assert!(Machine::attach(&runtime).is_err(), "the thread is attached");
            runtime.stop_world(|_| 0)
        }
    }
    let host = Box::new(Stops(Mutex::default()));
    let runtime = Runtime::new(Config::default(), Arc::new(Code::new()), host).expect("a runtime");
    let weak = &runtime.host::<Stops>().expect("the host").0;
    *weak.lock().expect("no panic") = Arc::downgrade(&runtime);
    for _ in 0..2 {
        let attach = || drop(Machine::attach(&runtime));
        let panic = catch_unwind(AssertUnwindSafe(attach)).expect_err("it panics");
        let text = panic.downcast_ref::<String>().expect("words");
        assert!(text.starts_with("a stop of the world waits for all goroutines"), "{text}");
    }
    // The world can be stopped: no machine is left inside.
    runtime.stop_world(|_| ());
}

#[test]
fn stacks_are_scanned_for_words_in_a_stopped_world() {
    let world = World::new(Config::default());
    while_goroutines_run(&world, || {
        world.cycle(ScanScope::Whole, NextCycle::IsWhole, |stopped| {
            stopped.scan_goroutines().expect("stacks that can be walked");
            let visited = stopped.rescan_dirty().expect("stacks that can be walked");
            assert!(visited.frames + visited.skipped < 10_000);
        });
        world.words.0.load(SeqCst) < 3000
    });
}

#[test]
fn stacks_shrink_in_a_stopped_world_when_they_are_asked_to() {
    let world = World::new(Config::default());
    let shrunk = || world.runtime.counters().shrunk.load(SeqCst);
    let inner = world.clone();
    let deep = move |caller: Caller<'_>| {
        let panic = caller.foreign(|| {
            inner.cycle(ScanScope::Whole, NextCycle::IsWhole, |stopped| {
                all(stopped);
                catch_unwind(AssertUnwindSafe(|| stopped.shrink_stacks())).expect_err("it panics")
            })
        });
        let text = panic.downcast_ref::<&str>().expect("words");
        assert_eq!(*text, "the places of roots are in use");
    };
    world.with_act(5000, deep);
    assert_eq!(shrunk(), 0);

    let object = Word::Reference(world.object(5));
    // SAFETY: compiled code that keeps the contracts.
    let goroutine = unsafe { world.runtime.spawn(world.compiled.address("twice"), object) };
    let goroutine = goroutine.expect("memory");
    let machine = Machine::attach(&world.runtime).expect("not attached");
    let calls = AtomicUsize::new(0);
    ACT.set(Some(Box::new(move |caller| match calls.fetch_add(1, SeqCst) {
        0 => 0,
        // SAFETY: the frames between own nothing, and managed code goes on.
        _ => unsafe { caller.yield_now(Word::Plain(0)) },
    })));
    // It was deep, and is not any more.
    assert!(matches!(machine.run(goroutine.clone()), Left::Yielded(_)));
    ACT.take();
    world.cycle(ScanScope::Whole, NextCycle::IsWhole, |stopped| {
        stopped.shrink_stacks().expect("stacks that can be walked");
        let slots = all(stopped);
        assert!(!slots.is_empty());
        world.move_all(&slots);
    });
    assert!(shrunk() > 0);
    assert!(matches!(machine.run(goroutine), Left::Exited));
    let n = SUMS * SUMS;
    assert_eq!(world.host().results.lock().expect("no panic")[1..], [rec_result(n, VALUE, 0)]);
}

#[test]
fn handles_follow_their_objects() {
    let world = World::new(Config::default());
    let handles = Handles::new(&world.runtime);
    let machine = Machine::attach(&world.runtime).expect("not attached");
    let made = |count: usize| -> Vec<Handle> {
        machine.inside(|inside| {
            let object = |number| world.object(number % OBJECTS);
            (0..count).map(|number| handles.create(inside, object(number))).collect()
        })
    };
    let moves = |dropped: Option<Handle>| {
        world.cycle(ScanScope::Whole, NextCycle::IsWhole, |stopped| {
            let slots = Mutex::new(all(stopped));
            let to = |more: &[RootSlot]| slots.lock().expect("no panic").extend_from_slice(more);
            handles.visit(stopped, &to);
            // On any thread, at any time.
            drop(dropped);
            let slots = slots.into_inner().expect("no panic");
            world.move_all(&slots);
            slots.len()
        })
    };
    let mut held = made(200);
    assert_eq!(moves(None), 200);
    let last = held.pop();
    assert_eq!(moves(last), 200);
    held.retain(|handle| machine.inside(|inside| handle.get(inside)) != world.object(3));
    machine.inside(|inside| held[0].set(inside, 0));
    let count = held.len();
    assert_eq!((handles.live(), moves(None)), (count, count - 1));
    // The entries of handles that have gone are used again, and hold nothing before.
    held.extend(made(10));
    assert_eq!((handles.live(), moves(None)), (count + 10, count + 9));
    machine.inside(|inside| {
        assert_eq!(held[0].get(inside), 0);
        assert_eq!(held[1].get(inside), world.object(1));
        assert_eq!(held[count + 7].get(inside), world.object(7));
    });
    drop(held);
    assert_eq!((handles.live(), moves(None)), (0, 0));
}

#[test]
fn a_handle_is_used_inside_its_runtime_alone() {
    let panic_of = |attempt: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(attempt)).expect_err("it panics");
        let text = panic.downcast_ref::<String>().cloned();
        text.unwrap_or_else(|| (*panic.downcast_ref::<&str>().expect("words")).into())
    };
    let (world, other) = (World::new(Config::default()), World::new(Config::default()));
    let handles = Handles::new(&world.runtime);
    let machine = Machine::attach(&world.runtime).expect("not attached");
    let handle = machine.inside(|inside| handles.create(inside, world.object(1)));
    let entered = machine.enter();
    let stale = entered.inside();
    drop(entered);
    for attempt in [&(|| _ = handle.get(stale)) as &dyn Fn(), &|| handle.set(stale, 0)] {
        let text = panic_of(attempt);
        assert!(text.starts_with("a handle is used before its thread goes outside"), "{text}");
    }
    drop(machine);
    let machine = Machine::attach(&other.runtime).expect("not attached");
    let text = panic_of(&|| machine.inside(|inside| drop(handles.create(inside, 0))));
    assert!(text.contains("the handle is of another runtime"), "{text}");
    let text = panic_of(&|| {
        other
            .cycle(ScanScope::Whole, NextCycle::IsWhole, |stopped| handles.visit(stopped, &|_| {}));
    });
    assert!(text.contains("the handles are of another runtime"), "{text}");
}
