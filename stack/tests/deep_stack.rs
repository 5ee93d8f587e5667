//! A deep recursion of compiled code: its stack grows by moving, then in place, is scanned and
//! rescanned with barriers, and gives its memory back.

use compiler::{DEEP, Embedder, rec_result};
use parking_lot::Mutex;
use stackmark_stack::asm::ManagedFn;
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, Detection, Left, Machine, ModeInForce, NextCycle,
    ReturnProtection, RootSink, Runtime, ScanScope, StackKind,
};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Counts the roots that are the one object, and others.
#[derive(Default)]
struct Counting {
    object: AtomicUsize,
    found: AtomicU64,
    others: AtomicU64,
}

impl RootSink for Counting {
    fn roots(&self, words: &[usize]) {
        let found = words.iter().filter(|&&word| word == self.object.load(Relaxed)).count() as u64;
        self.found.fetch_add(found, Relaxed);
        self.others.fetch_add(words.len() as u64 - found, Relaxed);
    }
}

/// What the native function at the bottom does, for the test that runs.
type AtBottom = Box<dyn FnMut(Caller<'_>) + Send>;
static AT_BOTTOM: Mutex<Option<AtBottom>> = Mutex::new(None);
/// Drives the cycles of the test that runs.
static CYCLES: Mutex<Option<CycleDriver>> = Mutex::new(None);
/// One test at a time: they share AT_BOTTOM and the stubs.
static ONE: Mutex<()> = Mutex::new(());

unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    // Taken, so that it may call back: the bottom of that recursion does nothing.
    let taken = AT_BOTTOM.lock().take();
    if let Some(mut at_bottom) = taken {
        at_bottom(caller);
        *AT_BOTTOM.lock() = Some(at_bottom);
    }
    0
}

struct Run {
    runtime: Arc<Runtime>,
    /// The compiled function for callbacks.
    back: usize,
    collector: Arc<Counting>,
}

/// Recurses `n` deep on a moving stack and calls `at_bottom` there; checks the sum that comes back.
fn recurse(config: Config, n: usize, pad: u32, at_bottom: impl FnOnce(&Run) -> AtBottom) -> Run {
    recurse_on(StackKind::Moving, config, n, pad, at_bottom)
}

