//! Native code that writes references to its goroutine's stack without a write barrier.
//!
//! The oldest frame holds an array of references, far from the native function. Each test has
//! twins that leave the announcement out, or announce other words, and lose references.

use crate::{Inner, Object, header};
use compiler::{Compiled, Compiler, Embedder, INT, Start};
use parking_lot::Mutex;
use stackmark_stack::asm::ManagedFn;
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, FrameAt, Left, Machine, NextCycle, RootSink, Runtime,
    ScanScope,
};
use std::collections::HashSet;
use std::ffi::c_void;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;

/// The references in the array.
const REFERENCES: usize = 8;
/// The array's first words: the value that `rec` reads, and the native function's [`Act`].
const HEAD: usize = 2;
const WORD: usize = size_of::<usize>();

/// What the native function does. It gets the address of the array.
type Act<'a> = &'a dyn Fn(Caller<'_>, usize);

unsafe extern "C-unwind" fn bottom(array: *mut c_void, _n: usize) -> usize {
    // SAFETY: the second word of what managed code passes down points to an act.
    let act = unsafe { **(array as *const *const Act<'_>).add(1) };
    // SAFETY: used in this function alone.
    act(unsafe { Caller::current() }, array as usize);
    0
}

/// The references that the array holds at first.
fn old() -> [usize; REFERENCES] {
    std::array::from_fn(|i| 0x10_0000 + i * WORD)
}

/// The references that the native function writes over them.
fn new() -> [usize; REFERENCES] {
    std::array::from_fn(|i| 0x20_0000 + i * WORD)
}

/// The roots that a cycle has found.
#[derive(Default)]
struct Found(Mutex<HashSet<usize>>);

impl RootSink for Found {
    fn roots(&self, words: &[usize]) {
        self.0.lock().extend(words);
    }
}

impl Found {
    /// How many of these references are among the roots.
    fn count(&self, references: [usize; REFERENCES]) -> usize {
        let found = self.0.lock();
        references.iter().filter(|reference| found.contains(reference)).count()
    }
}

/// A runtime with compiled code, and a cycle in steps.
struct Steps {
    runtime: Arc<Runtime>,
    compiled: Compiled,
    found: Arc<Found>,
    /// With the number of the last cycle.
    cycles: Mutex<(CycleDriver, u64)>,
}

impl Steps {
    fn new(config: Config) -> Steps {
        let code = Arc::new(Code::new());
        let mut compiler = Compiler::default();
        let rec = compiler.recursion(bottom, 16, false);
        compiler.back("inner", rec);
        // `entry(goroutine, [n, act, result, references])`. The result is the sum of the array's
        // references when `rec` has returned.
        let entry = compiler.function("entry", &[INT, INT], Start::Goroutine, |f| {
            let argument = f.param(1);
            let words: Vec<bool> = (0..HEAD + REFERENCES).map(|word| word >= HEAD).collect();
            let array = f.slot((words.len() * WORD) as u32, &words);
            let value = f.int(7);
            f.store(value, array, 0);
            let act = f.load(argument, 1);
            f.store(act, array, 1);
            for word in HEAD..HEAD + REFERENCES {
                let reference = f.load_reference(argument, word + 1);
                f.store(reference, array, word);
            }
            let n = f.load(argument, 0);
            f.call(rec, &[n, array]);
            let mut sum = f.int(0);
            for word in HEAD..HEAD + REFERENCES {
                let reference = f.load_reference(array, word);
                sum = f.add(sum, reference);
            }
            f.store(sum, argument, 2);
            f.return_(sum);
        });
        let compiled = compiler.finish(entry, &code);
        let runtime =
            Runtime::new(config, code, Box::new(Embedder)).expect("the assembly's frames");
        let found = Arc::new(Found::default());
        let cycles = CycleDriver::new(&runtime, found.clone()).expect("one collector");
        Steps { runtime, compiled, found, cycles: Mutex::new((cycles, 0)) }
    }

    /// Runs a goroutine with the array in its oldest frame and `act` `n` frames below. Returns the
    /// sum of the array's references at the end.
    fn run(&self, n: usize, act: Act<'_>) -> usize {
        let machine = Machine::attach(&self.runtime).expect("this thread is not attached");
        let mut argument = [0; 3 + REFERENCES];
        argument[..2].copy_from_slice(&[n, &raw const act as usize]);
        argument[3..].copy_from_slice(&old());
        // SAFETY: the entry is compiled code that keeps the contracts, and its argument outlives
        // the run.
        let goroutine =
            unsafe { self.runtime.spawn(self.compiled.entry, argument.as_mut_ptr() as usize) };
        assert!(matches!(machine.run(goroutine.expect("memory")), Left::Exited));
        assert_eq!(self.runtime.live_goroutines(), 0);
        argument[2]
    }

    /// Calls `rec` back, with `act` `n` frames below.
    fn call_back(&self, caller: Caller<'_>, n: usize, act: Act<'_>) {
        let object = [7, &raw const act as usize];
        let object = (&raw const object).cast::<Object<'_>>();
        let goroutine = caller.goroutine().address();
        let argument = Inner { goroutine, n, object, result: 0 };
        caller.foreign(|| {
            // SAFETY: the compiled function has this type; `rec` reads the two words of its object.
            unsafe {
                let inner = self.compiled.address("inner");
                let inner = std::mem::transmute::<usize, ManagedFn>(inner);
                caller.callback(inner, &raw const argument as usize).expect("in a foreign call");
            }
        });
    }

    /// Begins a cycle and the scan of each stack. Nothing visits the frames that this leaves.
    fn begin(&self, scope: ScanScope) {
        let (cycles, number) = &mut *self.cycles.lock();
        *number += 1;
        self.found.0.lock().clear();
        cycles.handshake();
        assert!(cycles.begin_scanning(*number, scope));
        cycles.scan_goroutines(|| {}).expect("stacks that can be walked");
    }

    /// Visits the frames that the scans have left.
    fn visit_frozen(&self) {
        while self.runtime.scan_frozen().expect("stacks that can be walked") {}
    }

    /// Ends the cycle. Checks the barriers of each stack.
    fn end(&self, next: NextCycle) {
        self.cycles.lock().0.stop_world(|world| {
            world.rescan_dirty().expect("stacks that can be walked");
            world.visit_all(&mut |_| {}).expect("stacks that can be walked");
            world.end_scanning(next);
        });
    }

    fn removed(&self) -> u64 {
        self.runtime.counters().removed.load(Relaxed)
    }

    fn hit(&self) -> u64 {
        self.runtime.counters().hit.load(Relaxed)
    }
}

/// Which words the native function announces before it writes the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announced {
    Array,
    Nothing,
    Empty,
    Elsewhere,
    /// A word of the youngest managed frame.
    Youngest,
    /// A word of a frame halfway to the array.
    Halfway,
}

/// All that do not announce the array.
const TWINS: [Announced; 4] =
    [Announced::Nothing, Announced::Empty, Announced::Elsewhere, Announced::Youngest];

fn references(array: usize) -> Range<usize> {
    array + HEAD * WORD..array + (HEAD + REFERENCES) * WORD
}

fn announce(caller: Caller<'_>, array: usize, announced: Announced) {
    let native = [0usize; REFERENCES];
    let words = match announced {
        Announced::Nothing => return,
        Announced::Array => references(array),
        Announced::Empty => array..array,
        Announced::Elsewhere => native.as_ptr() as usize..native.as_ptr_range().end as usize,
        Announced::Youngest | Announced::Halfway => {
            let mut depths = Vec::new();
            let walked = caller.frames(|frame: FrameAt| {
                depths.push(frame.depth);
                ControlFlow::Continue(())
            });
            walked.expect("a stack that can be walked");
            let at = if announced == Announced::Youngest { 0 } else { depths.len() / 2 };
            let start = header(caller.goroutine()).stack_hi.load(Relaxed) - depths[at];
            start..start + WORD
        }
    };
    caller.note_stack_write(words).expect("a stack that can be walked");
}

/// Writes the new references over the old ones.
fn write(array: usize) {
    let to = references(array).start as *mut [usize; REFERENCES];
    // SAFETY: the words of the array, in a frame of this thread's goroutine, which stands still.
    unsafe { to.write(new()) };
}

fn few_frames(barriers: BarrierMode) -> Config {
    Config { barriers, scan_few_frames: true, ..Config::default() }
}

/// Ways to scan, and how many frames lie between the array and the native function: more than a
/// scan visits at once.
fn incremental() -> [(Config, usize); 3] {
    [
        (few_frames(BarrierMode::Incremental), 60),
        (few_frames(BarrierMode::EveryFrame), 60),
        (Config { barriers: BarrierMode::Incremental, ..Config::default() }, 500),
    ]
}

/// The same, and ways that scan the stack at once.
fn all() -> Vec<(Config, usize)> {
    let whole = |barriers| (Config { barriers, ..Config::default() }, 60);
    let mut all = Vec::from(incremental());
    all.extend([whole(BarrierMode::EveryFrame), whole(BarrierMode::RescanLimit)]);
    all
}

/// Writes the array before the scan comes to it. Returns how many of the old and of the new
/// references the cycle has found.
fn written_before_the_visit(config: Config, n: usize, announced: Announced) -> [usize; 2] {
    let s = Steps::new(config);
    let end = s.run(n, &|caller, array| {
        caller.foreign(|| s.begin(ScanScope::Whole));
        assert!(s.runtime.has_frozen());
        assert_eq!(s.found.count(old()), 0, "the scan has not come to the array");
        let removed = s.removed();
        announce(caller, array, announced);
        if announced == Announced::Array {
            assert_eq!(s.found.count(old()), REFERENCES, "the announcement visits the array");
            assert!(s.removed() > removed, "the frontier lay in a younger frame");
        } else {
            assert_eq!(s.found.count(old()), 0, "{announced:?} visits no older frame");
            assert_eq!(s.removed(), removed, "{announced:?} removes no barrier");
        }
        write(array);
        caller.foreign(|| {
            s.visit_frozen();
            s.end(NextCycle::IsWhole);
        });
    });
    assert_eq!(end, new().iter().sum::<usize>());
    [s.found.count(old()), s.found.count(new())]
}

/// A write barrier that shades what is overwritten needs the old references, since native code may
/// have put them into objects that are marked already. The other kind needs the new ones.
#[test]
fn what_an_array_held_and_holds_is_found_if_the_write_is_announced_before_the_visit() {
    for (config, n) in incremental() {
        let found = written_before_the_visit(config.clone(), n, Announced::Array);
        assert_eq!(found, [REFERENCES; 2], "{config:?}");
    }
}

#[test]
fn without_the_announcement_a_scan_that_comes_later_loses_what_the_array_held() {
    for (config, n) in incremental() {
        for announced in TWINS {
            let [lost, found] = written_before_the_visit(config.clone(), n, announced);
            assert_eq!((lost, found), (0, REFERENCES), "{announced:?} {config:?}");
        }
    }
}

/// The announcement removes the frontier. The frames beyond get one again.
#[test]
fn after_an_announcement_the_goroutine_still_visits_older_frames_before_it_runs_them() {
    for (config, n) in incremental() {
        let s = Steps::new(config.clone());
        let end = s.run(n, &|caller, array| {
            caller.foreign(|| s.begin(ScanScope::Whole));
            let removed = s.removed();
            announce(caller, array, Announced::Halfway);
            assert!(s.removed() > removed, "the frontier lay in a younger frame");
            assert_eq!(s.found.count(old()), 0, "the array is beyond: {config:?}");
        });
        assert_eq!(end, old().iter().sum::<usize>());
        assert_eq!(s.found.count(old()), REFERENCES, "{config:?}");
        s.end(NextCycle::IsWhole);
    }
}

/// Writes the array when the scan is complete. Returns how many of the new references the cycle has
/// found; and how many barriers the announcement has removed, and the returns have hit.
fn written_after_the_visit(config: Config, n: usize, announced: Announced) -> (usize, [u64; 2]) {
    let s = Steps::new(config);
    let removed = AtomicU64::new(0);
    let end = s.run(n, &|caller, array| {
        caller.foreign(|| {
            s.begin(ScanScope::Whole);
            s.visit_frozen();
        });
        assert_eq!(s.found.count(old()), REFERENCES);
        let before = s.removed();
        announce(caller, array, announced);
        removed.store(s.removed() - before, Relaxed);
        write(array);
        caller.foreign(|| s.end(NextCycle::IsWhole));
    });
    assert_eq!(end, new().iter().sum::<usize>());
    (s.found.count(new()), [removed.load(Relaxed), s.hit()])
}

#[test]
fn the_rescan_comes_to_an_announced_write_and_its_younger_barriers_are_settled() {
    for (config, n) in all() {
        let (found, [removed, hit]) = written_after_the_visit(config.clone(), n, Announced::Array);
        assert_eq!(found, REFERENCES, "{config:?}");
        assert_eq!(hit, 0, "no barrier is left on the way to the array: {config:?}");
        // A scan in several steps places barriers beyond the frontier when that is hit. The
        // announcement drops those that are not placed yet.
        let (_, [_, all]) = written_after_the_visit(config.clone(), n, Announced::Nothing);
        assert!(0 < removed && removed <= all, "{removed} of {all}: {config:?}");
        let at_once = !config.scan_few_frames && config.barriers != BarrierMode::Incremental;
        assert!(removed == all || !at_once, "{removed} of {all}: {config:?}");
    }
}

#[test]
fn without_the_announcement_the_rescan_stops_before_the_array() {
    for (config, n) in all() {
        for announced in TWINS {
            let (found, [removed, _]) = written_after_the_visit(config.clone(), n, announced);
            assert_eq!(found, 0, "{announced:?} {config:?}");
            assert_eq!(removed, 0, "{announced:?} {config:?}");
        }
    }
}

/// Writes the array between two cycles, of which the second has short scans. Returns how many of
/// the new references the second one has found.
fn written_between_cycles(config: Config, n: usize, announced: Announced) -> usize {
    let s = Steps::new(config);
    let cycle = |caller: Caller<'_>, scope| {
        let kept = || s.runtime.counters().kept.load(Relaxed);
        let before = kept();
        caller.foreign(|| {
            s.begin(scope);
            s.visit_frozen();
            s.end(NextCycle::MayBeShort);
        });
        kept() - before
    };
    let found = AtomicU64::new(0);
    s.run(n, &|caller, array| {
        cycle(caller, ScanScope::Whole);
        announce(caller, array, announced);
        write(array);
        let kept = cycle(caller, ScanScope::Short);
        assert_eq!(kept == 0, announced == Announced::Array, "{kept} frames are left out");
        found.store(s.found.count(new()) as u64, Relaxed);
        // The barriers that the announcement has removed are replaced.
        assert!(cycle(caller, ScanScope::Short) > 0, "short scans are short again");
        assert_eq!(s.found.count(new()), 0);
    });
    found.load(Relaxed) as usize
}

#[test]
fn a_short_scan_comes_to_a_write_that_was_announced_between_the_cycles() {
    for (config, n) in all() {
        let found = written_between_cycles(config.clone(), n, Announced::Array);
        assert_eq!(found, REFERENCES, "{config:?}");
    }
}

#[test]
fn without_the_announcement_a_short_scan_leaves_the_array_out() {
    for (config, n) in all() {
        for announced in TWINS {
            let found = written_between_cycles(config.clone(), n, announced);
            assert_eq!(found, 0, "{announced:?} {config:?}");
        }
    }
}

/// Writes the array in a callback, `inner` frames into it; the array's frame is `outer` frames
/// beyond. The scan is complete at the write if `complete`. Returns how many of the old and of the
/// new references the cycle has found, and how many barriers the announcement has removed.
fn written_in_a_callback(
    config: Config,
    [outer, inner]: [usize; 2],
    complete: bool,
    announced: Announced,
) -> ([usize; 2], u64) {
    let s = Steps::new(config);
    let removed = AtomicU64::new(0);
    let end = s.run(outer, &|caller, array| {
        // The stack may move in the callback.
        let hi = |caller: Caller<'_>| header(caller.goroutine()).stack_hi.load(Relaxed);
        let depth = hi(caller) - array;
        s.call_back(caller, inner, &|caller, _| {
            let array = hi(caller) - depth;
            caller.foreign(|| {
                s.begin(ScanScope::Whole);
                if complete {
                    s.visit_frozen();
                }
            });
            let before = s.removed();
            announce(caller, array, announced);
            removed.store(s.removed() - before, Relaxed);
            write(array);
            caller.foreign(|| {
                s.visit_frozen();
                s.end(NextCycle::IsWhole);
            });
        });
    });
    assert_eq!(end, new().iter().sum::<usize>());
    ([s.found.count(old()), s.found.count(new())], removed.load(Relaxed))
}

#[test]
fn an_announcement_in_a_callback_reaches_the_frames_beyond_it() {
    for (config, n) in incremental() {
        let write = |announced| written_in_a_callback(config.clone(), [n, 20], false, announced).0;
        assert_eq!(write(Announced::Array), [REFERENCES; 2], "{config:?}");
        for announced in TWINS {
            assert_eq!(write(announced), [0, REFERENCES], "{announced:?} {config:?}");
        }
    }
    for (config, n) in all() {
        let write = |announced| written_in_a_callback(config.clone(), [n, 20], true, announced).0;
        assert_eq!(write(Announced::Array), [REFERENCES; 2], "{config:?}");
        for announced in TWINS {
            assert_eq!(write(announced), [REFERENCES, 0], "{announced:?} {config:?}");
        }
    }
}

/// A rescan also stops at a callback whose foreign call has not returned since the scan.
#[test]
fn an_announcement_reaches_frames_that_only_a_foreign_call_keeps_from_running() {
    let config = Config { barriers: BarrierMode::RescanLimit, ..Config::default() };
    // So few that no barrier is due: the assembly's frames are large on Windows.
    let frames = if cfg!(windows) { [0, 0] } else { [1, 1] };
    let write = |announced| written_in_a_callback(config.clone(), frames, true, announced);
    assert_eq!(write(Announced::Array), ([REFERENCES; 2], 0));
    for announced in [Announced::Nothing, Announced::Empty, Announced::Elsewhere] {
        assert_eq!(write(announced), ([REFERENCES, 0], 0), "{announced:?}");
    }
}

/// The native function turns the array round again and again while cycles run on another thread.
#[test]
fn no_cycle_loses_a_reference_that_announced_writes_move_within_an_array() {
    const CYCLES: usize = 100;
    for (config, n) in all() {
        let s = Steps::new(config);
        let done = AtomicBool::new(false);
        let end = s.run(n, &|caller, array| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let _done = SetAtEnd(&done);
                    for _ in 0..CYCLES {
                        s.begin(ScanScope::Whole);
                        s.visit_frozen();
                        s.end(NextCycle::IsWhole);
                        assert_eq!(s.found.count(old()), REFERENCES);
                    }
                });
                while !done.load(SeqCst) {
                    let words = references(array);
                    caller.note_stack_write(words.clone()).expect("a stack that can be walked");
                    // SAFETY: the words of the array, in a frame of this thread's goroutine, which
                    // stands still.
                    unsafe { (*(words.start as *mut [usize; REFERENCES])).rotate_left(1) };
                    caller.foreign(thread::yield_now);
                }
            });
        });
        assert_eq!(end, old().iter().sum::<usize>());
    }
}

/// Sets a flag when it is dropped, also by a panic.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