fn recurse_on(
    kind: StackKind,
    config: Config,
    n: usize,
    pad: u32,
    at_bottom: impl FnOnce(&Run) -> AtBottom,
) -> Run {
    let code = Arc::new(Code::new());
    let compiled = compiler::compile(&code, bottom, pad);
    let runtime = Runtime::new(config, code, Box::new(Embedder)).expect("the assembly's frames");
    let collector = Arc::new(Counting::default());
    let cycles = CycleDriver::new(&runtime, collector.clone()).expect("one collector");
    *CYCLES.lock() = Some(cycles);
    let run = Run { runtime, back: compiled.address("back"), collector };
    let object = Box::new(7_usize);
    run.collector.object.store(&raw const *object as usize, Relaxed);
    *AT_BOTTOM.lock() = Some(at_bottom(&run));
    let mut argument = [n, &raw const *object as usize, 0];
    let machine = Machine::attach(&run.runtime).expect("a fresh thread");
    // SAFETY: the entry is compiled code that keeps the contracts.
    let goroutine =
        unsafe { run.runtime.spawn_on(kind, compiled.entry, argument.as_mut_ptr() as usize) }
            .expect("memory");
    assert!(matches!(machine.run(goroutine), Left::Exited));
    assert_eq!(argument[2], rec_result(n, *object, 0));
    *AT_BOTTOM.lock() = None;
    *CYCLES.lock() = None;
    drop(compiled);
    run
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

#[test]
fn a_stack_grows_from_2_kib_to_very_many_frames_and_gives_its_memory_back() {
    let _one = ONE.lock();
    let config = Config { poison: true, ..Config::default() };
    let run = recurse(config, DEEP, 0, |_| Box::new(|_| {}));
    let counters = run.runtime.counters();
    assert!(count(&counters.grown) >= 14, "{counters:?}");
    assert!(count(&counters.largest_move_bytes) <= 256 << 10, "{counters:?}");
    let peak = run.runtime.stack_bytes().peak;
    assert!(peak >= 8 * DEEP * size_of::<usize>(), "{peak}");
    run.runtime.trim_stacks();
    assert!(run.runtime.stack_bytes().resident < peak / 4);
}

/// One cycle, driven by the goroutine's own thread while it is InForeign. Returns (frames,
/// rescanned, skipped).
fn cycle(caller: Caller<'_>, number: u64) -> (u64, u64, u64) {
    let runtime = caller.runtime().clone();
    let mut cycles = CYCLES.lock();
    let cycles = cycles.as_mut().expect("the test's");
    caller.foreign(|| {
        cycles.handshake();
        assert!(cycles.begin_scanning(number, ScanScope::Whole));
        cycles.scan_goroutines(|| {}).expect("a stack that can be walked");
    });
    // Running again: dirty. Then the world stops, from another thread, while this one is InForeign.
    caller.foreign(|| {
        let visited = cycles.stop_world(|world| {
            let visited = world.rescan_dirty().expect("a stack that can be walked");
            world.end_scanning(NextCycle::IsWhole);
            visited
        });
        let frames = runtime.take_cycle_figures().deepest_frames;
        (frames, visited.frames, visited.skipped)
    })
}

#[test]
fn a_rescan_visits_only_the_frames_up_to_the_lowest_unhit_barrier() {
    let _one = ONE.lock();
    const N: u64 = DEEP as u64;
    let run = recurse(Config::default(), DEEP, 0, |run| {
        let collector = run.collector.clone();
        Box::new(move |caller| {
            for number in 1..=3 {
                collector.found.store(0, Relaxed);
                let (frames, rescanned, skipped) = cycle(caller, number);
                assert!(frames > N, "{frames}");
                assert!(rescanned < frames / 100, "{rescanned} of {frames}");
                assert_eq!(rescanned + skipped, frames);
                assert!(collector.found.load(Relaxed) > N, "every frame's root was found");
            }
        })
    });
    let counters = run.runtime.counters();
    // Each cycle removes the barriers of the one before; those of the last are all returned
    // through. Those that a worker has found places for are not placed before they are needed.
    assert!(count(&counters.hit) >= 16, "{counters:?}");
    assert!(count(&counters.placed) < 2 * count(&counters.hit), "{counters:?}");
    // The goroutine itself visited some hundred frames in a cycle.
    assert!(count(&counters.scanned_stopped) < 1000, "{counters:?}");
    assert!(
        count(&counters.scanned_running) + count(&counters.scanned_stopped) > 3 * N,
        "{counters:?}"
    );
}

#[test]
fn without_barriers_a_rescan_visits_every_frame() {
    let _one = ONE.lock();
    let config = Config { barriers: BarrierMode::Off, ..Config::default() };
    let run = recurse(config, 10_000, 0, |_| {
        Box::new(|caller| {
            let (frames, rescanned, skipped) = cycle(caller, 1);
            assert_eq!((rescanned, skipped), (frames, 0));
        })
    });
    assert_eq!(count(&run.runtime.counters().placed), 0);
}

#[test]
fn where_return_addresses_are_protected_a_rescan_visits_every_frame() {
    let _one = ONE.lock();
    for protection in [ReturnProtection::ShadowStack, ReturnProtection::GuardedControlStack] {
        for chosen in [BarrierMode::Incremental, BarrierMode::RescanLimit, BarrierMode::EveryFrame]
        {
            let config = Config {
                barriers: chosen,
                protection: Detection::Assume(protection),
                ..Config::default()
            };
            let run = recurse(config, 1000, 0, |_| {
                Box::new(|caller| {
                    let (frames, rescanned, skipped) = cycle(caller, 1);
                    assert_eq!((rescanned, skipped), (frames, 0));
                })
            });
            assert_eq!(count(&run.runtime.counters().placed), 0);
            let (mode, protection) = (BarrierMode::Off, Some(protection));
            assert_eq!(run.runtime.mode(), ModeInForce { mode, chosen, protection });
        }
    }
}

#[test]
fn a_mode_chosen_by_hand_is_in_force_whatever_the_system_says() {
    let _one = ONE.lock();
    let config = Config {
        barriers: BarrierMode::EveryFrame,
        protection: Detection::Ignore,
        ..Config::default()
    };
    let run = recurse(config, 100, 0, |_| {
        Box::new(|caller| {
            cycle(caller, 1);
        })
    });
    assert_eq!(run.runtime.mode().mode, BarrierMode::EveryFrame);
    assert!(count(&run.runtime.counters().hit) > 90);
}

/// A barrier in every frame, and a move at every poll.
fn moves_with_barriers() -> Config {
    Config {
        barriers: BarrierMode::EveryFrame,
        move_every_poll: true,
        poison: true,
        ..Config::default()
    }
}

#[test]
fn stacks_move_with_a_barrier_in_every_frame() {
    let _one = ONE.lock();
    for (n, pad) in [(300, 0), (40, 800), (3000, 16)] {
        let run = recurse(moves_with_barriers(), n, pad, |_| {
            Box::new(|caller| {
                for number in 1..=3 {
                    cycle(caller, number);
                }
            })
        });
        let counters = run.runtime.counters();
        // All frames but the innermost, the entry's and the two that the assembly makes.
        assert_eq!(count(&counters.hit), n as u64 + 1, "{counters:?}");
        assert_eq!(count(&counters.leapfrogged), 0);
        assert_eq!(run.runtime.pool_exhausted(), 0);
    }
}

/// Each function of a callback polls when it is entered, and the stack moves there.
#[test]
fn a_move_carries_along_the_barriers_of_all_frames() {
    let _one = ONE.lock();
    const CALLS: usize = 3;
    for (n, pad) in [(300, 0), (40, 800)] {
        let run = recurse(moves_with_barriers(), n, pad, |run| {
            let (back, object) = (run.back, run.collector.object.load(Relaxed));
            Box::new(move |caller| {
                cycle(caller, 1);
                let counters = caller.runtime().counters();
                assert_eq!(count(&counters.moved), 0, "none was there yet");
                let barriers = count(&counters.placed);
                assert!(barriers > n as u64, "{counters:?}");
                let mut argument = [caller.goroutine().address(), CALLS, object, 0];
                // SAFETY: the callee is compiled code of one word in, one word out.
                caller.foreign(|| unsafe {
                    let back = std::mem::transmute::<usize, ManagedFn>(back);
                    caller.callback(back, argument.as_mut_ptr() as usize).expect("no exception");
                });
                assert_eq!(argument[3], rec_result(CALLS, 7, 0));
                // `back`, and `rec` one time more than it is called by itself.
                assert_eq!(count(&counters.moved), (CALLS as u64 + 2) * barriers, "{counters:?}");
            })
        });
        let counters = run.runtime.counters();
        assert_eq!(count(&counters.hit), n as u64 + 1, "{counters:?}");
        assert_eq!(run.runtime.pool_exhausted(), 0);
    }
}

#[test]
fn a_fixed_stack_grows_in_place_and_keeps_its_addresses() {
    let _one = ONE.lock();
    // Debugging modes that move stacks leave it alone.
    let config = Config { move_every_poll: true, poison: true, ..Config::default() };
    let run = recurse_on(StackKind::Fixed, config, 100_000, 0, |_| {
        Box::new(|caller| {
            cycle(caller, 1);
        })
    });
    let counters = run.runtime.counters();
    assert_eq!(count(&counters.moved_bytes), 0);
    assert!(count(&counters.grown) >= 8, "{counters:?}");
    assert!(count(&counters.hit) >= 10, "barriers lie in fixed stacks too: {counters:?}");
}
